"""Overrides reach fields by name and type; all that is wrong with them is told at once, with what to type instead."""

from dataclasses import FrozenInstanceError, replace

import pytest

from recipe_at_hand import MINE, refused
from terrazzo.fields import get, leaves, parse, to_text
from terrazzo.recipe import Recipe


def test_overrides_reach_leaves_by_their_type() -> None:
    changed = MINE.with_overrides(
        [
            "train.steps=2000",
            "data.crop_hw=256x320",
            "data.scale=[0.75, 1.5]",
            "model.pretrained=nvidia/mit-b0",
            "optim.lr=1e-3",
            "eval.flip=yes",
            "loss.class_weights=enet",
            "loss.weights=1,2.5",
            "train.max_grad_norm=null",
            "data.merge=car+truck=vehicle,rider",
        ]
    )
    assert changed == replace(
        MINE,
        model=replace(MINE.model, pretrained="nvidia/mit-b0"),
        data=replace(MINE.data, crop_hw=(256, 320), scale=(0.75, 1.5), merge=("car+truck=vehicle", "rider")),
        loss=replace(MINE.loss, class_weights="enet", weights=(1.0, 2.5)),
        optim=replace(MINE.optim, lr=0.001),
        train=replace(MINE.train, steps=2000, max_grad_norm=None),
        eval=replace(MINE.eval, flip=True),
    )
    assert MINE.train.steps == 100  # the recipe itself is never changed
    with pytest.raises(FrozenInstanceError):
        MINE.train.steps = 5  # type: ignore[misc]


def test_every_leaf_can_be_overridden_with_the_value_it_has() -> None:
    every = [f"{path}={to_text(get(MINE, path), leaf.annotation)}" for path, leaf in leaves(Recipe).items()]
    assert len(every) > 50
    assert MINE.with_overrides(every) == MINE


def test_epochs_take_the_place_of_steps_and_the_reverse() -> None:
    by_epochs = MINE.with_overrides(["train.epochs=5"])
    assert (by_epochs.train.steps, by_epochs.train.epochs) == (None, 5.0)
    by_steps = by_epochs.with_overrides(["train.steps=9"])
    assert (by_steps.train.steps, by_steps.train.epochs) == (9, None)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.stepz=3", "There is no recipe field 'train.stepz'.\n  Did you mean train.steps?"),
        ("steps=3", "There is no recipe field 'steps'.\n  Did you mean train.steps?"),
        ("optimizer.lr=3", "There is no recipe field 'optimizer.lr'.\n  Did you mean optim.lr?"),
        (
            "data.crop=64x64",
            "There is no recipe field 'data.crop'.\n  Did you mean data.crop_hw or data.rare_crops?",
        ),
        ("eval.batch=2", "There is no recipe field 'eval.batch'.\n  Did you mean eval.batch_size?"),
        (
            "batch_size=2",
            "There is no recipe field 'batch_size'.\n  Did you mean train.batch_size or eval.batch_size?",
        ),
        (
            "zzz=1",
            "There is no recipe field 'zzz'.\n  Every field with its value:\n  terrazzo recipes mine",
        ),
        ("train.steps", "The override 'train.steps' has no value.\n  expected: train.steps=100"),
        (
            "train.steps=lots",
            "train.steps cannot be 'lots'.\n  expected: a whole number or null, such as train.steps=100",
        ),
        (
            "train.steps=1.5",
            "train.steps cannot be '1.5'.\n  expected: a whole number or null, such as train.steps=100",
        ),
        ("optim.lr=fast", "optim.lr cannot be 'fast'.\n  expected: a number, such as optim.lr=6e-05"),
        (
            "eval.flip=maybe",
            "eval.flip cannot be 'maybe'.\n  expected: true or false, such as eval.flip=false",
        ),
        (
            "optim.schedule=cosine",
            "optim.schedule cannot be 'cosine'.\n  expected: one of poly, constant, such as optim.schedule=poly",
        ),
        (
            "data.crop_hw=64",
            "data.crop_hw cannot be '64'.\n  expected: two whole numbers, such as data.crop_hw=64x96",
        ),
        (
            "train.epochs=soon",
            "train.epochs cannot be 'soon'.\n  expected: a number or null, such as train.epochs=0.001",
        ),
        ("train.batch_size=0", "train.batch_size is 0.\n  expected: at least 1"),
        ("data.crop_hw=16x96", "data.crop_hw is 16x96.\n  expected: each number at least 32"),
        ("data.flip=1.5", "data.flip is 1.5.\n  expected: from 0 to 1"),
        ("model.dropout=1", "model.dropout is 1.0.\n  expected: at least 0 and below 1"),
        ("optim.lr=0", "optim.lr is 0.0.\n  expected: above 0"),
        ("loss.lovas=1", "There is no recipe field 'loss.lovas'.\n  Did you mean loss.lovasz?"),
        ("loss.dice=-1", "loss.dice is -1.0.\n  expected: at least 0"),
        ("loss.tversky_beta=0", "loss.tversky_beta is 0.0.\n  expected: above 0"),
        (
            "loss.cross_entropy=0",
            "Nothing is minimised: every term of the loss has weight 0.\n  expected: a weight above 0 for one of "
            "loss.cross_entropy, loss.ohem, loss.focal, loss.boundary, loss.dice, loss.tversky, loss.lovasz",
        ),
        ("data.scale=2,0.5", "data.scale is [2.0,0.5].\n  expected: the smallest factor, then the largest"),
    ],
)
def test_a_wrong_override_is_told_with_what_to_type(override: str, sentence: str) -> None:
    assert refused(lambda: MINE.with_overrides([override])) == sentence


