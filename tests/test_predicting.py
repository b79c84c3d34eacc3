"""Many images to disk: every source answered once, under its own name, and what cannot be read named at the end."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from terrazzo.backends import TorchBackend
from terrazzo.classes import Classes, Remap
from terrazzo.errors import (
    DataError,
    ExistingOutputError,
    ImageFormatError,
    MissingPathError,
    StorageError,
    UnknownNameError,
    UnreadableFileError,
    UsageError,
)
from terrazzo.images import read_mask, write_image
from terrazzo.inference import Predictor
from terrazzo.nn.outputs import Output
from terrazzo.predicting import predict
from terrazzo.prediction import Prediction

DARK_LIGHT = Classes(("dark", "light"))


class Brightness(nn.Module):
    """Class 1 where the first channel is above a half; nothing is learned."""

    channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, image_BCHW: Tensor) -> Output:
        self.sizes.append(tuple(image_BCHW.shape))
        return Output(torch.cat([0.5 - image_BCHW[:, :1], image_BCHW[:, :1] - 0.5], dim=1))


@pytest.fixture
def network() -> Brightness:
    return Brightness()


@pytest.fixture
def predictor(network: Brightness) -> Predictor:
    return Predictor(network, DARK_LIGHT, device="cpu", name="brightness")


def draw(path: Path, level: int, size_hw: tuple[int, int] = (32, 40)) -> Path:
    """Write an image whose left half is black and whose right half has `level`."""
    image = np.zeros((*size_hw, 3), np.uint8)
    image[:, size_hw[1] // 2 :] = level
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, image)
    return path


def test_every_mask_has_its_images_size_and_ids(predictor: Predictor, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png", 255, (32, 40))
    draw(tmp_path / "in" / "b" / "c.png", 0, (48, 36))
    masks = predict(predictor, tmp_path / "in", out=tmp_path / "out", quiet=True)
    assert [mask.relative_to(tmp_path / "out").as_posix() for mask in masks] == [
        "masks/a.png",
        "masks/b/c.png",
    ]
    light = np.zeros((32, 40), np.uint8)
    light[:, 20:] = 1
    assert np.array_equal(read_mask(masks[0]), light)
    assert np.array_equal(read_mask(masks[1]), np.zeros((48, 36), np.uint8))


def test_images_of_one_name_in_two_folders_are_both_answered(predictor: Predictor, tmp_path: Path) -> None:
    draw(tmp_path / "day" / "1.png", 255)
    draw(tmp_path / "night" / "1.png", 0)
    masks = predict(predictor, [tmp_path / "day", tmp_path / "night"], out=tmp_path / "out", quiet=True)
    assert [read_mask(mask).max() for mask in masks] == [1, 0]
    assert [mask.parent.name for mask in masks] == ["day", "night"]


def test_what_cannot_be_read_is_named_at_the_end_and_the_others_are_answered(
    predictor: Predictor, tmp_path: Path
) -> None:
    draw(tmp_path / "in" / "a.png", 255)
    draw(tmp_path / "in" / "c.png", 255)
    whole = (tmp_path / "in" / "a.png").read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as raised:
        predict(predictor, tmp_path / "in", out=tmp_path / "out", quiet=True)
    text = str(raised.value)
    assert text.startswith("1 of 3 images could not be predicted.")
    assert str(tmp_path / "in" / "b.png") in text
    assert text.endswith(f"The other 2 are predicted, in {tmp_path / 'out'}.")
    assert sorted(path.name for path in (tmp_path / "out" / "masks").iterdir()) == ["a.png", "c.png"]


def test_a_long_list_of_unreadable_images_is_cut_and_counted(predictor: Predictor, tmp_path: Path) -> None:
    draw(tmp_path / "in" / "a.png", 255)
    for number in range(12):
        (tmp_path / "in" / f"b{number:02d}.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"12 of 13 images could not be predicted(.|\n)*b09\.png(.|\n)*… and 2 more"
    ) as raised:
        predict(predictor, tmp_path / "in", out=tmp_path / "out", quiet=True)
    assert "b10.png" not in str(raised.value)


class AtLeast32(TorchBackend):
    """Takes what a graph takes."""

    def __call__(self, image_BCHW: NDArray[np.float32], /) -> NDArray[np.float32]:
        if min(image_BCHW.shape[2:]) < 32:
            raise ImageFormatError("The image is too small for the graph.", expected="32")
        return super().__call__(image_BCHW)


@pytest.mark.parametrize("count", [1, 3], ids=["one thread", "several"])
def test_an_image_that_the_backend_does_not_take_is_named_and_the_others_are_answered(
    network: Brightness, tmp_path: Path, count: int
) -> None:
    predictor = Predictor(AtLeast32(network, torch.device("cpu"), "f32"), DARK_LIGHT)
    for number in range(count):
        draw(tmp_path / "in" / f"b{number}.png", 255, size_hw=(40, 40))
    draw(tmp_path / "in" / "a.png", 255, size_hw=(16, 40))
    with pytest.raises(DataError) as raised:
        predict(predictor, tmp_path / "in", out=tmp_path / "out", quiet=True)
    text = str(raised.value)
    assert f"{tmp_path / 'in' / 'a.png'}: The image is too small for the graph." in text
    assert ("The other one is" if count == 1 else "The other 3 are") in text
    assert len(list((tmp_path / "out" / "masks").iterdir())) == count
    with pytest.raises(ImageFormatError, match=r"a\.png: The image is too small"):
        predict(predictor, tmp_path / "in" / "a.png", out=tmp_path / "out", quiet=True)


def test_one_image_that_cannot_be_read_is_its_own_error(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(UnreadableFileError, match=r"b\.png"):
        predict(predictor, tmp_path / "b.png", out=tmp_path / "out", quiet=True)


def test_raw_ids_go_through_the_inverse_table(network: Brightness, tmp_path: Path) -> None:
    remap = Remap({7: 0, 26: 1, 255: None}, 2)
    predictor = Predictor(network, DARK_LIGHT, device="cpu", remap=remap, name="brightness")
    [mask] = predict(predictor, draw(tmp_path / "a.png", 255), out=tmp_path / "out", ids="raw", quiet=True)
    assert np.unique(read_mask(mask)).tolist() == [7, 26]


def test_raw_ids_of_a_model_that_knows_none_are_refused_before_anything_is_written(
    predictor: Predictor, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="knows no raw ids"):
        predict(predictor, draw(tmp_path / "a.png", 255), out=tmp_path / "out", ids="raw", quiet=True)
    assert not (tmp_path / "out").exists()


def test_images_of_one_size_share_a_pass_up_to_the_batch(
    predictor: Predictor, network: Brightness, tmp_path: Path
) -> None:
    for number in range(5):
        draw(tmp_path / "in" / f"{number}.png", 255)
    predict(predictor, tmp_path / "in", out=tmp_path / "out", batch_size=2, quiet=True)
    assert sorted(size[0] for size in network.sizes) == [1, 2, 2]  # passes end in any order
    assert predictor.eval.batch_size == 1  # the predictor one handed in stays as it was


def test_an_answer_of_an_earlier_call_is_neither_a_source_nor_in_the_way(
    predictor: Predictor, tmp_path: Path
) -> None:
    draw(tmp_path / "a.png", 255)
    first = predict(predictor, tmp_path, out=tmp_path / "out", quiet=True)
    again = predict(predictor, tmp_path, out=tmp_path / "out", quiet=True)
    assert again == first


def test_work_of_another_hand_is_replaced_only_on_request(predictor: Predictor, tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png", 255)
    [mask] = predict(predictor, image, out=tmp_path / "out", quiet=True)
    write_image(mask, np.ones((32, 40, 1), np.uint8))
    with pytest.raises(ExistingOutputError, match="changed since terrazzo predicted it"):
        predict(predictor, image, out=tmp_path / "out", quiet=True)
    assert read_mask(mask).min() == 1
    predict(predictor, image, out=tmp_path / "out", overwrite=True, quiet=True)
    assert read_mask(mask).min() == 0


def test_a_source_that_is_not_there_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"There is no image, folder or glob .*nowhere"):
        predict(tmp_path / "no-model", tmp_path / "nowhere", out=tmp_path / "out")


def test_what_is_written_can_be_chosen(predictor: Predictor, tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 255)
    predict(predictor, tmp_path / "a.png", out=tmp_path / "out", parts=["masks", "polygons"], quiet=True)
    written = sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")
    )
    assert written == ["masks/a.png", "polygons/a.geojson", "shares/a.json"]
    areas = json.loads((tmp_path / "out" / "polygons" / "a.geojson").read_text())["features"]
    corners = {area["properties"]["class"]: area["geometry"]["coordinates"][0] for area in areas}
    assert sorted(map(tuple, corners["light"][:4])) == [(20, 0), (20, 32), (40, 0), (40, 32)]
    predict(predictor, tmp_path / "a.png", out=tmp_path / "out", parts=["overlays"], quiet=True)
    predict(predictor, tmp_path / "a.png", out=tmp_path / "out", quiet=True)  # and all of it later
    with pytest.raises(UnknownNameError, match="Did you mean 'masks'"):
        predict(predictor, tmp_path / "a.png", out=tmp_path / "out", parts=["mask"], quiet=True)


def test_processes_that_were_started_together_share_the_images(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        draw(tmp_path / "in" / f"{number}.png", 255)
    written = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        masks = predict(predictor, tmp_path / "in", out=tmp_path / "out", quiet=True)
        written.append([mask.stem for mask in masks])
    assert written == [["0", "2", "4"], ["1", "3"]]
    monkeypatch.setenv("WORLD_SIZE", "9")
    monkeypatch.setenv("RANK", "8")
    assert predict(predictor, tmp_path / "in", out=tmp_path / "out", quiet=True) == []


def test_a_full_disk_while_writing_ends_it_in_words(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a writing thread reaches the caller; what was written before is whole."""
    for number in range(12):
        draw(tmp_path / "in" / f"{number:02d}.png", 255)
    save, saved = Prediction.save, []

    def fills_up(self: Prediction, folder: Path, **words: object) -> Path:
        if len(saved) == 5:
            raise StorageError("The disk is full.")
        saved.append(self.name)
        return save(self, folder, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(Prediction, "save", fills_up)
    with pytest.raises(StorageError, match="The disk is full"):
        predict(predictor, tmp_path / "in", out=tmp_path / "out", quiet=True)
    masks = [read_mask(path) for path in sorted((tmp_path / "out" / "masks").iterdir())]
    assert [mask.shape for mask in masks] == [(32, 40)] * 5


def test_the_threads_are_given_back(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While several images are seen at once each pass has a share of torch's threads; afterwards all of them again."""
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(4)
    try:
        for number in range(5):
            draw(tmp_path / "in" / f"{number}.png", 255)
        forward = Brightness.forward

        def counted(self: Brightness, image_BCHW: Tensor) -> Output:
            seen.append(torch.get_num_threads())
            return forward(self, image_BCHW)

        monkeypatch.setattr(Brightness, "forward", counted)
        assert predictor.passes == 4
        predict(predictor, tmp_path / "in", out=tmp_path / "out", quiet=True)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 4
        predict(predictor, tmp_path / "in" / "0.png", out=tmp_path / "out", quiet=True)
        assert seen[-1] == 4  # one image has them all
    finally:
        torch.set_num_threads(before)
