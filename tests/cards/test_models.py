"""The card of a model says what is in its folder, in the Hub's form; a stranger's words in it are only words."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

import terrazzo as tz
from card_reading import HOSTILE, SEEN, read
from terrazzo import cards
from terrazzo.cards.text import line
from terrazzo.errors import TerrazzoError, UsageError
from terrazzo.licences import ledger_of
from terrazzo.nn.segformer import SegFormer, Size
from terrazzo.report import Report
from terrazzo.run import Run

FILES = ("terrazzo.json", "config.json", "preprocessor_config.json", "model.safetensors", "evaluation.json")
HEADINGS = ["street", "Scores", "How to use it", "How it was trained", "Intended use", "Limits", "Licences"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, boxes: Path) -> Run:
    """A training of four steps."""
    steps = ("train.steps=4", "eval.every=2", "train.batch_size=2", "optim.warmup_steps=1", "data.crop_hw=32x32",
             "train.loggers=", "train.pictures=2")  # fmt: skip
    torch.manual_seed(3)
    tiny = Size((1, 1, 1, 1), (8, 8, 16, 16), 16, num_heads=(1, 1, 2, 2))
    network = SegFormer(tiny, 3, mean=(0.5,) * 3, std=(0.2,) * 3)
    out = tmp_path_factory.mktemp("cards") / "run"
    return tz.train("segformer-b0-scratch", data=boxes, out=out, overrides=steps, network=network, device="cpu",
                    quiet=True)  # fmt: skip


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    """What is shared of it."""
    best, out = run.best_folder(), tmp_path / "shared"
    out.mkdir()
    for name in FILES:
        shutil.copy(best / name, out)
    cards.pictures(best, out)
    return out


def changed(folder: Path, **parts: object) -> None:
    """Write other parts into terrazzo.json."""
    about = json.loads((folder / "terrazzo.json").read_text("utf-8"))
    (folder / "terrazzo.json").write_text(json.dumps(about | parts), "utf-8")


def test_the_hub_reads_the_numbers_of_the_report(run: Run, folder: Path) -> None:
    card = ModelCard(cards.model_card(folder, repo_id="anna/street"))
    report = Report.open(run.best_folder() / "evaluation.json")
    assert run.best is not None and report.miou == run.best["miou"]
    found = {one.metric_type: one for one in card.data.eval_results}
    assert {name: one.metric_value for name, one in found.items()} == {
        "mean_iou": report.miou, "mean_accuracy": report.mean_accuracy, "accuracy": report.pixel_accuracy,
        "mean_dice": report.mean_dice, "frequency_weighted_iou": report.frequency_weighted_iou}  # fmt: skip
    one = found["mean_iou"]
    assert (one.task_type, one.dataset_name, one.dataset_split) == ("image-segmentation", "boxes", "val")
    assert one.dataset_args == {"fingerprint": tz.open_dataset(run.data["source"]).fingerprint}
    assert (card.data.pipeline_tag, card.data.library_name) == ("image-segmentation", "transformers")
    assert card.data.license == "unknown"  # nobody chose one


def test_the_saved_report_is_that_of_the_saved_weights(run: Run) -> None:
    best = run.best_folder()
    report = Report.open(best / "evaluation.json")
    again = tz.evaluate(best, data=run.data["source"], quiet=True)
    assert np.array_equal(report.counts, again.counts)
    assert (report.data, report.fingerprint, report.split) == (again.data, again.fingerprint, again.split)


def test_the_table_of_classes_is_that_of_the_report(run: Run, folder: Path) -> None:
    page = read(ModelCard(cards.model_card(folder, repo_id="anna/street")))
    report = Report.open(run.best_folder() / "evaluation.json")
    told = {row[1]: row[3:] for row in page.rows if len(row) == 7 and row[0].isdigit()}
    assert told == {
        name: [f"{100 * s.iou:.2f}", f"{100 * s.accuracy:.2f}", f"{100 * s.dice:.2f}", f"{s.pixels:,}"]
        for name, s in report.per_class.items()
    }


def test_how_it_was_trained_is_told_and_what_differs_from_the_recipe(folder: Path) -> None:
    page = read(ModelCard(cards.model_card(folder, repo_id="anna/street")))
    table = {row[0]: row[1] for row in page.rows if len(row) == 2}
    assert table["recipe"].startswith("segformer-b0-scratch: Train SegFormer-B0")
    assert (table["seed"], table["images"], table["started from"]) == (
        "0",
        "train 8, val 3",
        "terrazzo.nn.segformer.SegFormer",
    )
    differs = {row[0]: row[1:] for row in page.rows if len(row) == 3}
    assert differs["train.steps"] == ["4", "6000"]
    assert "train.loggers" not in differs


def test_nothing_that_is_shared_names_a_place_of_this_machine(run: Run, folder: Path) -> None:
    text = cards.model_card(folder, repo_id="anna/street")
    shared = text + "".join((folder / name).read_text("utf-8") for name in FILES if name.endswith(".json"))
    for place in (run.path, run.path.parent, Path(run.data["source"]), Path.home(), Path.cwd()):
        assert str(place) not in shared


def test_pictures_in_the_card_are_in_the_folder(folder: Path) -> None:
    card = ModelCard(cards.model_card(folder, repo_id="anna/street"))
    assert read(card).images == ["pictures/predictions.png"]
    examples = [one["src"].partition("/resolve/main/")[2] for one in card.data.widget]
    assert examples == ["pictures/example-1.jpg", "pictures/example-2.jpg"]
    assert all((folder / name).is_file() for name in (*read(card).images, *examples))


def test_no_picture_of_data_that_may_not_be_passed_on(folder: Path, tmp_path: Path) -> None:
    sealed = {"from": {"weights": [], "data": [{"name": "cityscapes", "license": "no redistribution"}]}}
    changed(folder, licenses=sealed)
    assert cards.pictures(folder, tmp_path / "other") == ()
    shutil.rmtree(folder / "pictures")
    page = read(ModelCard(cards.model_card(folder, repo_id="anna/street")))
    assert page.images == []
    assert "the licence of the data does not allow passing them on" in page.text


def test_hostile_words_are_only_words(folder: Path) -> None:
    about = json.loads((folder / "terrazzo.json").read_text("utf-8"))
    changed(
        folder,
        classes=[{"name": name} for name in HOSTILE],
        data=about["data"] | {"name": HOSTILE[1], "source": HOSTILE[3], "license": HOSTILE[4]},
        recipe=about["recipe"] | {"name": HOSTILE[5], "summary": HOSTILE[6]},
        licenses={"from": {"data": [{"name": HOSTILE[1], "license": HOSTILE[2]}],
                           "weights": [{"name": HOSTILE[0], "license": HOSTILE[3]}]}},
    )  # fmt: skip
    counts = np.diag(np.arange(len(HOSTILE)))
    report = Report(names=HOSTILE, counts=counts, num_images=2, data=HOSTILE[1], split=HOSTILE[2], notes=(HOSTILE[3],),
                    metrics={HOSTILE[0]: 0.5, HOSTILE[4]: 0.25}, settings={HOSTILE[2]: HOSTILE[0]})  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps(report.to_json()), "utf-8")

    text = cards.model_card(folder, repo_id="anna/street")
    text.encode("utf-8")
    card = ModelCard(text)
    assert (card.data.license, card.data.eval_results[0].dataset_split) == ("other", HOSTILE[2])
    page = read(card)
    assert page.headings == HEADINGS
    assert tuple(row[1] for row in page.rows if len(row) == 7 and row[0].isdigit()) == SEEN
    assert page.tags <= {"h1", "h2", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "pre",
                         "code", "span", "a", "img"}  # fmt: skip
    assert page.attributes <= {"style", "class", "href", "src", "alt"}
    assert page.images == ["pictures/predictions.png"]
    assert set(page.links) == {"https://spdx.org/licenses/Apache-2.0.html"}
    assert "evil" not in "".join(page.code)


def places(value: object) -> Iterator[tuple[object, object]]:
    """Yield (container, key) of everything in some JSON."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from places(inner)