@pytest.mark.parametrize("other", ["data.interpolation=bicubic", "data.rounding=torchvision"])
def test_resizing_as_opencv_does_is_not_resizing_as_another(other: str) -> None:
    said = refused(lambda: MINE.with_overrides(["data.resize=sides", other]))
    assert (
        "data.resize=sides evaluates and predicts with OpenCV's bilinear resizing, and with no other." in said
    )
    assert other in said
    assert MINE.with_overrides(["data.resize=sides"]).data.resize == "sides"
    assert MINE.with_overrides(["data.resize=short", other]).data.resize == "short"


def test_what_is_decoded_for_each_crop_anew_is_not_kept() -> None:
    wrong = ["data.scaled_decoding=true", "data.cache=disk"]
    assert "found: data.scaled_decoding=true and data.cache=disk" in refused(
        lambda: MINE.with_overrides(wrong)
    )
    assert MINE.with_overrides(wrong[:1]).data.scaled_decoding
    assert not MINE.data.scaled_decoding


def test_ohem_that_keeps_nothing_is_refused() -> None:
    wrong = ["loss.ohem=1", "loss.ohem_threshold=0", "loss.ohem_min_kept=0"]
    said = refused(lambda: MINE.with_overrides(wrong))
    assert said.startswith(
        "OHEM would keep no pixel.\n  found: loss.ohem_threshold=0.0 and loss.ohem_min_kept=0"
    )


def test_the_example_of_a_wrong_type_can_be_typed() -> None:
    for path, leaf in leaves(Recipe).items():
        if leaf.annotation in (str, str | None) or "str" in str(leaf.annotation):
            continue  # any text is a word
        example = refused(lambda path=path: MINE.with_overrides([f"{path}=???"])).rpartition("such as ")[2]
        name, _, text = example.partition("=")
        assert name == path
        assert parse(text, leaf.annotation) is not None


def test_a_section_is_no_field() -> None:
    said = refused(lambda: MINE.with_overrides(["eval=whole"])).splitlines()
    assert said == [
        "eval is a section of the recipe, not a field.",
        "  expected: one of its fields, such as eval.every=50",
        "  Its fields: eval.every, eval.inference, eval.window_hw, eval.stride_hw, eval.blend, eval.scales, "
        "eval.batch_size, eval.flip, eval.split.",
    ]


def test_all_wrong_overrides_are_told_at_once() -> None:
    wrong = ["train.stepz=1", "optim.lr=fast", "train.keep=-1", "train.steps=5", "train.steps=6"]
    assert refused(lambda: MINE.with_overrides(wrong)).splitlines() == [
        "4 problems in the overrides of recipe 'mine'.",
        "  There is no recipe field 'train.stepz'.",
        "    Did you mean train.steps?",
        "  optim.lr cannot be 'fast'.",
        "    expected: a number, such as optim.lr=6e-05",
        "  train.keep is -1.",
        "    expected: at least 0",
        "  train.steps is given twice.",
        "    expected: once; the second may be a leftover",
    ]


def test_one_string_is_no_list_of_overrides() -> None:
    said = refused(lambda: MINE.with_overrides("train.steps=5"))
    assert said == "Overrides are a list.\n  found: 'train.steps=5'\n  expected: ['train.steps=5']"
