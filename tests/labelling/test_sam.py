"""SAM as terrazzo asks it, beside transformers' own way; where its weights are looked for; what is kept."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrazzo.errors import MissingExtraError, MissingPathError, UnreadableFileError, WeightsError
from terrazzo.labelling import sam
from terrazzo.labelling.kept import Kept
from terrazzo.labelling.prompts import Prompt
from terrazzo.labelling.sam import Sam, weights
from tinysam import SIDE, write_tiny_sam, write_tiny_sam3

transformers = pytest.importorskip("transformers")
IMAGE = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
PROMPTS = [
    pytest.param(Prompt(None, ((40.0, 50.0),), ()), id="point"),
    pytest.param(Prompt((20, 30, 90, 100), (), ()), id="box"),
    pytest.param(Prompt((20, 30, 90, 100), ((40.0, 50.0),), ((80.0, 90.0), (30.0, 35.0))), id="both"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_sam(tmp_path_factory.mktemp("sam"))


def theirs(folder: Path, image: np.ndarray, prompt: Prompt) -> np.ndarray:
    """The mask by transformers' processor and model, image and prompt in one call."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    called = "Sam3" if "sam3" in (folder / "config.json").read_text() else "Sam2"
    tracker = called.replace("3", "3Tracker")
    model: Any = getattr(transformers, f"{tracker}Model").from_pretrained(folder).eval()
    side = model.config.prompt_encoder_config.image_size
    reads = getattr(transformers, f"{called}ImageProcessor")(
        size={"height": side, "width": side}, mask_size={"height": side // 4, "width": side // 4}
    )
    processor: Any = getattr(transformers, f"{tracker}Processor")(reads)
    words: dict[str, Any] = {}
    if prompt.points:
        words["input_points"] = [[[list(point) for point in prompt.points]]]
        words["input_labels"] = [[[1] * len(prompt.positive) + [0] * len(prompt.negative)]]
    if prompt.box:
        words["input_boxes"] = [[list(map(float, prompt.box))]]
    inputs = processor(images=image, return_tensors="pt", **words)
    inputs = {name: value for name, value in inputs.items() if name != "original_sizes"}
    is_open = prompt.box is None and len(prompt.points) == 1
    with torch.inference_mode():
        said = model(**inputs, multimask_output=is_open)
    best = int(said.iou_scores[0, 0].argmax())
    found = processor.post_process_masks(said.pred_masks, [image.shape[:2]])[0][0, best]
    return np.asarray(found)


def whole(proposal: Any, size_hw: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size_hw, bool)
    h, w = proposal.mask.shape
    mask[proposal.y : proposal.y + h, proposal.x : proposal.x + w] = proposal.mask
    return mask


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_answer_is_that_of_transformers(folder: Path, prompt: Prompt) -> None:
    model = Sam(folder)
    maps = sam.unpack(sam.pack(model.embed(IMAGE)))  # kept as float16, and read back
    found = whole(model.answer("image", maps, prompt, (SIDE, SIDE)), (SIDE, SIDE))
    truth = theirs(folder, IMAGE, prompt)
    assert 0.02 < truth.mean() < 0.98  # noise, but neither all nor nothing
    assert (found != truth).mean() < 0.01


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_answer_of_sam_3_is_that_of_transformers(tmp_path: Path, prompt: Prompt) -> None:
    folder = write_tiny_sam3(tmp_path)
    image = IMAGE[:112, :112]
    model = Sam(folder)
    assert model.name == "SAM 3"
    found = whole(model.answer("image", model.embed(image), prompt, (112, 112)), (112, 112))
    truth = theirs(folder, image, prompt)
    assert truth.any() and not truth.all() and (found != truth).mean() < 0.01


def test_an_image_of_another_size_is_brought_to_the_square_as_they_do(folder: Path) -> None:
    image = np.asarray(
        np.kron(np.random.default_rng(1).integers(0, 255, (15, 25, 3)), np.ones((20, 20, 1))), np.uint8
    )
    prompt = Prompt((100, 50, 400, 250), ((200.0, 150.0),), ())
    model = Sam(folder)
    found = whole(model.answer("other", model.embed(image), prompt, (300, 500)), (300, 500))
    truth = theirs(folder, image, prompt)
    assert 0.02 < truth.mean() < 0.98 and (found != truth).mean() < 0.03


def test_a_further_point_begins_from_the_mask_before_it(folder: Path) -> None:
    first, second = Prompt(None, ((40.0, 50.0),), ()), Prompt(None, ((40.0, 50.0),), ((80.0, 90.0),))
    model = Sam(folder)
    maps = model.embed(IMAGE)
    fresh = whole(model.answer("a", maps, second, (SIDE, SIDE)), (SIDE, SIDE))
    model.answer("b", maps, first, (SIDE, SIDE))
    refined = whole(model.answer("b", maps, second, (SIDE, SIDE)), (SIDE, SIDE))
    of_another = whole(model.answer("c", maps, second, (SIDE, SIDE)), (SIDE, SIDE))
    assert (refined != fresh).any()
    assert np.array_equal(of_another, fresh)  # nothing is taken over from another image


def test_mean_and_deviation_are_those_of_the_folder(folder: Path, tmp_path: Path) -> None:
    for name in os.listdir(folder):
        os.link(folder / name, tmp_path / name)
    plain = Sam(tmp_path).embed(IMAGE)
    told = {"image_processor": {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}}
    (tmp_path / "processor_config.json").write_text(json.dumps(told))
    assert (Sam(tmp_path).embed(IMAGE)[0] != plain[0]).any()


# where weights are ------------------------------------------------------------------------------------------------


def test_weights_are_looked_for_and_never_fetched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.delenv(sam.VARIABLE, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert weights() is None
    there = tmp_path / "models--facebook--sam2.1-hiera-small"
    (there / "refs").mkdir(parents=True)
    (there / "refs" / "main").write_text("abc")
    (there / "snapshots" / "abc").mkdir(parents=True)
    (there / "snapshots" / "abc" / "config.json").write_text("{}")
    assert weights() is None  # half fetched
    (there / "snapshots" / "abc" / "model.safetensors").write_text("")
    assert weights() == there / "snapshots" / "abc"
    monkeypatch.setenv(sam.VARIABLE, str(folder))
    assert weights() == folder
    monkeypatch.setenv(sam.VARIABLE, "facebook/sam2.1-hiera-small")
    assert weights() == there / "snapshots" / "abc"
    monkeypatch.setenv(sam.VARIABLE, "none")
    assert weights() is None


@pytest.mark.parametrize("name", ["facebook/sam2.1-hiera-large", "nowhere", "a/b/c", "/nowhere/at/all"])
def test_weights_that_are_named_and_not_there_are_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv(sam.VARIABLE, name)
    with pytest.raises(MissingPathError, match=r"hf download facebook/sam2\.1-hiera-tiny"):
        weights()


def test_without_transformers_there_are_no_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam, "_has_transformers", lambda: False)
    monkeypatch.delenv(sam.VARIABLE, raising=False)
    assert weights() is None
    monkeypatch.setenv(sam.VARIABLE, str(folder))
    with pytest.raises(MissingExtraError, match=r"terrazzo\[transformers\]"):
        weights()


def test_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "segformer"}')
    with pytest.raises(WeightsError, match=r"another model than SAM.*\n.*segformer"):
        Sam(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UnreadableFileError, match="holds no model"):
        Sam(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"\0" * 9, b"x" * 100])
