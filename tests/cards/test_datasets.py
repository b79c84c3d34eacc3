"""The card of a data set counts what is there, in the form that the Hub and `datasets` read."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCard

import terrazzo as tz
from card_reading import HOSTILE, SEEN, read
from terrazzo import cards
from terrazzo.classes import Classes, Remap


def test_the_hub_and_datasets_read_it(boxes: Path, tmp_path: Path) -> None:
    data = tz.open_dataset(boxes)
    names = cards.pictures(data, tmp_path)
    card = DatasetCard(cards.data_card(data, repo_id="anna/boxes", pictures=names))
    assert (card.data.task_categories, card.data.size_categories) == (["image-segmentation"], ["n<1K"])
    assert (card.data.pretty_name, card.data.license) == ("boxes", "unknown")
    info = DatasetInfosDict.from_dataset_card_data(card.data)["default"]
    assert info.features is not None
    files = {one["split"]: one["path"] for one in card.data.configs[0]["data_files"]}
    assert files == {"train": "data/train-*.parquet", "val": "data/val-*.parquet"}
    assert [type(one).__name__ for one in info.features.values()] == ["Image", "Image"]
    page = read(card)
    assert page.images == list(names)
    assert all((tmp_path / name).is_file() for name in names)
    assert str(boxes.parent) not in card.content
    assert data.fingerprint in page.text


def test_pixel_shares_are_those_of_the_masks(boxes: Path) -> None:
    data = tz.open_dataset(boxes)
    page = read(DatasetCard(cards.data_card(data, repo_id="anna/boxes")))
    told = {row[1]: row[3:] for row in page.rows if len(row) == 5 and row[0].isdigit()}
    for split, column in (("train", 0), ("val", 1)):
        masks = np.concatenate([sample.mask.ravel() for sample in data[split] if sample.mask is not None])
        labelled = masks[masks != data.classes.ignore]
        shares = [f"{100 * (labelled == number).mean():.3f}" for number in range(len(data.classes))]
        assert [told[name][column] for name in data.classes.names] == shares


def test_the_table_of_raw_ids_is_told(boxes: Path) -> None:
    data = tz.open_dataset(boxes)
    remap = Remap({0: 0, 1: 1, 2: 2, 7: 1, 255: None}, 3)
    mapped = replace(data, remap=remap, raw_names={7: "crate", 255: "void | x"})
    page = read(DatasetCard(cards.data_card(mapped, repo_id="anna/boxes")))
    start = page.rows.index(["raw id", "published as", "class id"])
    assert page.rows[start + 1 : start + 6] == [
        ["0", "field", "0 (field)"], ["1", "box", "1 (box)"], ["2", "sky", "2 (sky)"], ["7", "crate", "1 (box)"],
        ["255", "void | x", "ignore"]]  # fmt: skip


def test_hostile_words_are_only_words(boxes: Path) -> None:
    data = tz.open_dataset(boxes)
    splits = dict(zip(HOSTILE[2:4], data.splits.values(), strict=True))
    table = Remap({0: 0, 1: 1, 2: 2, 99: None}, len(HOSTILE))
    hostile = replace(data, name=HOSTILE[1], license=HOSTILE[4], source=HOSTILE[3], classes=Classes(HOSTILE),
                      remap=table, raw_names={99: HOSTILE[2]}, splits=splits)  # fmt: skip
    text = cards.data_card(hostile, repo_id="anna/boxes")
    text.encode("utf-8")
    card = DatasetCard(text)
    assert (card.data.pretty_name, card.data.license) == (SEEN[1], "other")
    assert all(re.fullmatch(r"\w+", one["split"]) for one in card.data.configs[0]["data_files"])
    page = read(card)
    assert page.headings == [SEEN[1], "Splits", "Classes", "Ids", "How to open it", "Where it comes from"]
    assert tuple(row[1] for row in page.rows if len(row) == 5 and row[0].isdigit()) == SEEN
    assert (page.images, page.links) == ([], [])
    assert page.tags <= {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "span"}
    for code in page.code:
        compile(code, "card", "exec")


def test_a_licence_that_forbids_passing_on_gives_no_pictures(boxes: Path, tmp_path: Path) -> None:
    sealed = replace(tz.open_dataset(boxes), license="terms of use: no redistribution")
    assert cards.pictures(sealed, tmp_path) == ()
    assert list(tmp_path.iterdir()) == []
    assert "does not allow passing them on" in cards.data_card(sealed, repo_id="anna/boxes")
