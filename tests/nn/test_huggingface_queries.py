"""Networks of transformers that answer queries, each with a mask: scores of pixels as transformers counts them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import terrazzo as tz
from huggingface_folders import BY_QUERIES, CLASSES, PROCESSOR, built, normalised, saved
from terrazzo.errors import UsageError
from terrazzo.nn.huggingface import semantic_logits
from terrazzo.nn.weights import read_model

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install transformers"
)


@pytest.fixture(scope="module", params=sorted(BY_QUERIES))
def by_queries(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp(request.param)
    return folder, saved(folder, request.param)


def test_queries_become_the_class_scores_that_transformers_counts(by_queries: tuple[Path, Any]) -> None:
    """The scores before any resizing: exp of our logits are the sums over queries, class by class."""
    folder, model = by_queries
    found = read_model(folder)
    image = torch.rand(2, 3, 64, 64)
    given = {}
    if found.network.task is not None:
        given["task_inputs"] = task_of(folder).expand(2, -1)
    with torch.no_grad():
        output = model(pixel_values=normalised(image), **given)
        classes = output.class_queries_logits.softmax(-1)[..., :-1]
        expected = torch.einsum("bqc,bqhw->bchw", classes, output.masks_queries_logits.sigmoid())
        logits = found.network(image).logits
    assert torch.allclose(logits.exp(), expected, rtol=1e-4)
    assert found.classes.names == CLASSES.names


def task_of(folder: Path) -> Tensor:
    processor = transformers.OneFormerProcessor(
        image_processor=transformers.OneFormerImageProcessor(class_info_file=None),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder), task_seq_length=20,
    )  # fmt: skip
    tokens: Tensor = processor._preprocess_text(["the task is semantic"], max_length=20)
    return tokens


@pytest.mark.parametrize(
    "name", ["Mask2FormerImageProcessor", "MaskFormerImageProcessor", "EomtImageProcessor"]
)
def test_the_class_of_every_pixel_is_transformers_own(name: str) -> None:
    """At the size to which they resize masks first, so that nothing but the scores is compared."""
    torch.manual_seed(0)
    output = transformers.models.mask2former.modeling_mask2former.Mask2FormerForUniversalSegmentationOutput(
        class_queries_logits=3 * torch.randn(2, 20, 8), masks_queries_logits=3 * torch.randn(2, 20, 384, 384)
    )
    output.patch_offsets = None
    processor = getattr(transformers, name)()
    sized = {"target_sizes": [(384, 384)] * 2} | (
        {"size": {"shortest_edge": 384, "longest_edge": 384}} if "Eomt" in name else {}
    )
    expected = torch.stack(processor.post_process_semantic_segmentation(output, **sized))
    logits = semantic_logits(output.class_queries_logits, output.masks_queries_logits)
    assert (logits.argmax(1) == expected).float().mean() >= 0.99999


def test_scores_too_small_for_a_float_keep_their_order() -> None:
    classes = torch.tensor([[[0.0, -200.0, -400.0, -600.0], [-300.0, -500.0, -100.0, 0.0]]])
    masks = torch.tensor([[[[-150.0, 90.0]], [[-160.0, -90.0]]]])
    logits = semantic_logits(classes, masks)
    reference = torch.logsumexp(
        classes.double().log_softmax(-1)[..., :-1, None, None]
        + torch.nn.functional.logsigmoid(masks.double())[:, :, None],
        dim=1,
    )
    assert torch.isfinite(logits).all()
    assert torch.equal(logits.argmax(1), reference.argmax(1))
    assert torch.allclose(logits[0, :, 0, 0].double(), reference[0, :, 0, 0], rtol=1e-5)


def test_masks_by_queries_are_predicted_for_files(by_queries: tuple[Path, Any], boxes: Path) -> None:
    folder, _ = by_queries
    report = tz.evaluate(folder, data=boxes, limit=1)
    assert 0 <= report.miou <= 1


def test_one_of_one_size_looks_at_larger_images_in_windows(tmp_path: Path) -> None:
    saved(tmp_path, "eomt")
    split = PROCESSOR | {"image_processor_type": "EomtImageProcessor", "do_split_image": True, "do_resize": True,
                         "size": {"shortest_edge": 64, "longest_edge": None}}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(split))
    predictor = tz.load(tmp_path)
    assert (predictor.eval.inference, predictor.eval.window_hw) == ("windows", (64, 64))
    assert predictor(np.zeros((70, 150, 3), np.uint8)).mask.shape == (70, 150)
    with pytest.raises(UsageError, match="sees images of 64x64 pixels, and smaller ones padded"):
        predictor.network(torch.rand(1, 3, 64, 65))


def test_queries_are_not_trained_here(by_queries: tuple[Path, Any]) -> None:
    with pytest.raises(UsageError, match="predicts masks by queries, and is not trained here"):
        built(by_queries[0])
