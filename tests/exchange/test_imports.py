"""Labels of others brought in: what was drawn there, pixel by pixel; hostile files are refused and nothing comes."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coco_tree import write_instances
from labelled import write_photograph
from segments_tree import categories, write_segments
from terrazzo import exchange
from terrazzo.data import importers, open_dataset
from terrazzo.data.importers.planning import Wanted
from terrazzo.data.scenes import write_scenes
from terrazzo.errors import DataError, DatasetFormatError, TerrazzoError, UsageError
from terrazzo.exchange.label_studio import decode_brush
from terrazzo.project import Project, open_project

HW = (10, 14)


@pytest.fixture
def project(tmp_path: Path) -> Any:
    write_photograph(tmp_path / "a.png", 0, hw=HW)
    with open_project(tmp_path / "street.db") as made:
        yield made


def named(project: Project, name: str) -> np.ndarray:
    """The label as names, "" where nobody drew."""
    names = {0: "", **{one.id: one.name for one in project.categories}}
    return np.vectorize(names.get)(project.read_mask(name))


def test_a_data_set_comes_in_and_comes_in_once(project: Project) -> None:
    data = open_dataset(write_scenes(project.root / "scenes", train=2, val=1, size_hw=(32, 48)))
    first = exchange.bring(project, "data-set", project.root / "scenes")
    again = exchange.bring(project, "data-set", project.root / "scenes")
    assert (
        len(first.labels),
        len(first.samples),
        len(again.labels),
        len(again.samples),
        len(again.kept),
    ) == (3, 3, 0, 0, 3)
    for split in data.splits.values():
        for place, name in enumerate(split.names):
            suffix = Path(split.where(place)).suffix
            label = f"scenes/{split.name}/images/{name}{suffix}"
            mask = split.read_mask(place).astype(int)
            expected = np.array([*data.classes.names, ""])[np.where(mask == data.classes.ignore, -1, mask)]
            assert (named(project, label) == expected).all()
            assert project.sample(label).split == split.name


def test_images_of_a_table_are_written_below_the_project(project: Project) -> None:
    release = write_segments(project.root / "crossings")
    importers.run("segments", release, project.root / "table", Wanted(columns="semantic"))
    brought = exchange.bring(project, "data-set", project.root / "table")
    assert len(brought.labels) == 3 and all(name.startswith("table/") for name in brought.samples)


def test_a_release_of_segments_ai_keeps_regions_and_statuses(project: Project) -> None:
    release = write_segments(project.root / "crossings")
    value = json.loads(release.read_text())
    value["dataset"]["samples"][0]["labels"]["ground-truth"]["attributes"]["annotations"].pop()
    (release.parent / "less.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"(?s)nothing was.*no annotation gives a category: 16777215"):
        exchange.bring(project, "segments", release.parent / "less.json")
    assert len(project) == 0 and len(project.categories) == 0  # all or none
    exchange.bring(project, "segments", release)
    names = {1: "road", 300: "robot", 7: "void-sky", 0: ""}
    assert (named(project, "crossings/images/day1/a.jpg") == np.vectorize(names.get)(categories())).all()
    assert len(project.read_objects("crossings/images/day1/a.jpg").annotations) == 4  # two robots
    found = {one.name.rpartition("/")[2]: one.status for one in project.samples.all()}
    assert found == {"a.jpg": "labelled", "b.jpg": "reviewed", "c.png": "reviewed", "d.jpg": "prelabelled",
                     "e.jpg": "todo", "f.jpg": "rejected"}  # fmt: skip


def test_coco_comes_in_as_the_importer_of_data_sets_reads_it(project: Project) -> None:
    root = write_instances(project.root / "coco") or project.root / "coco"
    exchange.bring(project, "coco", project.root / "coco")
    data = open_dataset(
        importers.run("coco", root, project.root.parent / f"{project.root.name}-coco", Wanted())
    )
    compared = 0
    for split in data.splits.values():
        for place, name in enumerate(split.names):
            (label,) = [one.name for one in project.samples.all() if Path(one.name).stem == Path(name).name]
            mask = split.read_mask(place).astype(int)
            names = np.array([*data.classes.names, "crowd"])[np.where(mask == data.classes.ignore, -1, mask)]
            assert (named(project, label) == np.where(names == "background", "", names)).all()
            compared += 1
    assert compared > 1 and project.categories["crowd"].is_ignore


def labelme(project: Project, shapes: list[dict[str, Any]], **words: Any) -> Path:
    folder = project.root
    value = {"version": "5", "shapes": shapes, "imagePath": "a.png", "imageData": None, "extra": 1, **words}
    (folder / "a.json").write_text(json.dumps(value))
    return folder


def png_text(mask: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_labelmes_shapes_are_painted_in_their_order_and_groups_are_one(project: Project) -> None:
    patch = np.eye(3, dtype=bool)
    shapes = [
        {
            "label": "road",
            "points": [[0, 5], [14, 5], [14, 10], [0, 10]],
            "shape_type": "polygon",
            "group_id": None,
        },
        {"label": "car", "points": [[1, 6], [4, 8]], "shape_type": "rectangle", "group_id": 1},
        {"label": "car", "points": [[6, 6], [8, 8]], "shape_type": "rectangle", "group_id": 1},
        {"label": "car", "points": [[9, 6], [11, 8]], "shape_type": "rectangle", "group_id": None},
        {"label": "sign", "points": [[12, 0], [14, 2]], "shape_type": "mask", "mask": png_text(patch)},
        {"label": "path", "points": [[0, 0], [3, 3]], "shape_type": "line"},
        {"label": "__ignore__", "points": [[0, 0], [14, 0], [14, 10]], "shape_type": "polygon"},
    ]
    brought = exchange.bring(project, "labelme", labelme(project, shapes))
    assert brought.notes == ("1 lines and points have no area, and are left out.",)
    expected = np.full(HW, "", dtype="<U9")
    expected[5:] = "road"
    expected[6:8, 1:4] = expected[6:8, 6:8] = expected[6:8, 9:11] = "car"
    expected[0, 12] = expected[1, 13] = "sign"  # the third of the patch lies outside
    assert (named(project, "a.png") == expected).all()
    label = project.read_objects("a.png")
    assert label.object_map[6, 1] == label.object_map[6, 6] != label.object_map[6, 9]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"points": [[0, 0], [1, 1]], "shape_type": "polygon"}, "a polygon of 4 numbers"),
        ({"points": [[0, 0], [1e9, 1], [1, 1]]}, "corners beyond any image"),
        ({"points": [[0, "x"]]}, "could not convert"),
        (
            {"points": [[0, 0], [10**6, 10**6]], "shape_type": "mask", "mask": "AA=="},
            "a mask of 1000001 x 1000001",
        ),
        ({"points": [[0, 0], [2, 2]], "shape_type": "mask", "mask": "A" * 10**6}, "far too long"),
        (
            {"points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": png_text(np.eye(3))},
            "in a box of (2, 2)",
        ),
    ],
)
def test_shapes_that_are_none_are_named_and_nothing_comes(
    project: Project, shape: dict[str, Any], words: str
) -> None:
    with pytest.raises(TerrazzoError) as caught:
        exchange.bring(project, "labelme", labelme(project, [{"label": "car", **shape}]))
    assert words in str(caught.value) and len(project) == 0


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "..\\..\\x.jpg", "gone.png", "a\0.png"])
def test_a_path_that_leaves_the_folder_leads_nowhere(project: Project, path: str) -> None:
    (project.root / "b.json").write_text(json.dumps({"shapes": [], "imagePath": path}))
    with pytest.raises(DatasetFormatError, match="no image"):
        exchange.bring(project, "labelme", project.root)


def cvat(project: Project, inside: str, *, head: str = "", version: str = "1.1") -> Path:
    path = project.root / "annotations.xml"
    image = f'<image id="0" name="a.png" width="{HW[1]}" height="{HW[0]}">{inside}</image>'
    path.write_text(
        f'<?xml version="1.0"?>{head}<annotations><version>{version}</version>{image}</annotations>'
    )
    return path


def test_cvats_shapes_are_painted_from_the_lowest_z_order(project: Project) -> None:
    inside = (
        '<box label=" car " xtl="2" ytl="6" xbr="6" ybr="9" z_order="2"/>'
        '<polygon label="road" points="0,5;14,5;14,10;0,10" z_order="0"/>'
        '<mask label="sign" rle="1, 2, 1, 1, 1" left="10" top="0" width="3" height="2" z_order="1"/>'
        '<points label="dot" points="1,1"/>'
    )
    brought = exchange.bring(project, "cvat", cvat(project, inside))
    assert brought.notes == ("1 shapes without an area are left out.",)
    expected = np.full(HW, "", dtype="<U9")
    expected[5:] = "road"
    expected[6:9, 2:6] = "car"
    expected[0, 11:13] = expected[1, 11] = "sign"  # 0 1 1 / 0 1 0, row by row
    assert (named(project, "a.png") == expected).all()


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ('<mask label="a" rle="5" left="0" top="0" width="2" height="2"/>', "run lengths for 5 of 4 pixels"),
        ('<mask label="a" rle="99999999999" left="0" top="0" width="2" height="2"/>', "run lengths for"),
        (
            f'<mask label="a" rle="{2**63 - 1}, {2**63 - 1}, 6" left="0" top="0" width="2" height="2"/>',
            "run lengths for",
        ),
        ('<mask label="a" rle="4" left="13" top="0" width="2" height="2"/>', "beyond its image"),
        ('<polygon label="a" points="1,2"/>', "a polygon of 2 numbers"),
        ('<polygon label="a" points="nan,2;3,4;5,6"/>', "corners beyond any image"),
    ],
)
def test_cvats_shapes_that_are_none_are_named(project: Project, inside: str, words: str) -> None:
    with pytest.raises(TerrazzoError) as caught:
        exchange.bring(project, "cvat", cvat(project, inside))
    assert words in str(caught.value) and len(project) == 0


def test_xml_that_reaches_out_or_explodes_is_refused(project: Project) -> None:
    for head in (
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a [<!ENTITY x "lol">]>',
    ):
        with pytest.raises(DatasetFormatError, match="is not to be trusted"):
            exchange.bring(project, "cvat", cvat(project, "", head=head))
    with pytest.raises(DatasetFormatError, match="is not valid XML"):
        exchange.bring(project, "cvat", cvat(project, "<"))
    with pytest.raises(DatasetFormatError, match="is no CVAT for images 1.1"):
        exchange.bring(project, "cvat", cvat(project, "", version="9"))


def brush(mask: np.ndarray, *, size: int | None = None) -> list[int]:
    """Label Studio's run lengths, written bit by bit as the format says, with both kinds of runs."""
    values = np.zeros((*mask.shape, 4), np.uint8)
    values[mask] = 255
    flat = values.ravel().tolist()
    bits = format(size if size is not None else len(flat), "032b") + format(7, "05b")
    bits += "".join(format(length - 1, "04b") for length in (3, 4, 8, 16))
    place = 0
    while place < len(flat):
        run = 1
        while place + run < len(flat) and run < 256 and flat[place + run] == flat[place]:
            run += 1
        if run > 1:
            bits += "1" + "10" + format(run - 1, "08b") + format(flat[place], "08b")
        else:
            bits += "0" + "00" + format(0, "03b") + format(flat[place], "08b")
        place += run
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def label_studio(
    project: Project, results: list[dict[str, Any]], url: str = "/data/upload/1/1a2b3c4d-a.png"
) -> Path:
    old = {"was_cancelled": True, "result": [{"type": "brushlabels", "value": {}}]}
    task = {"id": 1, "data": {"image": url}, "annotations": [{"result": []}, {"result": results}, old]}
    path = project.root / "tasks.json"
    path.write_text(json.dumps([task]))
    return path