def test_files_of_any_shape_give_a_card_or_a_sentence(folder: Path) -> None:
    """120 times, a place of one of the files holds something else."""
    rng = random.Random(0)
    others = (
        "<b>`|",
        "---\n# x",
        [],
        {},
        None,
        -1,
        1e400,
        [1, "x"],
        {"a": {"b": 1}},
        True,
        "../../etc",
        HOSTILE[3],
    )
    refused = 0
    for name, count in (("terrazzo.json", 80), ("evaluation.json", 40)):
        text = (folder / name).read_text("utf-8")
        for _ in range(count):
            value = json.loads(text)
            container, key = rng.choice(list(places(value)))
            container[key] = rng.choice(others)  # type: ignore[index]
            (folder / name).write_text(json.dumps(value), "utf-8")
            try:
                card = ModelCard(cards.model_card(folder, repo_id="anna/street"))
            except TerrazzoError:
                refused += 1
                continue
            page = read(card)
            assert page.headings == HEADINGS
            assert not page.tags & {"b", "script", "em"}
            assert page.images == ["pictures/predictions.png"]
            assert all(link.startswith("https://spdx.org/") for link in page.links)
        (folder / name).write_text(text, "utf-8")
    assert 10 < refused < 110  # neither all nor none


def test_a_line_is_printable_and_one_line() -> None:
    assert line("a\ud800\x1b[0m\r\n\u2028b\u202ec") == "a\ufffd\ufffd[0m bc"
    assert line("") == "?"


