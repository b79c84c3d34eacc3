"""Every pixel gets its class, whole, in windows and in several looks: beside networks whose answer is known."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from known_networks import THREE, Quarter, Thresholds, picture, thresholded, windows
from terrazzo import views
from terrazzo.classes import Classes
from terrazzo.data.transforms import DataConfig, resize_image
from terrazzo.errors import UsageError
from terrazzo.inference import Predictor
from terrazzo.recipe import EvalConfig


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
