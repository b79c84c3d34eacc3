"""The one eye: networks whose answer is known, whole and in windows, at any size, and what is refused in words."""

import copy
import re
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from terrazzo import inference, views
from terrazzo.classes import Classes, Remap
from terrazzo.data.transforms import DataConfig, resize_image
from terrazzo.errors import (
    ImageFormatError,
    MissingPathError,
    TerrazzoError,
    UnknownNameError,
    UnreadableFileError,
    UsageError,
    WeightsError,
)
from terrazzo.inference import Predictor, ahead, batches, load
from terrazzo.kernels.crop_resize import crop_resize_reference
from terrazzo.nn.outputs import Output
from terrazzo.nn.segformer import SegFormer, Size
from terrazzo.nn.weights import save_model
from terrazzo.recipe import EvalConfig, Recipe
from terrazzo.sources import Source
from tiny_segformer import rewrite

THREE = Classes(("low", "middle", "high"))


class Thresholds(nn.Module):
    """Class 0, 1 or 2 by which of 0, 0.5 and 1 the first channel is nearest to; nothing is learned."""

    channels = 3

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image_BCHW: Tensor) -> Output:
        self.shapes.append(tuple(image_BCHW.shape))
        return Output(
            torch.cat([-(((image_BCHW[:, :1] - level) * 8) ** 2) for level in (0.0, 0.5, 1.0)], dim=1)
        )


class Quarter(nn.Module):
    """Logits at stride 4 from a 3x3 convolution: position matters, as in a real network."""

    channels = 3

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.conv = nn.Conv2d(3, num_classes, 3, stride=4, padding=1)

    def forward(self, image_BCHW: Tensor) -> Output:
        return Output(self.conv(image_BCHW) * 20)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def thresholded(image: np.ndarray) -> np.ndarray:
    """The truth of Thresholds, by integer arithmetic: grey levels nearest to 0, 127.5 and 255."""
    return np.digitize(image[:, :, 0], [64, 192])


def windows(window: int, stride: int, **changes: Any) -> EvalConfig:
    return EvalConfig(inference="windows", window_hw=(window, window), stride_hw=(stride, stride), **changes)


# what comes back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eval", [EvalConfig(), windows(16, 8), windows(7, 7), windows(64, 64)], ids=str)
@pytest.mark.parametrize("size_hw", [(1, 1), (33, 21), (16, 50)])
def test_every_pixel_gets_the_class_the_network_gives_it(eval: EvalConfig, size_hw: tuple[int, int]) -> None:
    image = picture(*size_hw)
    prediction = Predictor(Thresholds(), THREE, eval=eval, device="cpu")(image)
    assert prediction.mask.dtype == np.uint8
    assert (prediction.mask == thresholded(image)).all()
    assert prediction.image is not None
    assert (prediction.image == image).all()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.integers(1, 24), st.data())
@settings(deadline=None, max_examples=40)
def test_windows_see_what_the_whole_sees_when_the_network_looks_at_single_pixels(
    height: int, width: int, window: int, batch: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window))
    image = picture(height, width, seed=height)
    whole = Predictor(Thresholds(), THREE, device="cpu")
    tiled = whole.with_eval(windows(window, stride, batch_size=batch))
    np.testing.assert_allclose(tiled.logits(image), whole.logits(image), rtol=1e-5, atol=1e-4)
    assert (tiled(image).mask == whole(image).mask).all()


