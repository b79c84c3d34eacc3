"""The one eye: what goes in, streams, modes and threads, what is refused, and what is loaded."""

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
from PIL import Image
from torch import Tensor, nn

from known_networks import THREE, Quarter, Thresholds, picture, thresholded, windows
from terrazzo import inference, views
from terrazzo.classes import Classes, Remap
from terrazzo.data.transforms import DataConfig
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