def test_what_was_not_seen_in_validation_is_said(folder: Path) -> None:
    names = ("road", "sky", "tram")
    changed(folder, classes=[{"name": name} for name in names])
    Report(names=names, counts=np.diag([5, 7, 0]), num_images=1).save(folder / "evaluation.json")
    page = read(ModelCard(cards.model_card(folder, repo_id="anna/street")))
    assert "tram does not occur in the validation: how well it finds them is not known." in page.text
    assert next(row for row in page.rows if row[1] == "tram")[3:] == ["n/a", "n/a", "n/a", "0"]


def test_classes_that_it_never_finds_are_named(folder: Path) -> None:
    names = ("road", "sky", "tram", "bus")
    changed(folder, classes=[{"name": name} for name in names])
    counts = np.array([[5, 0, 0, 0], [0, 7, 0, 0], [3, 0, 0, 0], [0, 2, 0, 0]])
    Report(names=names, counts=counts, num_images=1).save(folder / "evaluation.json")
    page = read(ModelCard(cards.model_card(folder, repo_id="anna/street")))
    assert "It found no pixel of these classes, which do occur there: tram, bus." in page.text


def test_what_transformers_does_otherwise_is_said(folder: Path) -> None:
    about = json.loads((folder / "terrazzo.json").read_text("utf-8"))
    assert "gives other masks" not in cards.model_card(folder, repo_id="anna/street")
    changed(folder, recipe=about["recipe"] | {"data": about["recipe"]["data"] | {"resize": "fit"}})
    page = read(ModelCard(cards.model_card(folder, repo_id="anna/street")))
    assert (
        "terrazzo, which resizes images first (fit); transformers does not, and gives other masks."
        in page.text
    )


