"""A card says what is on disk, in the Hub's form, and lets no stranger's word be more than a word."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import DatasetCard, ModelCard

import terrazzo as tz
from terrazzo import cards
from terrazzo.report import Report
from terrazzo.run import Run

FILES = ("terrazzo.json", "config.json", "preprocessor_config.json", "model.safetensors", "evaluation.json")
HOSTILE = (
    "road | --- |",
    "---\nlicense: mit\n---",
    "<script>alert(1)</script>",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png)",
    "`code` *bold* _it_ ~no~ $x$ &amp; \\",
    "http://evil.example www.evil.example a@evil.example",
    "{{ 7 * 7 }}: !!python/object/apply:os.system [ls]",
    "\u202egnirts\u202c \x1b[31mred\x00",
    "# not a heading",
    "😀 ß 道路 \ud800",
    "x" * 5000,
    "' \" : - ? , @",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, boxes: Path) -> Run:
    """A training of four steps."""
    steps = ("train.steps=4", "eval.every=2", "train.batch_size=2", "optim.warmup_steps=1", "data.crop_hw=32x32",
             "train.loggers=", "train.pictures=2")  # fmt: skip
    out = tmp_path_factory.mktemp("cards") / "run"
    return tz.train("segformer-b0-scratch", data=boxes, out=out, overrides=steps, device="cpu", quiet=True)


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    """What is shared of it."""
    best, out = run.best_folder(), tmp_path / "shared"
    out.mkdir()
    for name in FILES:
        shutil.copy(best / name, out)
    cards.pictures(best, out)
    return out


def test_the_hub_reads_the_numbers_of_the_report(run: Run, folder: Path) -> None:
    card = ModelCard(cards.model_card(folder, repo_id="anna/street"))
    report = Report.open(run.best_folder() / "evaluation.json")
    assert report.miou == run.best["miou"]
    found = {one.metric_type: one for one in card.data.eval_results}
    assert {name: one.metric_value for name, one in found.items()} == {
        "mean_iou": report.miou, "mean_accuracy": report.mean_accuracy, "accuracy": report.pixel_accuracy,
        "mean_dice": report.mean_dice, "frequency_weighted_iou": report.frequency_weighted_iou}  # fmt: skip
    one = found["mean_iou"]
    assert (one.task_type, one.dataset_name, one.dataset_split) == ("image-segmentation", report.data, "val")
    assert one.dataset_args == {"fingerprint": tz.open_dataset(run.data["source"]).fingerprint}
    assert (card.data.pipeline_tag, card.data.library_name) == ("image-segmentation", "transformers")
    assert card.data.license == "unknown"  # from random weights, and nobody chose one


def test_the_table_of_classes_is_that_of_the_report(run: Run, folder: Path) -> None:
    text = cards.model_card(folder, repo_id="anna/street")
    report = Report.open(run.best_folder() / "evaluation.json")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    told = {row[1]: row[3:] for row in rows if len(row) == 7 and row[0].isdigit()}
    assert told == {
        name: [f"{100 * s.iou:.2f}", f"{100 * s.accuracy:.2f}", f"{100 * s.dice:.2f}", f"{s.pixels:,}"]
        for name, s in report.per_class.items()
    }


def test_a_card_names_no_place_of_this_machine(run: Run, folder: Path) -> None:
    text = cards.model_card(folder, repo_id="anna/street")
    shared = text + "".join((folder / name).read_text("utf-8") for name in FILES if name.endswith(".json"))
    assert str(run.path) not in shared
    assert str(Path(run.data["source"]).parent) not in shared
    assert str(Path.home()) not in shared


def test_pictures_in_the_card_are_in_the_folder(folder: Path) -> None:
    card = ModelCard(cards.model_card(folder, repo_id="anna/street"))
    named = re.findall(r"!\[[^]]*\]\(([^)]*)\)", card.text)
    assert named == ["pictures/predictions.png"]
    examples = [one["src"].partition("/resolve/main/")[2] for one in card.data.widget]
    assert examples == ["pictures/example-1.jpg", "pictures/example-2.jpg"]
    assert all((folder / name).is_file() for name in (*named, *examples))


def with_names(folder: Path, names: tuple[str, ...]) -> None:
    """Give the model in `folder` as many classes, called so."""
    about = json.loads((folder / "terrazzo.json").read_text("utf-8"))
    about["classes"] = [{"name": name} for name in names]
    about["data"] |= {"name": names[1], "source": names[3], "license": names[4]}
    about["licenses"]["from"]["data"] = [{"name": names[1], "license": names[2]}]
    about["licenses"]["from"]["weights"] = [{"name": names[0], "license": names[3]}]
    about["recipe"] |= {"name": names[5], "summary": names[6]}
    (folder / "terrazzo.json").write_text(json.dumps(about), "utf-8")
    counts = np.diag(np.arange(len(names)))
    report = Report(
        names=names, counts=counts, num_images=2, data=names[1], split=names[2], notes=(names[3],)
    )
    (folder / "evaluation.json").write_text(json.dumps(report.to_json()), "utf-8")


def outside_code(text: str) -> Iterator[str]:
    """The lines of a card's text that are not in fences."""
    for number, part in enumerate(re.split(r"(?m)^```.*$", text)):
        if number % 2 == 0:
            yield from part.splitlines()