@pytest.mark.parametrize("eval", [EvalConfig(), windows(24, 16)], ids=["whole", "windows"])
@pytest.mark.parametrize(
    "data",
    [
        DataConfig(resize="exact", resize_hw=(32, 40)),
        DataConfig(resize="short", resize_hw=(48, 64)),
        DataConfig(resize="fit", resize_hw=(20, 90)),
        DataConfig(),
    ],
    ids=lambda data: data.resize,
)
def test_the_mask_is_the_argmax_of_logits_resized_to_the_original_size(
    data: DataConfig, eval: EvalConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "BAND_BYTES", 4 * 3 * 64 * 5)  # bands of a few rows, so that seams would show
    image, network = picture(71, 53), Quarter()
    predictor = Predictor(network, THREE, data=data, eval=eval, device="cpu")
    height, width = {"exact": (32, 40), "short": (64, 48), "fit": (20, 15), "original": (71, 53)}[data.resize]
    small = resize_image(image, (height, width))
    pillow = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    assert np.abs(small.astype(int) - pillow).max() <= 1
    tensor = torch.from_numpy(small.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        if eval.inference == "whole":
            logits = network(tensor).logits
        else:
            logits = averaged_windows(network, tensor, 24, 16)
    full = nn.functional.interpolate(logits, (71, 53), mode="bilinear")[0]
    np.testing.assert_allclose(predictor.logits(image), logits[0], atol=1e-4)
    mask, best = predictor(image).mask, full.max(0).values
    chosen = full.gather(0, torch.from_numpy(mask.astype(np.int64))[None])[0]
    assert (best - chosen).max() < 1e-4  # the argmax, but for ties within rounding
    assert (mask == full.argmax(0).numpy()).mean() > 0.999


def averaged_windows(network: nn.Module, image: Tensor, window: int, stride: int) -> Tensor:
    """The plain way: every window at full size, added up over the whole image."""
    height, width = image.shape[2:]
    total, count = torch.zeros(1, 3, height, width), torch.zeros(height, width)
    tops = sorted(
        {min(y, max(0, height - window)) for y in range(0, max(1, height - window + stride), stride)}
    )
    lefts = sorted(
        {min(x, max(0, width - window)) for x in range(0, max(1, width - window + stride), stride)}
    )
    for y in tops:
        for x in lefts:
            part = image[:, :, y : y + window, x : x + window]
            logits = nn.functional.interpolate(
                network(part).logits,
                part.shape[2:],
                mode="bilinear",
                align_corners=getattr(network, "align_corners", False),
            )
            total[:, :, y : y + window, x : x + window] += logits
            count[y : y + window, x : x + window] += 1
    return total / count


@pytest.mark.parametrize("eval", [EvalConfig(), windows(16, 12)], ids=["whole", "windows"])
def test_confidence_is_the_softmax_of_the_predicted_class(eval: EvalConfig) -> None:
    image = picture(20, 30)
    predictor = Predictor(Thresholds(), THREE, eval=eval, device="cpu")
    prediction = predictor(image, confidence=True)
    red = image[:, :, 0] / 255
    logits = np.stack([-(((red - level) * 8) ** 2) for level in (0.0, 0.5, 1.0)])
    probs = np.exp(logits) / np.exp(logits).sum(0)
    assert prediction.confidence is not None
    assert np.abs(prediction.confidence - 255 * probs.max(0)).max() <= 0.51
    assert predictor(image).confidence is None


SEVERAL = {"scales": (0.5, 1.0, 1.6), "flip": True}


class Cornered(Quarter):
    """The same, for configs whose corners meet."""

    align_corners = True


def averaged_looks(
    network: nn.Module, image: np.ndarray, size_hw: tuple[int, int], eval: EvalConfig, out_hw: tuple[int, int]
) -> Tensor:
    """The plain way: each look resized to its view, then to the image, its softmax; their mean (K, H, W)."""
    corners = getattr(network, "align_corners", False)

    def resized(tensor: Tensor, hw: tuple[int, ...]) -> Tensor:
        return nn.functional.interpolate(tensor, hw, mode="bilinear", align_corners=corners)

    looks = []
    for scale in eval.scales:
        view_hw = tuple(int(side * scale + 0.5) for side in size_hw)
        seen = resize_image(image, view_hw).astype(np.float32) / 255
        tensor = torch.from_numpy(seen).permute(2, 0, 1)[None]
        for is_mirrored in (False, True) if eval.flip else (False,):
            view = tensor.flip(3) if is_mirrored else tensor
            with torch.no_grad():
                if eval.inference == "whole":
                    logits = resized(network(view).logits, view_hw)
                else:
                    logits = averaged_windows(network, view, eval.window_hw[0], eval.stride_hw[0])
            full = resized(logits, out_hw).softmax(1)
            looks.append(full.flip(3) if is_mirrored else full)
    return torch.stack(looks).mean(0)[0]


@pytest.mark.parametrize("network", [Quarter(), Cornered()], ids=["edges", "corners"])
@pytest.mark.parametrize("resize", ["original", "short"])
@pytest.mark.parametrize(
    "eval",
    [EvalConfig(flip=True), EvalConfig(**SEVERAL), windows(32, 24, **SEVERAL)],
    ids=["whole, mirrored", "whole, several", "windows, several"],
)
def test_several_looks_are_the_mean_of_their_probabilities(
    network: nn.Module, resize: Any, eval: EvalConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "BAND_BYTES", 4 * 3 * 64 * 12)  # bands of a few rows, so that seams would show
    image = picture(57, 43)
    data = DataConfig(resize=resize, resize_hw=(32, 64))
    predictor = Predictor(network, THREE, data=data, eval=eval, device="cpu")
    size_hw = (42, 32) if resize == "short" else (57, 43)
    probs = averaged_looks(network, image, size_hw, eval, (57, 43))
    bands = list(next(iter(predictor.eye.bands([image]))))
    assert len(bands) >= 3
    np.testing.assert_allclose(
        np.exp(np.concatenate([band.logits for band in bands], axis=1)), probs, atol=1e-5
    )
    prediction = predictor(image, confidence=True)
    best = probs.max(0).values
    chosen = probs.gather(0, torch.from_numpy(prediction.mask.astype(np.int64))[None])[0]
    assert (best - chosen).max() < 1e-5  # the argmax, but for ties within rounding
    assert (prediction.mask == probs.argmax(0).numpy()).mean() > 0.999
    assert prediction.confidence is not None
    assert np.abs(prediction.confidence - 255 * best.numpy()).max() < 0.51
    seen = averaged_looks(network, image, size_hw, eval, size_hw)
    np.testing.assert_allclose(np.exp(predictor.logits(image)), seen, atol=1e-5)


@pytest.mark.parametrize("network", [Quarter(), Cornered()], ids=["edges", "corners"])
@pytest.mark.parametrize("resize", ["original", "short"])
@pytest.mark.parametrize(
    "eval",
    [windows(32, 24), windows(32, 24, blend="smooth"), EvalConfig(**SEVERAL), windows(32, 24, **SEVERAL)],
    ids=["windows", "smooth", "several", "windows, several"],
)
@pytest.mark.parametrize("there", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_logits_that_stay_where_the_network_is_give_the_same(
    network: nn.Module, resize: Any, eval: EvalConfig, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "BAND_BYTES", 4 * 3 * 64 * 12)
    image, data = picture(57, 43), DataConfig(resize=resize, resize_hw=(32, 64))

    def seen(device: str) -> tuple[Any, ...]:
        predictor = Predictor(copy.deepcopy(network), THREE, data=data, eval=eval, device=device)
        bands = list(next(iter(predictor.eye.bands([image]))))
        assert len(bands) >= 3
        assert {isinstance(band.logits, Tensor) for band in bands} == {predictor.eye.is_there}
        logits = torch.cat([torch.as_tensor(band.logits).cpu() for band in bands], dim=1)
        return logits, torch.from_numpy(predictor.logits(image)), predictor(image, confidence=True)

    here, whole, prediction = seen("cpu")
    monkeypatch.setattr(views.Eye, "is_there", True)
    logits, same_whole, same = seen(there)
    within = 1e-6 if there == "cpu" else 1e-3  # a GPU's convolutions may round to TF32
    assert torch.allclose(logits.softmax(0), here.softmax(0), rtol=0, atol=10 * within)
    assert torch.allclose(logits, here, rtol=within, atol=20 * within)
    assert torch.allclose(same_whole, whole, rtol=within, atol=20 * within)
    assert (same.mask == prediction.mask).mean() > 0.998
    assert same.mask.dtype == prediction.mask.dtype == np.uint8
    assert np.abs(same.confidence.astype(int) - prediction.confidence).max() <= (1 if there == "cpu" else 3)


def test_a_single_look_at_another_size_is_the_softmax_of_that_size() -> None:
    image, network = picture(24, 36), Quarter()
    logits = Predictor(network, THREE, eval=EvalConfig(scales=(2.0,)), device="cpu").logits(image)
    expected = averaged_looks(network, image, (24, 36), EvalConfig(scales=(2.0,)), (24, 36))
    np.testing.assert_allclose(np.exp(logits), expected, atol=1e-5)


@pytest.mark.parametrize("network", [Quarter(), Cornered()], ids=["edges", "corners"])
def test_logits_are_resized_as_the_network_says_its_corners_lie(network: nn.Module) -> None:
    image = picture(23, 37)
    tensor = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        full = nn.functional.interpolate(
            network(tensor).logits,
            (23, 37),
            mode="bilinear",
            align_corners=getattr(network, "align_corners", False),
        )[0]
    mask = Predictor(network, THREE, device="cpu")(image).mask
    assert (mask == full.argmax(0).numpy()).all()


@pytest.mark.parametrize("size_hw", [(32, 48), (33, 50)], ids=str)
@pytest.mark.parametrize(
    "eval",
    [
        EvalConfig(flip=True),
        windows(16, 8, flip=True),
        windows(20, 12, blend="smooth", **SEVERAL),
        EvalConfig(**SEVERAL),
    ],
    ids=["whole", "windows", "smooth windows, several", "whole, several"],
)
def test_with_flip_the_mask_of_a_mirrored_image_is_the_mirrored_mask(
    eval: EvalConfig, size_hw: tuple[int, int]
) -> None:
    image = picture(*size_hw)
    predictor = Predictor(Quarter(), THREE, eval=eval, device="cpu")
    one, other = predictor.logits(image), predictor.logits(np.ascontiguousarray(image[:, ::-1]))
    np.testing.assert_allclose(np.exp(other), np.exp(one[:, :, ::-1]), atol=1e-5)


def test_looks_at_nothing_and_unknown_blends_are_refused_before_the_first_image() -> None:
    for words, message in (
        ({"scales": ()}, "An image has to be looked at"),
        ({"scales": (0.0, 1.0)}, "eval.scales is \\[0.0,1.0\\]"),
        ({"blend": "smoth"}, "There is no blend 'smoth'"),
    ):
        with pytest.raises(UsageError, match=message):
            Predictor(Quarter(), THREE, device="cpu").with_eval(EvalConfig(**words))  # type: ignore[arg-type]


def test_more_than_255_classes_give_16_bit_masks() -> None:
    classes = Classes(tuple(f"class {i}" for i in range(300)))
    network = nn.Conv2d(3, 300, 1)
    nn.init.zeros_(network.weight)
    network.bias.data = torch.arange(300.0)
    mask = Predictor(network, classes, device="cpu", eval=windows(8, 8))(picture(9, 9)).mask
    assert mask.dtype == np.uint16
    assert (mask == 299).all()


# what goes in -----------------------------------------------------------------------------------------------


def test_path_bytes_pil_and_array_are_one_image(tmp_path: Path) -> None:
    image, path = picture(17, 23), tmp_path / "street.v2.png"
    Image.fromarray(image).save(path)
    predictor = Predictor(Thresholds(), THREE, device="cpu", name="runs/demo")
    given = [path, str(path), Source(path, "aachen/0001"), path.read_bytes(), Image.open(path), image]
    predictions = predictor(given)
    assert [p.name for p in predictions] == [
        "street.v2",
        "street.v2",
        "aachen/0001",
        "000003",
        "street.v2",
        "000005",
    ]
    assert all((p.mask == thresholded(image)).all() for p in predictions)
    assert {p.model for p in predictions} == {"runs/demo"}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_white_is_one_whatever_the_dtype(dtype: Any) -> None:
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    image = (np.array([[0, 0.5, 1]])[:, :, None].repeat(3, axis=2) * white).astype(dtype)
    assert Predictor(Thresholds(), THREE, device="cpu")(image).mask.tolist() == [[0, 1, 2]]


def test_grey_is_shown_as_rgb_and_transparency_is_dropped() -> None:
    grey = np.array([[0, 128, 255]], np.uint8)
    predictor = Predictor(Thresholds(), THREE, device="cpu")
    assert predictor(Image.fromarray(grey)).mask.tolist() == [[0, 1, 2]]
    assert predictor(Image.fromarray(grey).convert("RGBA")).mask.tolist() == [[0, 1, 2]]


def test_other_channels_than_the_networks_are_refused() -> None:
    predictor = Predictor(Thresholds(), THREE, device="cpu")
    with pytest.raises(
        ImageFormatError, match="The image 'image' has 5 channels instead of 3.\n.*\n  expected: 3 channels"
    ):
        predictor(np.zeros((8, 8, 5), np.uint8))
    with pytest.raises(ImageFormatError, match="image.transpose\\(1, 2, 0\\) puts them last"):
        predictor(np.zeros((3, 8, 8), np.uint8))


def test_five_channels_are_as_good_as_three() -> None:
    image = np.random.default_rng(0).integers(0, 65536, (12, 10, 5)).astype(np.uint16)
    network = nn.Conv2d(5, 5, 1, bias=False)
    network.weight.data = torch.eye(5)[:, :, None, None]
    predictor = Predictor(network, Classes(tuple("abcde")), channels=5, device="cpu", eval=windows(8, 5))
    assert (predictor(image).mask == image.argmax(2)).all()


def test_neighbours_of_one_size_share_a_pass_and_keep_their_order() -> None:
    network = Thresholds()
    sizes = [(8, 9), (8, 9), (8, 9), (9, 8), (8, 9)]
    images = [picture(*size, seed=i) for i, size in enumerate(sizes)]
    predictions = Predictor(network, THREE, eval=EvalConfig(batch_size=2), device="cpu")(images)
    assert [shape[0] for shape in network.shapes] == [2, 1, 1, 1]
    assert all((p.mask == thresholded(image)).all() for p, image in zip(predictions, images, strict=True))


def test_images_of_different_sizes_share_a_pass_where_the_network_sees_one() -> None:
    network = Thresholds()
    data = DataConfig(resize="exact", resize_hw=(32, 32))
    predictor = Predictor(network, THREE, data=data, eval=EvalConfig(batch_size=4), device="cpu")
    masks = [p.mask.shape for p in predictor([picture(8, 9), picture(40, 50)])]
    assert network.shapes == [(2, 3, 32, 32)]
    assert masks == [(8, 9), (40, 50)]


def test_a_stream_reads_a_few_images_ahead_and_no_more() -> None:
    taken = 0

    def images() -> Iterator[np.ndarray]:
        nonlocal taken
        for i in range(50):
            taken += 1
            yield picture(8, 8, seed=i)

    stream = Predictor(Thresholds(), THREE, device="cpu").stream(images())
    assert taken == 0
    assert (next(stream).mask == thresholded(picture(8, 8, seed=0))).all()
    assert 1 < taken <= 5
    stream.close()


@pytest.mark.parametrize("passes", [2, 5])
def test_passes_beside_each_other_answer_in_order(passes: int, tmp_path: Path) -> None:
    """Later images are seen sooner, and everybody's answer is his own."""
    inside, most, lock = 0, 0, threading.Lock()

    class Slow(Thresholds):
        def forward(self, image_BCHW: Tensor) -> Output:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
                turn = len(self.shapes)
                self.shapes.append(tuple(image_BCHW.shape))
            threading.Event().wait(0.02 if turn % passes == 0 else 0.001)
            with lock:
                inside -= 1
            return Output(
                torch.cat([-(((image_BCHW[:, :1] - level) * 8) ** 2) for level in (0.0, 0.5, 1.0)], dim=1)
            )

    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    images = [picture(8, 8, seed=seed) for seed in range(20)]
    left_out: list[Any] = []
    predictor = Predictor(Slow(), THREE, device="cpu")
    stream = predictor.stream(
        [*images[:7], bad, *images[7:]], passes=passes, on_error=lambda image, error: left_out.append(image)
    )
    for prediction, image in zip(stream, images, strict=True):
        assert (prediction.mask == thresholded(image)).all()
    assert left_out == [bad]
    assert 1 < most <= passes


def test_a_damaged_file_stops_a_stream_or_is_handed_over(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.jpg"
    Image.fromarray(picture(8, 8)).save(good)
    bad.write_bytes(b"\xff\xd8\xff\xe0 no more")
    predictor = Predictor(Thresholds(), THREE, device="cpu")
    with pytest.raises(UnreadableFileError, match="bad.jpg"):
        list(predictor.stream([good, bad, good]))
    left_out: list[tuple[Any, TerrazzoError]] = []
    kept = list(
        predictor.stream([good, bad, good], on_error=lambda image, error: left_out.append((image, error)))
    )
    assert [p.name for p in kept] == ["good", "good"]
    assert [image for image, _ in left_out] == [bad]


# memory, modes, threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [{}, {"blend": "smooth", "flip": True}], ids=["one look", "two"])
def test_memory_of_windows_does_not_grow_with_the_height(
    looks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "BAND_BYTES", 1 << 20)
    classes = Classes(tuple(f"class {i}" for i in range(16)))
    predictor = Predictor(Quarter(16), classes, eval=windows(128, 96, **looks), device="cpu")

    def peak(height: int) -> int:
        image = np.zeros((height, 300, 3), np.uint8)
        tracemalloc.start()
        mask = predictor(image).mask
        grown = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return grown - mask.nbytes

    short, tall = peak(500), peak(3000)
    whole = 4 * 16 * 3000 * 300  # bytes of all logits at full size
    assert tall < 1.1 * short
    assert tall < whole / 8


class Moody(nn.Module):
    """Answers by its mode: class 0 in evaluation, class 1 in training; slow enough for threads to meet in it."""

    def __init__(self, meet: threading.Barrier | None = None) -> None:
        super().__init__()
        self.frozen, self.meet = nn.BatchNorm2d(3), meet

    def forward(self, image_BCHW: Tensor) -> Tensor:
        if self.meet is not None:
            self.meet.wait(timeout=20)
        logits = torch.zeros(image_BCHW.shape[0], 2, *image_BCHW.shape[2:])
        logits[:, int(self.training)] = 1
        return logits


def test_a_network_in_training_is_evaluated_and_left_in_training() -> None:
    network = Moody()
    network.train()
    network.frozen.eval()  # as a frozen backbone has it
    assert (Predictor(network, Classes(("a", "b")), device="cpu")(picture(4, 4)).mask == 0).all()
    assert network.training
    assert not network.frozen.training


def test_a_network_in_training_comes_back_to_it_after_an_error_too() -> None:
    class Broken(Moody):
        def forward(self, image_BCHW: Tensor) -> Tensor:
            raise ValueError("broken")

    network = Broken().train()
    with pytest.raises(ValueError, match="broken"):
        Predictor(network, Classes(("a", "b")), device="cpu")(picture(4, 4))
    assert network.training


def test_threads_share_a_predictor_without_spoiling_the_mode() -> None:
    network = Moody(meet=threading.Barrier(3)).train()  # three calls are inside at once, or it breaks
    predictor = Predictor(network, Classes(("a", "b")), device="cpu")
    masks: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: masks.append(predictor(picture(4, 4)).mask)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(masks) == 6
    assert not np.any(masks)
    assert network.training


def test_no_gradient_is_recorded() -> None:
    network = Quarter()
    Predictor(network, THREE, device="cpu")(picture(8, 8))
    assert network.conv.weight.grad is None
    assert network.conv.weight.requires_grad


def test_bf16_is_a_rounding_of_f32() -> None:
    image, network = picture(16, 16), Quarter()
    exact = Predictor(network, THREE, device="cpu").logits(image)
    rounded = Predictor(network, THREE, device="cpu", precision="bf16").logits(image)
    assert rounded.dtype == np.float32
    error = np.abs(exact - rounded).max() / np.abs(exact).max()
    assert 0 < error < 0.02


# what is refused --------------------------------------------------------------------------------------------


def test_a_network_of_other_classes_is_refused() -> None:
    with pytest.raises(WeightsError, match="found: logits of 3 classes\n  expected: 2, as there are classes"):
        Predictor(Thresholds(), Classes(("a", "b")), device="cpu")(picture(4, 4))


def test_logits_that_are_not_numbers_are_refused_not_called_class_0() -> None:
    network = Quarter()
    network.conv.bias.data[1] = float("nan")
    with pytest.raises(WeightsError, match="not a number \\(NaN\\)"):
        Predictor(network, THREE, device="cpu")(picture(8, 8))


def test_what_is_no_logits_is_refused() -> None:
    class Pooled(nn.Module):
        def forward(self, image_BCHW: Tensor) -> Tensor:
            return image_BCHW.mean((2, 3))

    with pytest.raises(UsageError, match="did not return logits.\n  found: a tensor of shape \\(1, 3\\)"):
        Predictor(Pooled(), THREE, device="cpu")(picture(4, 4))


def test_windows_that_skip_pixels_are_refused_before_the_first_image() -> None:
    with pytest.raises(UsageError, match="Windows of 16 pixels cannot move by 17"):
        Predictor(Thresholds(), THREE, eval=windows(16, 17), device="cpu")
    with pytest.raises(UsageError, match="cannot move by 17"):
        Predictor(Thresholds(), THREE, device="cpu").with_eval(windows(16, 17))


# loading ----------------------------------------------------------------------------------------------------

TINY = Size((1, 1, 1, 1), (8, 8, 8, 8), 8, num_heads=(1, 1, 2, 2))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model as a run leaves it: a SegFormer, its classes, its recipe."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    torch.manual_seed(0)
    network = SegFormer(TINY, 3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).eval()
    recipe = Recipe(
        name="tiny",
        summary="For tests.",
        data=DataConfig(resize="short", resize_hw=(32, 32)),
        eval=EvalConfig(flip=True, batch_size=2),
    )
    remap = Remap({0: None, 7: 0, 8: 1, 11: 2}, 3)
    terrazzo = {"recipe": recipe.to_json(), "remap": remap.to_json()}
    save_model(
        folder,
        network,
        classes=THREE,
        preprocessing={"resize": "short", "resize_hw": (32, 32)},
        terrazzo=terrazzo,
    )
    return folder


def test_a_loaded_model_looks_as_it_was_trained_to(model_folder: Path) -> None:
    predictor = load(model_folder, device="cpu")
    assert (predictor.data.resize, predictor.data.resize_hw) == ("short", (32, 32))
    assert predictor.eval == EvalConfig(flip=True, batch_size=2)
    assert predictor.classes == THREE
    assert predictor.name == str(model_folder)
    assert predictor.channels == 3
    image = picture(40, 60)
    prediction = predictor(image)
    assert prediction.mask.shape == (40, 60)
    assert set(np.unique(prediction.raw_mask())) <= {7, 8, 11}


def test_the_network_of_a_predictor_is_the_torch_module(model_folder: Path) -> None:
    predictor = load(str(model_folder), device="cpu")
    logits = predictor.network(torch.zeros(1, 3, 64, 32)).logits
    assert logits.shape == (1, 3, 16, 8)


def test_a_model_of_transformers_sees_the_size_its_processor_says(model_folder: Path, tmp_path: Path) -> None:
    network = SegFormer(TINY, 3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    save_model(tmp_path, network, classes=THREE, preprocessing={"resize": "exact", "resize_hw": (64, 48)})
    (tmp_path / "terrazzo.json").unlink()  # what is left is what transformers writes
    predictor = load(tmp_path, device="cpu")
    assert (predictor.data.resize, predictor.data.resize_hw) == ("exact", (64, 48))
    assert predictor.remap is None
    assert predictor.classes.names == THREE.names


def test_a_processor_that_is_called_fast_resizes_in_torchvisions_rounding(tmp_path: Path) -> None:
    network = SegFormer(TINY, 3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    save_model(tmp_path, network, classes=THREE, preprocessing={"resize": "exact", "resize_hw": (64, 48)})
    (tmp_path / "terrazzo.json").unlink()
    image, seen = picture(150, 131), {}
    for name, rounding in (
        ("SegformerImageProcessor", "pillow"),
        ("SegformerImageProcessorFast", "torchvision"),
    ):
        rewrite(tmp_path / "preprocessor_config.json", image_processor_type=name)
        predictor = load(tmp_path, device="cpu")
        assert predictor.data.rounding == rounding
        seen[rounding] = np.rint(predictor.eye.input(image) * 255)
        resized = crop_resize_reference(image, (0, 0, 150, 131), (64, 48), rounding=predictor.data.rounding)
        np.testing.assert_array_equal(seen[rounding][0], resized.transpose(2, 0, 1))
    differ = np.abs(seen["pillow"] - seen["torchvision"])
    assert differ.max() == 1
    assert differ.mean() < 0.01


def test_a_rounding_that_is_none_is_told_with_the_model(tmp_path: Path) -> None:
    network = SegFormer(TINY, 3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    for key, wrong in (("rounding", "opencv"), ("interpolation", ["bilinear"])):
        save_model(tmp_path, network, classes=THREE, preprocessing={"resize": "exact", key: wrong})
        with pytest.raises(WeightsError, match=re.escape(f"{wrong!r} where one of ")) as caught:
            load(tmp_path, device="cpu")
        assert str(tmp_path) in str(caught.value)


def test_a_run_stands_for_its_best_checkpoint(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    class FakeRun:
        @staticmethod
        def open(path: Path) -> Any:
            asked.append(path)
            return type("Opened", (), {"best_folder": staticmethod(lambda: model_folder)})

    monkeypatch.setattr(inference, "Run", FakeRun)
    run = tmp_path / "demo"
    run.mkdir()
    (run / "recipe.json").write_text("{}")
    predictor = load(run, device="cpu")
    assert asked == [run]
    assert predictor.name == str(run)


def test_a_run_that_is_not_there_gets_its_nearest_neighbour(tmp_path: Path) -> None:
    for name in ("demo", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").write_text("{}")
    with pytest.raises(MissingPathError) as caught:
        load(tmp_path / "demoo")
    assert f"There is no run or model {tmp_path / 'demoo'}." in str(caught.value)
    assert f"found: 2 runs in {tmp_path}\n  Did you mean {tmp_path / 'demo'}" in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_backend_device_or_precision_gets_its_choices(model_folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="There is no backend 'torhc'.\n.*\n  Did you mean 'torch'"):
        load(model_folder, backend="torhc")
    with pytest.raises(UnknownNameError, match="There is no device 'gpu'"):
        load(model_folder, device="gpu")
    with pytest.raises(UnknownNameError, match="There is no precision 'fp8'"):
        load(model_folder, precision="fp8", device="cpu")


def test_loading_imports_neither_transformers_nor_timm(model_folder: Path) -> None:
    code = (
        "import sys, terrazzo as tz; tz.load(sys.argv[1], device='cpu'); "
        "print([m for m in ('transformers', 'timm', 'torchvision', 'datasets', 'accelerate') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model_folder)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


# the two small helpers --------------------------------------------------------------------------------------


def test_ahead_keeps_the_order_and_raises_in_turn() -> None:
    def double(x: int) -> int:
        if x == 3:
            raise ValueError("three")
        return 2 * x

    assert list(ahead(double, [1, 2, 4], depth=2, threads=2)) == [2, 4, 8]
    results = ahead(double, [1, 2, 3, 4], depth=4)
    assert [next(results), next(results)] == [2, 4]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert list(ahead(double, [], depth=2)) == []


@pytest.mark.parametrize(
    ("key", "size", "expected"),
    [
        (lambda x: 0, 2, [[1, 1], [2, 2], [1]]),
        (lambda x: x, 3, [[1, 1], [2, 2], [1]]),
        (lambda x: x, 1, [[1], [1], [2], [2], [1]]),
    ],
)
def test_batches_are_neighbours_with_one_key(
    key: Callable[[int], int], size: int, expected: list[list[int]]
) -> None:
    assert list(batches([1, 1, 2, 2, 1], key, size)) == expected
