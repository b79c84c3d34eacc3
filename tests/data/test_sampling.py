"""Rare classes come as often as the formulas say, in an order that depends on seed and position alone."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import terrazzo as tz
from terrazzo.data import counts
from terrazzo.data.counts import image_class_pixels
from terrazzo.data.sampling import Balanced, Rarity, class_factors, crop_odds, rarity, repeat_factors
from terrazzo.data.transforms import DataConfig, TrainTransform
from terrazzo.errors import RecipeError
from terrazzo.sample import Sample

# 4 images of 3 classes: the first is everywhere, the second in two, the third in one
PIXELS_NK = np.array([[90, 10, 0], [100, 0, 0], [50, 30, 20], [100, 0, 0]])


def test_repeat_factors_by_hand() -> None:
    assert class_factors(PIXELS_NK, 1.0).tolist() == pytest.approx(
        [1.0, 2**0.5, 2.0]
    )  # sqrt(1 / 0.5), sqrt(1 / 0.25)
    assert class_factors(PIXELS_NK, 0.36).tolist() == pytest.approx([1.0, 1.0, 1.2])
    assert repeat_factors(PIXELS_NK, 1.0).tolist() == pytest.approx([2**0.5, 1.0, 2.0, 1.0])
    assert repeat_factors(PIXELS_NK, 0.2).tolist() == [1.0, 1.0, 1.0, 1.0]
    unlabelled = np.array([[0, 0], [4, 0]])
    assert repeat_factors(unlabelled, 1.0).tolist() == pytest.approx([1.0, 2**0.5])


def test_an_epoch_holds_each_image_as_often_as_its_factor_rounded_up_or_down() -> None:
    factors = np.array([1.0, 3.2, 1.0, 1.5, 1.0, 1.0, 2.0])
    order, epochs = Balanced(factors, seed=5), 400
    shares = 7 * factors / factors.sum()
    total = np.zeros(7)
    for epoch in range(epochs):
        taken = [order(position)[1] for position in range(7 * epoch, 7 * epoch + 7)]
        count = np.bincount(taken, minlength=7)
        assert (np.abs(count - shares) < 1).all()
        total += count
    # a count is its floor, plus one with a probability of its rest: at most 0.25 of variance an epoch
    assert (np.abs(total / epochs - shares) < 4 * (0.25 / epochs) ** 0.5).all()


def test_the_order_depends_on_seed_and_position_alone() -> None:
    factors = [1.0, 2.0, 1.0, 5.0, 1.0]
    one, other = Balanced(factors, seed=3), Balanced(factors, seed=3)
    line = [one(position) for position in range(60)]
    drawn = np.random.default_rng(0).permutation(60).tolist()
    assert {position: other(position) for position in drawn} == dict(enumerate(line))
    assert [Balanced(factors, seed=4)(position) for position in range(60)] != line
    epochs = [tuple(index for _, index in line[start : start + 5]) for start in range(0, 60, 5)]
    assert len(set(epochs)) > 6


def test_no_two_positions_draw_the_same_augmentation() -> None:
    order = Balanced([1.0, 9.0, 1.0], seed=0)
    pairs = [order(position) for position in range(300)]
    assert len(set(pairs)) == 300
    assert max(Counter(index for _, index in pairs[:3]).values()) > 1  # one image, more than once in an epoch
    assert {turn % 2**32 for turn, _ in pairs[6:9]} == {2}


def test_without_rare_classes_every_epoch_is_a_permutation() -> None:
    order = Balanced(np.ones(9), seed=1)
    for epoch in range(20):
        assert sorted(order(position)[1] for position in range(9 * epoch, 9 * epoch + 9)) == list(range(9))


def test_crops_are_aimed_by_daformers_odds() -> None:
    odds = crop_odds([600, 390, 10, 0])  # shares 0.6, 0.39, 0.01, 0
    assert odds / odds[2] == pytest.approx(np.exp([-59, -38, 0, 1]), rel=1e-9)
    assert crop_odds([5]).tolist() == [1.0]
    assert crop_odds([0, 0]).tolist() == [1.0, 1.0]


def field(hw: tuple[int, int] = (64, 96)) -> Sample:
    """A field of class 0 with two pixels of class 1 in a corner and ignore below."""
    mask = np.zeros(hw, np.uint8)
    mask[5, 90:92] = 1
    mask[-8:] = 255
    return Sample(np.zeros((*hw, 3), np.uint8), mask, "field")


@pytest.fixture
def aimed() -> Callable[..., TrainTransform]:
    def make(share: float, **settings: Any) -> TrainTransform:
        config = DataConfig(crop_hw=(32, 32), color_probability=0.0, rare_crops=share, **settings)
        return TrainTransform(config, ignore=255, mean=(0.5,) * 3, odds_K=crop_odds([6000, 2]))

    return make


def test_an_aimed_crop_holds_the_rare_class(aimed: Callable[..., TrainTransform]) -> None:
    def share_of_hits(transform: TrainTransform) -> float:
        hits = [(transform(field(), np.random.default_rng(seed))[1] == 1).any() for seed in range(200)]
        return float(np.mean(hits))

    by_chance = share_of_hits(aimed(0.0, scale=(1.0, 1.0), max_one_class=1.0))
    assert by_chance < 0.1  # 6 of 33 rows, 8 of 65 columns
    assert share_of_hits(aimed(1.0, scale=(1.0, 1.0))) == 1.0
    half = share_of_hits(aimed(0.5, scale=(1.0, 1.0), max_one_class=1.0))
    assert half == pytest.approx(0.5 + 0.5 * by_chance, abs=0.12)
    assert share_of_hits(aimed(1.0, scale=(1.0, 2.0))) == 1.0


def test_an_aimed_crop_lies_anywhere_around_its_pixel_and_inside_the_image(
    aimed: Callable[..., TrainTransform],
) -> None:
    transform = aimed(1.0, scale=(1.0, 1.0), flip=0.0)
    places = set()
    for seed in range(100):
        _, mask = transform(field(), np.random.default_rng(seed))
        assert mask.shape == (32, 32)
        assert not (mask == 255).any()  # the crop is above the ignored rows, and nothing is padding
        places.add(tuple(np.argwhere(mask == 1)[0].tolist()))
    rows, columns = zip(*places, strict=True)
    assert set(rows) == set(range(6))  # the pixel's row is 5: the crop begins at 0 to 5
    assert min(columns) >= 32 - 6 - 1  # its columns are 90 and 91 of 96


def test_crops_of_an_image_without_labels_are_drawn_as_ever(aimed: Callable[..., TrainTransform]) -> None:
    sample = field()
    assert sample.mask is not None
    blank = Sample(sample.image, np.full_like(sample.mask, 255), "blank")
    _, mask = aimed(1.0)(blank, np.random.default_rng(0))
    assert (mask == 255).all()


def test_nothing_asked_for_changes_no_draw() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    sample = Sample(noise, field().mask, "noise")
    plain = TrainTransform(DataConfig(crop_hw=(32, 32)), ignore=255, mean=(0.5,) * 3)
    image, mask = plain(sample, np.random.default_rng(7))
    again, same = TrainTransform(DataConfig(crop_hw=(32, 32)), ignore=255, mean=(0.5,) * 3, odds_K=None)(
        sample, np.random.default_rng(7)
    )
    assert np.array_equal(image, again)
    assert np.array_equal(mask, same)
    assert rarity(None, DataConfig(), location="") == Rarity()  # type: ignore[arg-type]  # nothing is read


def test_counts_are_those_of_the_masks_and_are_kept(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRAZZO_CACHE", str(tmp_path / "cache"))
    data = tz.open_dataset(boxes)
    split = data["train"]
    truth = [
        np.bincount(split.read_mask(i)[split.read_mask(i) != 255], minlength=3) for i in range(len(split))
    ]
    about: dict[str, Any] = {"ignore": 255, "location": data.location, "quiet": True}
    assert image_class_pixels(split, 3, **about).tolist() == np.array(truth).tolist()

    def never(*_: object) -> None:
        raise AssertionError("counted again")

    monkeypatch.setattr(counts, "_all_counts", never)
    assert image_class_pixels(split, 3, **about).tolist() == np.array(truth).tolist()
    [file] = (tmp_path / "cache" / "counts").glob("*.npy")
    file.write_bytes(b"half")
    with pytest.raises(AssertionError, match="counted again"):
        image_class_pixels(split, 3, **about)
    with pytest.raises(AssertionError, match="counted again"):  # another table of ids is another count
        image_class_pixels(data.merged(["box+sky=thing"])["train"], 2, **about)


def test_a_cache_that_cannot_be_written_only_costs_the_counting(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("TERRAZZO_CACHE", str(tmp_path / "cache"))
    data = tz.open_dataset(boxes)
    found = image_class_pixels(data["train"], 3, ignore=255, location=data.location, quiet=True)
    assert found.shape == (8, 3)


def test_what_is_done_for_rare_classes_is_said(boxes_of_my_own: Path) -> None:
    from terrazzo.images import write_mask

    for path in sorted((boxes_of_my_own / "train" / "masks").iterdir())[:6]:
        write_mask(path, np.zeros((48, 64), np.uint8))
    data = tz.open_dataset(boxes_of_my_own)
    found = rarity(
        data["train"], DataConfig(rare_images=0.5, rare_crops=0.3), location=data.location, quiet=True
    )
    assert found.said == ("images of rare classes come more often: sky x1.4, box x1.4",)  # sqrt(0.5 / 0.25)
    assert found.repeats_N is not None and found.odds_K is not None
    assert found.repeats_N.tolist() == pytest.approx([1.0] * 6 + [2**0.5] * 2)
    few = rarity(data["train"], DataConfig(rare_images=0.1), location=data.location, quiet=True)
    assert few.said == ("no class is in less than 10 % of the images",)


def test_a_stream_is_not_counted_beforehand() -> None:
    stream: Any = SimpleNamespace(shard_of=np.zeros(3))
    with pytest.raises(RecipeError) as error:
        rarity(stream, DataConfig(stream=True, rare_crops=0.5), location="hub")
    assert str(error.value).startswith(
        "Rare classes are not looked for in a stream: every mask would have to be read"
    )
    assert "found: data.rare_images=0.0 and data.rare_crops=0.5" in str(error.value)