def test_hostile_names_are_only_words(folder: Path) -> None:
    with_names(folder, HOSTILE)
    text = cards.model_card(folder, repo_id="anna/street")
    text.encode("utf-8")
    card = ModelCard(text)
    assert card.data.license == "other"
    assert card.data.eval_results[0].dataset_split == "<script>alert(1)</script>"
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\u202c]", text)
    plain = "\n".join(outside_code(card.text))
    plain = re.sub(
        r'<span style="background-color:#[0-9a-f]{6}">(&nbsp;){4}</span>|<https://spdx\.org[^>]*>', "", plain
    )
    assert not re.search(r"(?<!\\)[<>]", plain)
    assert re.findall(r"(?<!\\)\]\(([^)]*)\)", plain) == ["pictures/predictions.png"]
    assert "://" not in plain and "www." not in plain and "a@evil" not in plain
    rows = [line for line in plain.splitlines() if re.match(r"\| \d+ \|", line)]
    assert len(rows) == len(HOSTILE)
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8}
    assert [line for line in plain.splitlines() if line.startswith("#")] == [
        "# street", "## Scores", "## How to use it", "## How it was trained", "## Intended use", "## Limits",
        "## Licences"]  # fmt: skip


def test_what_was_not_seen_in_validation_is_said(folder: Path) -> None:
    names = ("road", "sky", "tram")
    about = json.loads((folder / "terrazzo.json").read_text("utf-8"))
    about["classes"] = [{"name": name} for name in names]
    (folder / "terrazzo.json").write_text(json.dumps(about), "utf-8")
    Report(names=names, counts=np.diag([5, 7, 0]), num_images=1).save(folder / "evaluation.json")
    text = cards.model_card(folder, repo_id="anna/street")
    assert "tram does not occur in the validation: how well it finds them is not known." in text
    assert "n/a" in next(line for line in text.splitlines() if line.startswith("| 2 | tram"))


def test_a_model_of_transformers_has_a_card_that_knows_little(folder: Path) -> None:
    for name in ("terrazzo.json", "evaluation.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "pictures")
    card = ModelCard(cards.model_card(folder, repo_id="anna/street", license="mit"))
    assert (card.data.license, card.data.eval_results, card.data.get("widget")) == ("mit", None, None)
    assert "how good they are is not known" in card.text
    assert "## How it was trained\n\nNot known" in card.text


def test_the_card_of_a_data_set_is_read_by_the_hub_and_by_datasets(boxes: Path, tmp_path: Path) -> None:
    from datasets.info import DatasetInfosDict

    data = tz.open_dataset(boxes)
    names = cards.pictures(data, tmp_path)
    card = DatasetCard(cards.data_card(data, repo_id="anna/boxes", pictures=names))
    assert card.data.task_categories == ["image-segmentation"]
    assert card.data.size_categories == ["n<1K"]
    info = DatasetInfosDict.from_dataset_card_data(card.data)["default"]
    assert {name: split.num_examples for name, split in info.splits.items()} == {"train": 8, "val": 3}
    assert [type(one).__name__ for one in info.features.values()] == ["Image", "Image"]
    assert re.findall(r"!\[[^]]*\]\(([^)]*)\)", card.text) == list(names)
    assert all((tmp_path / name).is_file() for name in names)
    assert str(boxes.parent) not in card.text
    assert data.fingerprint in card.text


def test_pixel_shares_are_those_of_the_masks(boxes: Path) -> None:
    data = tz.open_dataset(boxes)
    text = cards.data_card(data, repo_id="anna/boxes")
    masks = np.concatenate([sample.mask.ravel() for sample in data["train"]])
    labelled = masks[masks != data.classes.ignore]
    for number, name in enumerate(data.classes.names):
        row = next(line for line in text.splitlines() if line.startswith(f"| {number} | {name} |"))
        assert row.split("|")[4].strip() == f"{100 * (labelled == number).mean():.3f}"
