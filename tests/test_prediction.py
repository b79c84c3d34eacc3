"""Predictions on disk: masks that come back exactly, and nobody's work overwritten."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terrazzo.classes import Classes, Remap
from terrazzo.errors import ExistingOutputError, MaskSizeError, MaskValueError, UnknownNameError, UsageError
from terrazzo.images import read_image, read_mask, write_mask
from terrazzo.prediction import Prediction

ROADS = Classes(("road", "sky", "car"))
TABLE = Remap({0: None, 7: 0, 23: 1, 26: 2, 27: 2}, 3)  # a few of Cityscapes' raw ids


def predicted(model: str = "runs/demo", *, confidence: bool = False, first: int = 0) -> Prediction:
    mask = np.array([[first, 0, 1], [2, 1, 1]], np.uint8)
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10
    sure = np.array([[255, 128, 0], [51, 255, 255]], np.uint8) if confidence else None
    return Prediction(mask, ROADS, sure, image, "aachen/000012", remap=TABLE, model=model)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shares_are_of_all_pixels() -> None:
    assert predicted().shares() == {"road": 2 / 6, "sky": 3 / 6, "car": 1 / 6}


def test_a_saved_prediction_is_masks_colours_overlay_and_shares_with_sub_folders_kept(tmp_path: Path) -> None:
    prediction = predicted(confidence=True)
    path = prediction.save(tmp_path)
    assert path == tmp_path / "masks/aachen/000012.png"
    assert sorted(files(tmp_path)) == [
        "colors/aachen/000012.png",
        "confidence/aachen/000012.png",
        "masks/aachen/000012.png",
        "overlays/aachen/000012.png",
        "shares/aachen/000012.json",
    ]
    assert (read_mask(path) == prediction.mask).all()
    assert prediction.confidence is not None
    assert (read_image(tmp_path / "confidence/aachen/000012.png")[:, :, 0] == prediction.confidence).all()
    colors = read_image(tmp_path / "colors/aachen/000012.png")
    assert colors[0, 2].tolist() == list(ROADS.colors[1])
    assert read_image(tmp_path / "overlays/aachen/000012.png").shape[1] > 3  # the legend stands beside it
    record = json.loads((tmp_path / "shares/aachen/000012.json").read_text())
    assert record["shares"] == {"road": 0.333333, "sky": 0.5, "car": 0.166667}
    assert (record["height"], record["width"], record["model"], record["ids"]) == (2, 3, "runs/demo", "class")
    assert record["mean_confidence"] == pytest.approx((255 + 128 + 0 + 51 + 255 + 255) / 6 / 255, abs=1e-4)


def test_mask_files_show_the_class_colours_in_any_viewer(tmp_path: Path) -> None:
    path = predicted().save(tmp_path)
    with Image.open(path) as file:
        assert file.mode == "P"
        assert np.asarray(file.convert("RGB"))[1, 0].tolist() == list(ROADS.colors[2])


def test_raw_ids_are_those_of_the_data_set(tmp_path: Path) -> None:
    path = predicted().save(tmp_path, ids="raw", name="one")
    assert path == tmp_path / "masks/one.png"
    assert read_mask(path).tolist() == [[7, 7, 23], [26, 23, 23]]
    assert read_mask(path).dtype == np.uint8
    wide = Remap({300: 0, 1: 1, 2: 2}, 3)
    assert Prediction(predicted().mask, ROADS, remap=wide).raw_mask().dtype == np.uint16


def test_polygons_are_geojson_of_pixel_edges_with_class_and_colour() -> None:
    collection = json.loads(json.dumps(predicted().polygons()))
    assert collection["type"] == "FeatureCollection"
    found = [(f["properties"]["class"], f["geometry"]["coordinates"]) for f in collection["features"]]
    assert found == [
        ("road", [[[0, 0], [2, 0], [2, 1], [0, 1], [0, 0]]]),
        ("sky", [[[2, 0], [3, 0], [3, 2], [1, 2], [1, 1], [2, 1], [2, 0]]]),
        ("car", [[[0, 1], [1, 1], [1, 2], [0, 2], [0, 1]]]),
    ]
    car = collection["features"][2]
    assert (car["type"], car["geometry"]["type"]) == ("Feature", "Polygon")
    color = "#{:02x}{:02x}{:02x}".format(*ROADS.colors[2])
    assert car["properties"] == {"class": "car", "class_id": 2, "color": color, "pixels": 1}


def test_a_model_without_a_table_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The model runs/a knows no raw ids."):
        Prediction(predicted().mask, ROADS, model="runs/a").save(tmp_path, ids="raw")
    with pytest.raises(UnknownNameError, match="There is no kind of ids 'rwa'.\n.*\n  Did you mean 'raw'"):
        predicted().save(tmp_path, ids="rwa")  # type: ignore[arg-type]
    assert files(tmp_path) == {}


def test_saving_again_with_the_same_model_replaces(tmp_path: Path) -> None:
    predicted().save(tmp_path)
    before = files(tmp_path)
    predicted().save(tmp_path)
    assert files(tmp_path) == before
    path = predicted(first=2).save(tmp_path)  # the model was trained further
    assert read_mask(path)[0, 0] == 2


def test_somebody_elses_masks_are_never_overwritten(tmp_path: Path) -> None:
    drawn = tmp_path / "masks/aachen/000012.png"  # as in a data set's split
    drawn.parent.mkdir(parents=True)
    write_mask(drawn, np.full((2, 3), 1, np.uint8))
    before = files(tmp_path)
    with pytest.raises(
        ExistingOutputError, match="is already there and was not predicted by terrazzo"
    ) as caught:
        predicted().save(tmp_path)
    assert caught.value.exit_code == 2
    assert files(tmp_path) == before
    predicted().save(tmp_path, overwrite=True)
    assert (read_mask(drawn) == predicted().mask).all()


def test_a_mask_that_was_corrected_by_hand_is_never_overwritten(tmp_path: Path) -> None:
    path = predicted().save(tmp_path)
    corrected = predicted().mask.copy()
    corrected[0, 0] = 1
    write_mask(path, corrected)
    before = files(tmp_path)
    with pytest.raises(ExistingOutputError, match="000012.png was changed since terrazzo predicted it"):
        predicted().save(tmp_path)
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(path)  # no mask at all any more
    with pytest.raises(ExistingOutputError, match="was changed since"):
        predicted().save(tmp_path)
    assert {name: data for name, data in files(tmp_path).items() if "masks" not in name} == {
        name: data for name, data in before.items() if "masks" not in name
    }


def test_another_models_predictions_are_not_mixed_with_ours(tmp_path: Path) -> None:
    predicted("runs/a").save(tmp_path)
    with pytest.raises(ExistingOutputError, match="by another model.\n  found: runs/a\n  expected: runs/b"):
        predicted("runs/b").save(tmp_path)


@pytest.mark.parametrize("left", ["masks", "colors", "overlays"])
def test_an_interrupted_save_can_be_repeated(left: str, tmp_path: Path) -> None:
    predicted().save(tmp_path)
    for path in tmp_path.rglob("*.png"):
        if left not in path.parts:
            path.unlink()
    path = predicted().save(tmp_path)
    assert (read_mask(path) == predicted().mask).all()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", ""])
def test_names_cannot_leave_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no name to save under"):
        predicted().save(tmp_path / "out", name=name)
    assert files(tmp_path) == {}


def test_beside_shows_image_truth_and_prediction(tmp_path: Path) -> None:
    prediction = predicted()
    three = prediction.beside(prediction.mask)
    two = prediction.beside()
    assert three.width > two.width
    write_mask(tmp_path / "truth.png", prediction.mask)
    assert list(prediction.beside(tmp_path / "truth.png").tobytes()) == list(three.tobytes())
    with pytest.raises(MaskValueError, match="truth has class id 9"):
        prediction.beside(np.full((2, 3), 9, np.uint8))
    with pytest.raises(UsageError, match="carries no image"):
        Prediction(prediction.mask, ROADS).beside()


def test_a_notebook_shows_a_png_of_bounded_size() -> None:
    large = Prediction(np.zeros((3000, 2000), np.uint8), ROADS, image=np.zeros((3000, 2000, 3), np.uint8))
    with Image.open(io.BytesIO(large._repr_png_())) as shown:
        assert shown.format == "PNG"
        assert max(shown.size) <= 1024


def test_without_an_image_the_overlay_is_the_colours() -> None:
    bare = Prediction(predicted().mask, ROADS)
    assert (np.asarray(bare.overlay()) == np.asarray(bare.color())).all()


def test_image_and_confidence_must_fit_the_mask() -> None:
    with pytest.raises(MaskSizeError, match="The image of street has another size"):
        Prediction(np.zeros((2, 3), np.uint8), ROADS, image=np.zeros((3, 2, 3), np.uint8), name="street")
    with pytest.raises(MaskSizeError, match="The confidence of street"):
        Prediction(np.zeros((2, 3), np.uint8), ROADS, np.zeros((3, 3), np.uint8), name="street")


def test_a_prediction_introduces_itself() -> None:
    assert repr(predicted()) == "Prediction(aachen/000012, 2x3: sky 50%, road 33%, car 17%)"
