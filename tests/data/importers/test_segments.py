"""A release becomes masks of its categories' ids; what nobody drew is ignored, and nothing in its JSON is trusted."""

import functools
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image, ImageOps

from segments_tree import (
    HW,
    REGIONS,
    annotations,
    bitmap,
    categories,
    label,
    photograph,
    regions,
    sample,
    write_segments,
)
from terrazzo import remote
from terrazzo.cli import main
from terrazzo.data import Dataset, importers, open_dataset
from terrazzo.data.importers.copying import in_threads
from terrazzo.data.importers.planning import Wanted
from terrazzo.data.importers.segments_files import Fetched
from terrazzo.errors import (
    DatasetFormatError,
    MaskSizeError,
    MaskValueError,
    MissingPathError,
    TerrazzoError,
    UnreachableError,
    UnreadableFileError,
    UsageError,
)
from terrazzo.region_ids import category_map

CLASS_OF = {0: 255, 1: 0, 300: 1, 7: 255}  # road, robot; void-sky and what nobody drew are ignored
TRUTH = np.vectorize(CLASS_OF.get)(categories())


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_segments(tmp_path / "raw")


def run(release: Path, **words: Any) -> Dataset:
    return open_dataset(importers.run("segments", release, release.parent.parent / "out", Wanted(**words)))


def change(release: Path, edit: Callable[[Any], object]) -> Path:
    value = json.loads(release.read_text())
    edit(value["dataset"])
    release.write_text(json.dumps(value))
    return release


def masks(data: Dataset) -> dict[str, np.ndarray]:
    return {
        name: split.read_mask(place)
        for split in data.splits.values()
        for place, name in enumerate(split.names)
    }


def first(dataset: Any) -> Any:
    """The label of day1/a.jpg."""
    return dataset["samples"][0]["labels"]["ground-truth"]["attributes"]


# -- labels --------------------------------------------------------------------------------------------------------