def test_licences_are_inherited_and_notices_repeated(folder: Path) -> None:
    weights = [
        {"name": "user/streets", "license": None},
        {
            "name": "nvidia/mit-b0",
            "license": "NVIDIA Source Code License for SegFormer: non-commercial research and evaluation only",
        },
    ]
    changed(folder, licenses={"from": {"weights": weights, "data": [{"name": "boxes", "license": "MIT"}]}})
    card = ModelCard(cards.model_card(folder, repo_id="anna/street"))
    assert card.data.base_model == "user/streets"
    assert card.data.license == "other"
    assert card.data.license_link == "https://github.com/NVlabs/SegFormer/blob/master/LICENSE"
    page = read(card)
    assert "Not for commercial use: its weights come from nvidia/mit-b0" in page.text
    allowed = {row[1]: row[3] for row in page.rows if len(row) == 4}
    assert allowed | {"which": ""} == {
        "which": "", "terrazzo": "allowed", "user/streets": "not known", "nvidia/mit-b0": "not allowed",
        "boxes": "allowed"}  # fmt: skip


def test_a_data_set_of_the_hub_is_named_with_its_revision(folder: Path) -> None:
    about = json.loads((folder / "terrazzo.json").read_text("utf-8"))
    changed(folder, data=about["data"] | {"hub": {"id": "user/streets", "revision": "a" * 40}})
    card = ModelCard(cards.model_card(folder, repo_id="anna/street"))
    assert card.data.datasets == ["user/streets"]
    one = card.data.eval_results[0]
    assert (one.dataset_type, one.dataset_revision) == ("user/streets", "a" * 40)


def test_a_chosen_licence_is_the_weights_own(folder: Path) -> None:
    about = json.loads((folder / "terrazzo.json").read_text("utf-8"))
    changed(folder, licenses=ledger_of(about).given("CC-BY-4.0").to_json())
    card = ModelCard(cards.model_card(folder, repo_id="anna/street"))
    assert card.data.license == "cc-by-4.0"
    assert "gives them away under CC-BY-4.0" in read(card).text


def test_what_is_shared_carries_the_licence_it_is_given_away_under(run: Run, tmp_path: Path) -> None:
    from terrazzo.hub import stage_model

    for name in ("free", "bound"):
        (tmp_path / name).mkdir()
    stage_model(run.path, tmp_path / "free", license="CC-BY-4.0")
    about = json.loads((tmp_path / "free" / "terrazzo.json").read_text("utf-8"))
    assert (about["licenses"]["chosen"], about["licenses"]["weights"]) == ("CC-BY-4.0", "CC-BY-4.0")
    assert [one["name"] for one in about["classes"]] == ["field", "box", "sky"]

    other = tmp_path / "other"
    shutil.copytree(run.best_folder(), other)
    sealed = {"from": {"weights": [{"name": "nvidia/mit-b0", "license": "non-commercial"}], "data": []}}
    changed(other, licenses=sealed)
    with pytest.raises(UsageError, match="cannot be given away under 'CC-BY-4.0'"):
        stage_model(other, tmp_path / "bound", license="CC-BY-4.0")


def test_a_model_of_transformers_has_a_card_that_knows_little(folder: Path) -> None:
    for name in ("terrazzo.json", "evaluation.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "pictures")
    card = ModelCard(cards.model_card(folder, repo_id="anna/street"))
    assert (card.data.license, card.data.eval_results, card.data.get("widget")) == ("unknown", None, None)
    page = read(card)
    assert page.headings == HEADINGS
    assert "how good they are is not known" in page.text
    assert "Not known: terrazzo did not train it" in page.text


def test_the_code_in_the_card_runs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    page = read(ModelCard(cards.model_card(folder, repo_id="anna/street")))
    shutil.copy(folder / "pictures" / "example-1.jpg", tmp_path / "street.jpg")
    monkeypatch.chdir(tmp_path)
    places = [dict[str, object]() for _ in page.code]
    for code, names in zip(page.code, places, strict=True):
        exec(code.replace('"anna/street"', repr(str(folder))), names)
    ours, theirs, pieces = places
    mask = ours["prediction"].mask  # type: ignore[attr-defined]
    assert np.array_equal(mask, np.asarray(theirs["mask"]))
    for piece in pieces["segments"]:  # type: ignore[attr-defined]
        assert np.array_equal(
            np.asarray(piece["mask"]) > 0, mask == ("field", "box", "sky").index(piece["label"])
        )