def result(kind: str, label: str, value: dict[str, Any], **words: Any) -> dict[str, Any]:
    size = {"original_width": HW[1], "original_height": HW[0], "image_rotation": 0}
    return {"id": "x", "type": kind, **size, "value": {**value, kind: [label]}, **words}


def test_label_studios_brushes_and_percents_are_painted(project: Project) -> None:
    region = np.random.default_rng(0).random(HW) < 0.3
    results = [
        result("rectanglelabels", "road", {"x": 0, "y": 50, "width": 100, "height": 50, "rotation": 0}),
        result("brushlabels", "car", {"format": "rle", "rle": brush(region)}),
        result("polygonlabels", "sign", {"points": [[0, 0], [50, 0], [50, 20], [0, 20]]}),
        {"type": "choices", "value": {"choices": ["day"]}},
    ]
    brought = exchange.bring(project, "label-studio", label_studio(project, results))
    assert brought.notes == ("1 results that are no region with a label are left out.",)
    expected = np.full(HW, "", dtype="<U9")
    expected[5:] = "road"
    expected[region] = "car"
    expected[:2, :7] = "sign"
    assert (named(project, "a.png") == expected).all()


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (brush(np.zeros(HW, bool), size=2**32 - 1), "4,294,967,295 numbers for an image of 10 x 14"),
        (brush(np.zeros(HW, bool))[:9], "break off"),
        ([300] * 20, "no list of bytes"),
        ([], "no list of bytes"),
    ],
)
def test_brushes_that_are_none_are_refused_before_they_are_unpacked(packed: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode_brush(packed, HW)


def test_what_was_drawn_on_another_size_or_a_turned_image_is_refused(project: Project) -> None:
    for change in ({"original_width": 99}, {"image_rotation": 90}):
        one = result("rectanglelabels", "road", {"x": 0, "y": 0, "width": 9, "height": 9}, **change)
        with pytest.raises(DataError, match="1 of 1 labels cannot be brought in; nothing was"):
            exchange.bring(project, "label-studio", label_studio(project, [one]))
    with pytest.raises(DatasetFormatError, match="names images that are not there"):
        exchange.bring(
            project, "label-studio", label_studio(project, [], url="/data/upload/../../etc/passwd")
        )


def test_images_outside_the_root_are_refused(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_photograph(elsewhere / "a.png", 0, hw=HW)
    (elsewhere / "a.json").write_text(json.dumps({"shapes": [], "imagePath": "a.png"}))
    with pytest.raises((DataError, UsageError), match="outside the project's root"):
        exchange.bring(project, "labelme", elsewhere)