def test_a_damaged_embedding_is_refused(damage: bytes) -> None:
    with pytest.raises(UnreadableFileError, match="kept embedding cannot be read"):
        sam.unpack(damage)
    good = sam.pack([np.zeros((2, 4, 4), np.float16)])
    with pytest.raises(UnreadableFileError):
        sam.unpack(good[:-3])


# what is kept -----------------------------------------------------------------------------------------------------


def test_what_lay_unused_longest_goes_first(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept", 1000, ".cells")
    keys = [f"{number:032x}" for number in range(5)]
    for age, key in enumerate(keys[:3]):
        assert kept.put(key, bytes(300))
        os.utime(tmp_path / "kept" / f"{key}.cells", (1000 + age, 1000 + age))
    assert kept.get(keys[0]) == bytes(300)  # used: now the newest
    kept.put(keys[3], bytes(300))
    assert kept.get(keys[1]) is None and kept.get(keys[2]) is None  # down to three quarters
    assert kept.get(keys[0]) is not None and kept.get(keys[3]) is not None
    kept.drop(keys[0])
    assert kept.get(keys[0]) is None


def test_what_cannot_be_kept_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not Kept(tmp_path / "file", 1000, ".cells").put("0" * 32, b"x")
    assert not Kept(tmp_path / "kept", 10, ".cells").put("0" * 32, bytes(11))
    assert not (tmp_path / "kept").exists()