def test_a_release_becomes_masks_worked_by_hand(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = run(release)
    found = masks(data)
    assert set(found) == {"day1/a", "b", "c"}  # folders in names are kept
    np.testing.assert_array_equal(found["day1/a"], TRUTH)
    np.testing.assert_array_equal(found["c"], TRUTH)
    assert (found["b"] == 255).all()
    assert data.classes.names == ("road", "robot")
    assert data.classes.colors[1] == (220, 20, 60)
    said = capsys.readouterr().err
    assert "Taken by label status: LABELED 1, REVIEWED 1, VERIFIED 1." in said
    assert "Left out: UNLABELED 1, PRELABELED 1, REJECTED 1." in said
    assert "Labelset 'ground-truth'; the release also has predictions" in said
    assert "What nobody drew is 0 in the masks, and ignored" in said


def test_raw_ids_are_the_categories_own(release: Path) -> None:
    data = run(release)
    assert data.remap.to_class == {0: None, 1: 0, 7: None, 300: 1}
    assert data.raw_names == {0: "unlabeled", 1: "road", 7: "void-sky", 300: "robot"}
    stored = Image.open(release.parent.parent / "out" / "train" / "masks" / "day1" / "a.png")
    np.testing.assert_array_equal(np.array(stored), categories())  # 300 is not cut to 8 bits
    raw = data.remap.inverse(np.array([[0, 1, 255]]))
    assert raw.tolist() == [[1, 300, 0]]


def test_images_come_over_byte_for_byte(release: Path) -> None:
    run(release)
    for name in ("day1/a.jpg", "b.jpg", "c.png"):
        copy = release.parent.parent / "out" / "train" / "images" / name
        assert copy.read_bytes() == (release.parent / "images" / name).read_bytes()


@pytest.mark.parametrize(
    ("status", "names"),
    [
        ((), {"day1/a", "b", "c"}),
        (("LABELED",), {"day1/a"}),
        (("prelabeled", " Rejected"), {"d", "f"}),
        (("all",), {"day1/a", "b", "c", "d", "f"}),  # e has no label
    ],
)
def test_label_statuses_are_chosen(
    release: Path, status: tuple[str, ...], names: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(masks(run(release, status=status))) == names
    assert ("1 of the samples taken have no bitmap, and are left out" in capsys.readouterr().err) == (
        status == ("all",)
    )


def test_a_status_that_nobody_knows_or_has_is_told(release: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'LABELED'"):
        run(release, status=("LABELLED",))
    with pytest.raises(
        DatasetFormatError, match=r"no sample that can be taken(.|\n)*LABELED 1, PRELABELED 1(.|\n)*all"
    ):
        run(release, status=("SKIPPED",))
    change(release, lambda d: first(d) and d["samples"][0]["labels"]["ground-truth"].pop("label_status"))
    assert set(masks(run(release, status=("unknown",)))) == {"day1/a"}


def test_another_labelset_is_chosen(release: Path) -> None:
    with pytest.raises(DatasetFormatError, match="UNLABELED 5"):
        run(release, labelset="predictions", status=("REVIEWED",))
    with pytest.raises(UsageError, match="labelset 'prediction'(.|\n)*Did you mean 'predictions'"):
        run(release, labelset="prediction")
    assert set(masks(run(release, labelset="predictions"))) == {"d"}


def test_the_only_labelset_is_taken_whatever_its_name(release: Path) -> None:
    def rename(dataset: Any) -> None:
        dataset["labelsets"] = None
        for one in dataset["samples"]:
            one["labels"] = {"mine": one["labels"]["ground-truth"]}

    assert len(masks(run(change(release, rename)))) == 3


def test_two_labelsets_without_the_usual_one_are_a_question(release: Path) -> None:
    def rename(dataset: Any) -> None:
        dataset["labelsets"] = [{"name": "predictions"}, {"name": "mine"}]
        for one in dataset["samples"]:
            one["labels"] = {"mine": one["labels"]["ground-truth"]}

    with pytest.raises(DatasetFormatError, match="no labelset 'ground-truth'(.|\n)*predictions, mine"):
        run(change(release, rename))


def test_what_others_leave_out_is_not_missed(release: Path) -> None:
    def strip(dataset: Any) -> None:
        for key in ("owner", "labelsets", "task_type", "description"):
            del dataset[key]
        for category in dataset["task_attributes"]["categories"]:
            category.pop("color")
            category.pop("has_instances")
        for one in dataset["samples"]:
            for key in ("uuid", "metadata"):
                del one[key]
        dataset["samples"][4].pop("labels")
        dataset["samples"] = {one.pop("name"): one for one in dataset["samples"]}

    data = run(change(release, strip))
    assert set(masks(data)) == {"day1/a", "b", "c"}
    assert data.source == "Segments.ai, crossings, release v1.0 of 2024-07-09"


# -- numbers -------------------------------------------------------------------------------------------------------


def test_category_0_is_a_class_like_any_other(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def to_zero(dataset: Any) -> None:
        dataset["task_attributes"]["categories"] = [{"id": 0, "name": "road"}, {"id": 1, "name": "robot"}]
        first(dataset)["annotations"] = annotations({1: 0, 300: 1, 70_000: 1, 16_777_215: 0})
        del dataset["samples"][1:]

    data = run(change(release, to_zero))
    assert data.classes.names == ("road", "robot")
    truth = np.where(regions() == 0, 255, np.isin(regions(), (300, 70_000)))
    np.testing.assert_array_equal(masks(data)["day1/a"], truth)
    assert data.remap.to_class == {0: 0, 1: 1, 255: None}
    assert "What nobody drew is 255 in the masks" in capsys.readouterr().err


def test_category_ids_beyond_16_bits_are_kept_in_words(release: Path) -> None:
    def enlarge(dataset: Any) -> None:
        dataset["task_attributes"]["categories"][1]["id"] = 70_000
        for one in dataset["samples"]:
            named = ((one["labels"]["ground-truth"] or {}).get("attributes") or {}).get("annotations") or []
            for annotation in named:
                annotation["category_id"] = {300: 70_000}.get(
                    annotation["category_id"], annotation["category_id"]
                )

    data = run(change(release, enlarge))
    np.testing.assert_array_equal(masks(data)["c"], TRUTH)
    about = json.loads((release.parent.parent / "out" / "dataset.json").read_text())
    assert about["extra"]["segments"]["category_ids"] == {"1": 1, "2": 7, "3": 70_000}
    assert about["remap"] == {"0": None, "1": 0, "2": 1, "3": 2}


def test_regions_that_no_annotation_names_are_ignored_and_said(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def forget(dataset: Any) -> None:
        first(dataset)["annotations"] = [
            *annotations({1: 1, 300: 300}),
            {"id": 70_000, "category_id": None},
        ]

    found = masks(run(change(release, forget)))
    truth = np.where(np.isin(regions(), (70_000, 16_777_215)), 255, TRUTH)
    np.testing.assert_array_equal(found["day1/a"], truth)
    np.testing.assert_array_equal(found["c"], TRUTH)
    assert (
        "25 pixels in 1 bitmap belong to regions that no annotation gives a category; they are ignored: "
        "day1/a.jpg regions 70000, 16777215."
    ) in capsys.readouterr().err


@pytest.mark.parametrize("named", [[], None, annotations({2: 1})])
def test_a_bitmap_of_which_nothing_is_named_is_no_bitmap_of_that_sample(release: Path, named: Any) -> None:
    change(release, lambda dataset: first(dataset).update(annotations=named))
    with pytest.raises(
        MaskValueError, match=r"day1/a\.jpg holds none of the regions(.|\n)*1, 300, 70000, 16777"
    ):
        run(release)
    assert sorted(path.name for path in release.parent.parent.iterdir()) == ["raw"]


# -- sizes and orientation -----------------------------------------------------------------------------------------


def stored_for(upright: np.ndarray, orientation: int) -> np.ndarray:
    """What a camera stores so that EXIF `orientation` shows `upright`, by Pillow's own account of EXIF."""
    undone = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    picture = Image.fromarray(upright.astype(np.int32))
    picture.getexif()[0x0112] = undone[orientation]
    return np.array(ImageOps.exif_transpose(picture), np.uint32)


def test_bitmaps_lie_on_images_as_they_are_shown(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All eight orientations; bitmaps upright, as the site has them, or drawn on the image as it is stored."""

    def turn(dataset: Any) -> None:
        dataset["samples"].clear()
        for number in range(1, 9):
            hw = HW[::-1] if number >= 5 else HW
            photograph(release.parent / "images" / f"{number}.jpg", number, hw=hw, orientation=number)
            (release.parent / f"{number}.png").write_bytes(bitmap(stored_for(regions(), number)))
            for name, url in (("upright", "bitmaps/scene.png"), ("stored", f"{number}.png")):
                labels = {"ground-truth": label(url, REGIONS)}
                dataset["samples"].append(sample(f"{name}{number}", f"images/{number}.jpg", labels))

    data = run(change(release, turn))
    found = masks(data)
    for number in range(1, 9):
        np.testing.assert_array_equal(found[f"upright{number}"], TRUTH)
    for number in (1, 5, 6, 7, 8):  # that a bitmap lies on its side is seen; that it is mirrored is not
        np.testing.assert_array_equal(found[f"stored{number}"], TRUTH)
    assert all(one.image.shape[:2] == HW for split in data.splits.values() for one in split)
    assert (
        "4 bitmaps were drawn on the image as it is stored, on its side, and turned with it: "
        "stored5, stored6, stored7, stored8."
    ) in capsys.readouterr().err


@pytest.mark.parametrize("hw", [(20, 31), (30, 20)])
def test_a_bitmap_of_another_size_is_refused(release: Path, hw: tuple[int, int]) -> None:
    ids = np.ones(hw, np.uint32)
    (release.parent / "bitmaps" / "scene.png").write_bytes(bitmap(ids))
    with pytest.raises(MaskSizeError, match=f"2 of 3 pairs(.|\n)*image 20 x 30, bitmap {hw[0]} x {hw[1]}"):
        run(release)
    assert sorted(path.name for path in release.parent.parent.iterdir()) == ["raw"]


# -- what cannot be trusted ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d.update(task_type="pointcloud-cuboid"), "another task(.|\n)*'pointcloud-cuboid'"),
        (lambda d: d.update(samples=[]), "no samples"),
        (lambda d: d.update(samples="x"), "no list of objects"),
        (lambda d: d.update(samples={"a": 1}), "no list of objects"),
        (lambda d: d.update(task_attributes=None), "no list of categories"),
        (lambda d: d["task_attributes"].update(categories=[]), "no list of categories"),
        (lambda d: d["task_attributes"]["categories"][0].update(id="1"), "a category with id '1'"),
        (lambda d: d["task_attributes"]["categories"][0].update(id=1 << 31), "a category with id 2147483648"),
        (lambda d: d["task_attributes"]["categories"][0].update(id=7), "two categories with id 7"),
        (
            lambda d: d["task_attributes"]["categories"][0].update(name="robot "),
            "1, 300 are all called 'robot'",
        ),
        (lambda d: d["task_attributes"]["categories"][0].update(name="\x1b[2J"), r"the name '\\x1b\[2J'"),
        (lambda d: d["task_attributes"]["categories"][0].update(name=" "), "category 1 with the name ' '"),
        (
            lambda d: first(d)["annotations"][0].update(category_id=9),
            "regions of category 9, which is not listed",
        ),
        (lambda d: first(d)["annotations"][0].update(id=-1), "'day1/a.jpg': an annotation with id -1"),
        (lambda d: first(d).update(annotations=7), "'day1/a.jpg': 7, which is no annotation"),
        (lambda d: d["samples"][1].update(name="day1/A.jpg"), r"two samples called 'day1/a\.jpg'"),
        (lambda d: d["samples"][1].update(name="day1"), "sample 'day1' is a folder of another"),
        (lambda d: d["samples"][1].update(name=None), "sample 1 with the name None"),
        *[
            (
                lambda d, name=name: d["samples"][1].update(name=name),
                "sample 1 with the name .*no file can have",
            )
            for name in (
                "../b.jpg",
                "/b.jpg",
                "a//b",
                "a/",
                "",
                "C:b.jpg",
                "a\\b.jpg",
                ".b.jpg",
                "a\nb",
                "ü" * 150,
            )
        ],
    ],
)
def test_a_release_that_cannot_be_is_refused_in_words(
    release: Path, edit: Callable[[Any], object], words: str
) -> None:
    with pytest.raises(DatasetFormatError, match=words):
        run(change(release, edit))
    assert sorted(path.name for path in release.parent.parent.iterdir()) == ["raw"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", '{"dataset": 3}', "[" * 100_000, "\ufeff{}", "1" * 5000]
)
def test_what_is_no_release_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(DatasetFormatError, match=r"r\.json is not"):
        importers.run("segments", tmp_path / "r.json", tmp_path / "out")


def test_a_folder_and_nothing_are_told(release: Path) -> None:
    with pytest.raises(MissingPathError, match=r"is a folder(.|\n)*crossings-v1\.0\.json"):
        run(release.parent)
    with pytest.raises(MissingPathError, match="There is no file"):
        importers.run("segments", release.parent / "none.json", release.parent.parent / "out")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("/etc/hostname", "is no relative path"),
        ("C:\\a.png", "is no relative path"),
        ("bitmaps\\scene.png", "is no relative path"),
        ("../raw/bitmaps/scene.png", "leaves the folder"),
        ("bitmaps/../../x.png", "leaves the folder"),
        ("bitmaps/link.png", "is a link that leaves the folder"),
        ("file:///etc/hostname", "is an address that is not read here"),
        ("s3://bucket/a.png", "is an address that is not read here"),
        ("ftp://host/a.png", "is an address that is not read here"),
        ("http://[x/a.png", "is no address"),
        ("bitmaps/\x00.png", "is no place"),
    ],
)
def test_files_are_read_from_the_releases_folder_only(release: Path, url: str, why: str) -> None:
    outside = release.parent.parent / "outside.png"
    outside.write_bytes(bitmap(regions()))
    (release.parent / "bitmaps" / "link.png").symlink_to(outside)
    for part in ("image", "bitmap"):

        def point(dataset: Any, part: str = part) -> None:
            where = dataset["samples"][0]["attributes"]["image"] if part == "image" else None
            (where or first(dataset)["segmentation_bitmap"]).update(url=url)

        with pytest.raises(DatasetFormatError, match=f"where nothing is read from(.|\n)*{why}"):
            run(change(release, point), download=True)


def test_missing_files_are_listed_or_left_out_as_asked(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (release.parent / "images" / "b.jpg").unlink()
    change(release, lambda d: first(d)["segmentation_bitmap"].update(url="bitmaps/gone.png"))
    with pytest.raises(DatasetFormatError, match=r"2 paths(.|\n)*bitmaps/gone\.png\n.*images/b\.jpg"):
        run(release)
    assert set(masks(run(release, partial=True))) == {"c"}
    assert "2 files are named and not there; their samples are left out." in capsys.readouterr().err


def test_samples_that_differ_in_their_suffix_alone_keep_it(release: Path) -> None:
    photograph(release.parent / "images" / "b.png", 7)

    def add(dataset: Any) -> None:
        labels = {"ground-truth": label("bitmaps/scene.png", REGIONS)}
        dataset["samples"] += [
            sample("b.png", "images/b.png", labels),
            sample("v1.0", "images/b.png", labels),
        ]

    found = masks(run(change(release, add)))
    assert set(found) == {"day1/a", "b.jpg", "b.png", "c", "v1.0"}
    np.testing.assert_array_equal(found["b.png"], TRUTH)


def test_files_without_a_suffix_are_known_by_what_they_hold(release: Path) -> None:
    (release.parent / "images" / "b.jpg").rename(release.parent / "images" / "0000")
    change(release, lambda d: d["samples"][1]["attributes"]["image"].update(url="images/0000"))
    run(release)
    assert (release.parent.parent / "out" / "train" / "images" / "b.jpg").is_file()


# -- addresses -----------------------------------------------------------------------------------------------------


@pytest.fixture
def site(release: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serves the release's folder, and moves its files to addresses there."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: Any) -> None:
            pass

    monkeypatch.setattr(remote, "WAITS", ())
    handler = functools.partial(Quiet, directory=str(release.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        place = f"http://127.0.0.1:{running.server_port}"

        def move(dataset: Any) -> None:
            for one in dataset["samples"]:
                held = [one["attributes"]["image"]]
                held += [part["attributes"]["segmentation_bitmap"] for part in one["labels"].values() if part]
                for url in held:
                    url["url"] = f"{place}/{url['url']}?X-Amz-Signature=secret"

        change(release, move)
        yield place
        running.shutdown()


def test_nothing_is_fetched_unless_asked(release: Path, site: str) -> None:
    with pytest.raises(UsageError, match=r"6 files at addresses(.|\n)*127\.0\.0\.1(.|\n)*--download"):
        run(release)


def test_files_at_addresses_are_fetched_when_asked(release: Path, site: str) -> None:
    (release.parent / "images" / "c.png").rename(release.parent / "images" / "c")
    change(release, lambda d: d["samples"][2]["attributes"]["image"].update(url=f"{site}/images/c"))
    found = masks(run(release, download=True))
    assert set(found) == {"day1/a", "b", "c"}
    np.testing.assert_array_equal(found["day1/a"], TRUTH)
    copy = release.parent.parent / "out" / "train" / "images" / "c.png"
    assert copy.read_bytes() == (release.parent / "images" / "c").read_bytes()


def test_an_answer_that_is_no_image_is_told(release: Path, site: str) -> None:
    (release.parent / "images" / "b.jpg").write_text("<html>log in first</html>")
    with pytest.raises(UnreadableFileError, match=r"/images/b\.jpg\?… cannot be read") as told:
        run(release, download=True)
    assert "secret" not in str(told.value)
    assert sorted(path.name for path in release.parent.parent.iterdir()) == ["raw"]


def test_an_address_that_leads_to_nothing_is_told(release: Path, site: str) -> None:
    (release.parent / "bitmaps" / "scene.png").unlink()
    with pytest.raises(
        UnreadableFileError, match=r"2 of 3 pairs(.|\n)*no file http.*scene\.png\?… \(HTTP 404"
    ):
        run(release, download=True)
    assert sorted(path.name for path in release.parent.parent.iterdir()) == ["raw"]
    out = importers.run(
        "segments", release, release.parent.parent / "out", Wanted(download=True), drop_damaged=True
    )
    assert set(masks(open_dataset(out))) == {"b"}


def test_a_plan_stops_what_waits_when_work_ends_early(release: Path, site: str) -> None:
    with ExitStack() as stack:
        plan = importers.plan("segments", release, Wanted(download=True), stack)
    image = plan.pairs["train"][0].image
    assert isinstance(image, Fetched)
    assert image.read()
    asked = threading.Event()

    def work(item: str) -> bool:
        if item == "fails":
            asked.wait(10)
            raise UnreachableError("gone")
        asked.set()
        return plan.stop is not None and image._stop.wait(10)

    started = time.monotonic()
    with pytest.raises(UnreachableError, match="gone"):
        list(in_threads(work, ["fails", "waits"], workers=2, stop=plan.stop))
    assert time.monotonic() - started < 5
    with pytest.raises(UnreachableError, match="the work was stopped"):
        image.read()


# -- its columns on request ----------------------------------------------------------------------------------------


def table(release: Path, columns: str, **words: Any) -> Any:
    out = importers.run(
        "segments", release, release.parent.parent / "out", Wanted(columns=columns, **words), workers=2
    )
    shutil.rmtree(release.parent)  # whatever opens now has its bytes in it
    return datasets.load_from_disk(str(out))


def test_its_columns_are_those_of_release2dataset(release: Path) -> None:
    photographs = {path.name: path.read_bytes() for path in release.parent.glob("images/**/*.*")}
    rows = table(release, "segments", status=("all",))
    assert rows.column_names == [
        *("name", "uuid", "status", "image"),
        *("label.annotations", "label.segmentation_bitmap"),
    ]
    assert rows["name"][:] == ["day1/a.jpg", "b.jpg", "c.png", "d.jpg", "e.jpg", "f.jpg"]
    assert rows["status"][2:5] == ["VERIFIED", "PRELABELED", "UNLABELED"]
    assert rows[0]["uuid"] == "uuid of day1/a.jpg"
    assert rows[0]["label.annotations"] == [{"id": r, "category_id": c} for r, c in REGIONS.items()]
    np.testing.assert_array_equal(np.array(rows[0]["label.segmentation_bitmap"]), regions())
    assert not np.array(rows[1]["label.segmentation_bitmap"]).any()
    assert rows[4]["label.annotations"] == []
    assert rows[4]["label.segmentation_bitmap"] is None  # not one black pixel
    stored = rows.cast_column("image", datasets.Image(decode=False))["image"][:]
    assert {one["path"]: one["bytes"] for one in stored} == photographs
    names = json.loads((release.parent.parent / "out" / "id2label.json").read_text())
    assert names == {"0": "unlabeled", "1": "road", "7": "void-sky", "300": "robot"}


def test_the_walk_through_on_these_columns_gives_the_semantic_ones(release: Path) -> None:
    whole = importers.run("segments", release, release.parent.parent / "whole", Wanted(columns="segments"))
    rows = datasets.load_from_disk(str(whole))
    semantic = table(release, "semantic")
    assert semantic.column_names == ["pixel_values", "label"]
    for one, other in zip(rows, semantic, strict=True):
        mapped = category_map(np.array(one["label.segmentation_bitmap"]), one["label.annotations"])
        np.testing.assert_array_equal(np.array(other["label"]), mapped)
        np.testing.assert_array_equal(np.array(other["pixel_values"]), np.array(one["image"]))
    np.testing.assert_array_equal(np.array(semantic[0]["label"]), categories())


def test_the_semantic_columns_open_as_a_data_set(release: Path) -> None:
    table(release, "semantic")
    data = open_dataset(release.parent.parent / "out")
    assert data.classes.names == ("road", "robot")
    np.testing.assert_array_equal(data["train"].read_mask(0), TRUTH)


def test_a_table_names_no_path_of_this_machine(release: Path) -> None:
    table(release, "segments")
    for path in (release.parent.parent / "out").iterdir():
        assert str(release.parent.parent).encode() not in path.read_bytes()


def test_a_table_is_whole_or_absent(release: Path) -> None:
    (release.parent / "bitmaps" / "scene.png").write_bytes(bitmap(regions())[:-40])
    for columns in ("segments", "semantic"):
        with pytest.raises(UnreadableFileError, match="2 of 3 pairs are damaged"):
            importers.run("segments", release, release.parent.parent / "out", Wanted(columns=columns))
        assert sorted(path.name for path in release.parent.parent.iterdir()) == ["raw"]
    with pytest.raises(UsageError, match="set of columns 'segment'(.|\n)*Did you mean 'segments'"):
        run(release, columns="segment")


def test_a_table_keeps_category_0_and_its_name(release: Path) -> None:
    def to_zero(dataset: Any) -> None:
        dataset["task_attributes"]["categories"] = [{"id": 0, "name": "road"}]
        first(dataset)["annotations"] = annotations(dict.fromkeys(REGIONS, 0))
        del dataset["samples"][1:]

    out = release.parent.parent
    importers.run("segments", change(release, to_zero), out / "a", Wanted(columns="segments"))
    assert json.loads((out / "a" / "id2label.json").read_text()) == {"0": "road"}
    importers.run("segments", release, out / "b", Wanted(columns="semantic"))
    assert json.loads((out / "b" / "id2label.json").read_text()) == {"0": "road", "255": "unlabeled"}
    drawn = np.array(datasets.load_from_disk(str(out / "b"))[0]["label"])
    np.testing.assert_array_equal(drawn, np.where(regions() == 0, 255, 0))


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command_takes_its_words(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(release.parent.parent / "out")
    words = ["import", "segments", str(release), "--out", out, "--status", "prelabeled, rejected"]
    assert main([*words, "--columns", "segments"]) == 0
    assert f"load_from_disk({out!r})" in capsys.readouterr().out
    assert main(["import", "camvid", str(release.parent), "--out", out + "2", "--download"]) == 2
    assert "camvid does not know" in capsys.readouterr().err


def test_every_field_mutated_gives_words_or_a_plan(release: Path) -> None:
    """Field by field: nothing but our own errors."""
    value = json.loads(release.read_text())
    del value["dataset"]["samples"][1:]
    tried = refused = 0

    def visit(holder: Any, key: Any) -> None:
        nonlocal tried, refused
        kept = holder[key]
        for strange in (None, [], {"a": 1}, -1, 1e300, "x" * 300, "../x"):
            holder[key] = strange
            release.write_text(json.dumps(value))
            tried += 1
            try:
                importers.plan("segments", release, Wanted(), ExitStack())
            except TerrazzoError:
                refused += 1
        holder[key] = kept

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            visit(node, key)
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(value)
    assert tried > 300
    assert 100 < refused < tried
