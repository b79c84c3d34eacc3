"""What training sees is a part of the resized image and of its mask, mirrored or not, in other colours."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from terrazzo.data.transforms import (
    DataConfig,
    TrainTransform,
    colour_matrix,
    resize_image,
    resized_hw,
    unit_range,
)
from terrazzo.errors import DatasetFormatError
from terrazzo.sample import Sample

RNG = np.random.default_rng(8)
MEAN = (0.4, 0.5, 0.6)
PLAIN = DataConfig(
    crop_hw=(16, 24), scale=(1.0, 1.0), max_one_class=1.0, flip=0.0, color_probability=0.0
)  # crops, nothing else


def photo(hw: tuple[int, int] = (40, 60), channels: int = 3, dtype: type = np.uint8) -> Sample:
    """Noise under two classes and ignore, drawn in blocks."""
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    image = (RNG.random((*hw, channels)) * top).astype(dtype)
    blocks = RNG.choice([0, 1, 255], size=(-(-hw[0] // 4), -(-hw[1] // 4)))
    mask = np.kron(blocks, np.ones((4, 4)))[: hw[0], : hw[1]].astype(np.uint8)
    return Sample(image, mask, "photo")


def transform(config: DataConfig, mean: tuple[float, ...] = MEAN) -> TrainTransform:
    return TrainTransform(config, ignore=255, mean=mean)


def draws(seed: int) -> np.random.Generator:
    return np.random.default_rng([0, 0, seed])


def grey_levels(image_CHW: np.ndarray) -> np.ndarray:
    levels = image_CHW * 255
    np.testing.assert_allclose(levels, levels.round(), atol=1e-4)
    return levels.round().astype(np.uint8)


def find_window(part_CHW: np.ndarray, whole_HWC: np.ndarray) -> list[tuple[int, int]]:
    """Every (y, x) where `part` stands in `whole`, by looking everywhere."""
    h, w = part_CHW.shape[1:]
    windows = np.lib.stride_tricks.sliding_window_view(whole_HWC.transpose(2, 0, 1), (h, w), axis=(1, 2))
    return [tuple(place) for place in np.argwhere((windows == part_CHW[:, None, None]).all(axis=(0, 3, 4)))]


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.6, 2.0])  # none puts a centre between two pixels
def test_crop_first_is_resize_then_crop(scale: float) -> None:
    sample = photo()
    scaled_hw = round(40 * scale), round(60 * scale)
    whole = np.asarray(Image.fromarray(sample.image).resize(scaled_hw[::-1], Image.Resampling.BILINEAR))
    assert sample.mask is not None
    whole_mask = np.asarray(Image.fromarray(sample.mask).resize(scaled_hw[::-1], Image.Resampling.NEAREST))
    places = set()
    for seed in range(12):
        image, mask = transform(replace(PLAIN, scale=(scale, scale)))(sample, draws(seed))
        [(y, x)] = find_window(grey_levels(image), whole)
        np.testing.assert_array_equal(mask, whole_mask[y : y + 16, x : x + 24])
        places.add((y, x))
    assert len(places) > 6


def test_the_scale_is_drawn_between_its_bounds() -> None:
    # a mask that counts its columns shows how wide a source the crop had
    columns = np.broadcast_to(np.arange(200, dtype=np.uint8), (200, 200)).copy()
    sample = Sample(np.zeros((200, 200, 3), np.uint8), columns, "columns")
    config = replace(PLAIN, crop_hw=(50, 50), scale=(0.5, 2.0))
    scales = []
    for seed in range(200):
        _, mask = transform(config)(sample, draws(seed))
        scales.append(49 / (int(mask[0, -1]) - int(mask[0, 0])))
    assert 0.48 < min(scales) < 0.53
    assert 1.85 < max(scales) < 2.1
    assert 1.15 < np.mean(scales) < 1.35  # even: 1.25


def test_image_and_mask_are_cut_and_mirrored_together() -> None:
    # the image says in which column it was, the mask too
    ramp = np.broadcast_to(np.arange(120, dtype=np.uint16)[None, :, None] * 500, (60, 120, 1)).copy()
    sample = Sample(ramp, ramp[..., 0] // 500, "ramp")
    config = replace(PLAIN, crop_hw=(20, 30), scale=(1.0, 2.0), flip=0.5)
    mirrored = 0
    for seed in range(40):
        image, mask = TrainTransform(config, ignore=65535, mean=(0.5,))(sample, draws(seed))
        column = image[0].astype(np.float64) * 65535 / 500 + 0.5  # coordinates count from the edge of pixel 0
        inside = (column > 1) & (column < 119)  # beyond, the filter is cut off
        is_border = np.abs(column - np.round(column)) < 1e-3 + 0.5 / 500  # and the rounding to 16 bits
        assert ((mask == np.floor(column)) | is_border)[inside].all()
        mirrored += mask[0, 0] > mask[0, -1]
    assert 10 < mirrored < 30


def test_flip_is_a_probability() -> None:
    sample = Sample(np.zeros((4, 8, 1), np.uint8), np.tile(np.arange(8, dtype=np.uint8), (4, 1)), "columns")
    for flip, low, high in [(0.0, 0, 0), (0.25, 30, 70), (1.0, 200, 200)]:
        cut = TrainTransform(replace(PLAIN, crop_hw=(4, 8), flip=flip), ignore=255, mean=(0.5,))
        assert low <= sum(cut(sample, draws(seed))[1][0, 0] == 7 for seed in range(200)) <= high


def test_a_crop_larger_than_the_image_is_padded_with_the_mean_and_ignore() -> None:
    sample = photo((10, 12))
    config = DataConfig(
        crop_hw=(16, 24), scale=(1.0, 1.0), flip=0.0, color_probability=1.0
    )  # no colour on the padding
    image, mask = transform(config)(sample, draws(0))
    np.testing.assert_array_equal(mask[:10, :12], sample.mask)
    assert (mask[10:] == 255).all()
    assert (mask[:, 12:] == 255).all()
    for channel, mean in enumerate(MEAN):
        assert (image[channel, 10:] == np.float32(mean)).all()
        assert (image[channel, :, 12:] == np.float32(mean)).all()
    plain, _ = transform(replace(config, color_probability=0.0))(sample, draws(0))
    np.testing.assert_allclose(plain[:, :10, :12], unit_range(sample.image).transpose(2, 0, 1), atol=1e-7)


def test_crops_that_one_class_fills_are_drawn_again() -> None:
    # class 0 on the left four fifths; the right fifth is a board of classes 1 … 8
    mask = np.zeros((40, 200), np.uint8)
    mask[:, 160:] = 1 + np.add.outer(np.arange(40) // 5, np.arange(40) // 5) % 8
    sample = Sample(np.zeros((40, 200, 3), np.uint8), mask, "board")

    def full(config: DataConfig) -> int:
        crops = [transform(config)(sample, draws(seed))[1] for seed in range(60)]
        return sum((crop == 0).mean() > 0.75 for crop in crops)

    config = replace(PLAIN, crop_hw=(40, 40))
    assert full(config) > 35  # 120 + 10 of 161 places
    assert full(replace(config, max_one_class=0.75)) <= 6  # 0.81^11 of 60, and the grid's coarseness


def test_ignored_pixels_do_not_count_as_a_class() -> None:
    mask = np.full((40, 200), 255, np.uint8)
    mask[::8, 160:] = 1
    mask[4::8, 160:] = 2
    sample = Sample(np.zeros((40, 200, 3), np.uint8), mask, "mostly ignored")
    config = replace(PLAIN, crop_hw=(40, 40), max_one_class=0.6)
    labelled = [(transform(config)(sample, draws(seed))[1] != 255).any() for seed in range(40)]
    assert (
        sum(labelled) > 30
    )  # an unlabelled crop teaches nothing and is drawn again; a fifth would be labelled else


def test_the_same_draws_give_the_same_crop_and_others_another() -> None:
    sample = photo()
    whole = transform(DataConfig(crop_hw=(24, 24)))
    one, again, other = (whole(sample, draws(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one[0], again[0])
    np.testing.assert_array_equal(one[1], again[1])
    assert not np.array_equal(one[0], other[0])


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (3, np.uint16), (4, np.float32), (2, np.uint8)]
)
def test_every_kind_of_image_comes_out_as_float_planes(channels: int, dtype: type) -> None:
    sample = photo((30, 30), channels, dtype)
    before = sample.image.copy()
    image, mask = transform(DataConfig(crop_hw=(32, 32)), mean=(0.5,) * channels)(sample, draws(1))
    assert image.shape == (channels, 32, 32)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert mask.shape == (32, 32)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(sample.image, before)


def test_without_augmentation_only_the_size_changes() -> None:
    sample = photo((40, 60))
    image, mask = transform(DataConfig(augment=False))(sample, draws(0))
    np.testing.assert_array_equal(image, sample.image.astype(np.float32).transpose(2, 0, 1) / np.float32(255))
    np.testing.assert_array_equal(mask, sample.mask)
    squashed = transform(DataConfig(augment=False, resize="exact", resize_hw=(20, 20)))
    image, mask = squashed(sample, draws(0))
    np.testing.assert_array_equal(image, unit_range(resize_image(sample.image, (20, 20))).transpose(2, 0, 1))
    other = DataConfig(
        augment=False, resize="exact", resize_hw=(20, 20), interpolation="bicubic", rounding="torchvision"
    )
    seen, _ = transform(other)(sample, draws(0))
    resized = resize_image(sample.image, (20, 20), other)
    np.testing.assert_array_equal(seen, unit_range(resized).transpose(2, 0, 1))
    assert (seen != image).mean() > 0.3
    assert sample.mask is not None
    np.testing.assert_array_equal(
        mask, np.asarray(Image.fromarray(sample.mask).resize((20, 20), Image.Resampling.NEAREST))
    )


def test_crops_are_cut_from_the_resized_image() -> None:
    sample = photo((80, 120))
    small = np.asarray(Image.fromarray(sample.image).resize((60, 40), Image.Resampling.BILINEAR))
    config = replace(PLAIN, resize="short", resize_hw=(40, 999))
    image, _ = transform(config)(sample, draws(3))
    assert find_window(grey_levels(image), small)


def test_float_data_outside_the_unit_range_is_not_clipped() -> None:
    heights = np.linspace(-3, 900, 48 * 48, dtype=np.float32).reshape(48, 48, 1)
    sample = Sample(heights, np.zeros((48, 48), np.uint8), "elevation")
    config = replace(PLAIN, crop_hw=(48, 48))
    image, _ = transform(config, mean=(0.5,))(sample, draws(0))
    np.testing.assert_allclose(image[0], heights[..., 0], rtol=1e-6)


def test_a_sample_without_a_mask_cannot_be_trained_on() -> None:
    with pytest.raises(
        DatasetFormatError, match=r"The sample a/b has no mask; training needs one for every image\."
    ):
        transform(DataConfig())(Sample(np.zeros((8, 8, 3), np.uint8), None, "a/b"), draws(0))


@pytest.mark.parametrize(
    ("resize", "size_hw", "expected"),
    [
        ("original", (333, 500), (333, 500)),
        ("exact", (333, 500), (200, 300)),
        ("short", (400, 800), (200, 400)),
        ("short", (800, 400), (400, 200)),
        ("short", (100, 150), (200, 300)),
        ("fit", (400, 800), (150, 300)),
        ("fit", (800, 400), (200, 100)),
        ("fit", (50, 50), (200, 200)),
        ("fit", (1, 3000), (1, 300)),  # never less than one pixel
        ("sides", (400, 800), (150, 300)),
        ("sides", (800, 400), (300, 150)),  # upright images have upright limits
        ("sides", (400, 500), (200, 250)),
        ("sides", (500, 400), (250, 200)),
        ("sides", (1, 3000), (1, 300)),
        ("sides", (50, 51), (200, 204)),
        ("sides", (300, 451), (200, 300)),
    ],
)
def test_sizes_the_network_sees(resize: str, size_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_hw(size_hw, DataConfig(resize=resize, resize_hw=(200, 300))) == expected  # type: ignore[arg-type]


def test_white_is_one() -> None:
    assert unit_range(np.array([0, 51, 255], np.uint8)).tolist() == [0, np.float32(0.2), 1]
    assert unit_range(np.array([0, 13107, 65535], np.uint16)).tolist() == [0, np.float32(0.2), 1]
    out = np.empty((2, 1), np.float32)
    assert unit_range(np.array([[255], [0]], np.uint8), out=out) is out
    assert out.tolist() == [[1], [0]]
    assert unit_range(np.array([[-2.5], [7]], np.float32), out=out).tolist() == [[-2.5], [7]]
    floats = np.array([-1, 0.5, 7], np.float32)
    assert unit_range(floats) is floats


def test_an_image_of_the_right_size_is_not_touched() -> None:
    image = photo().image
    assert resize_image(image, (40, 60)) is image
    assert resize_image(image, (20, 30)).shape == (20, 30, 3)


def alone(**changes: float) -> DataConfig:
    """A configuration in which only the named change of colour happens, always."""
    none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    return DataConfig(**{**none, **changes}, color_probability=1.0)  # type: ignore[arg-type]


def recoloured(config: DataConfig, pixel: np.ndarray, seed: int) -> np.ndarray:
    return colour_matrix(config, len(pixel), draws(seed)).astype(np.float64) @ [*pixel, 1.0]


def test_brightness_adds_the_same_everywhere() -> None:
    shifts = np.array(
        [
            recoloured(alone(brightness=0.2), np.array([0.1, 0.5, 0.9]), s) - [0.1, 0.5, 0.9]
            for s in range(300)
        ]
    )
    np.testing.assert_allclose(np.ptp(shifts, axis=1), 0, atol=1e-6)
    assert -0.2 <= shifts.min() < -0.18
    assert 0.18 < shifts.max() <= 0.2


def test_contrast_multiplies() -> None:
    factors = np.array(
        [recoloured(alone(contrast=0.5), np.array([0.2, 0.4, 0.8]), s) / [0.2, 0.4, 0.8] for s in range(300)]
    )
    np.testing.assert_allclose(np.ptp(factors, axis=1), 0, atol=1e-6)
    assert 0.5 <= factors.min() < 0.55
    assert 1.45 < factors.max() <= 1.5


def test_saturation_mixes_with_the_grey_of_equal_luma() -> None:
    pixel = np.array([0.9, 0.3, 0.1])
    grey = 0.299 * 0.9 + 0.587 * 0.3 + 0.114 * 0.1
    for seed in range(100):
        moved = (recoloured(alone(saturation=0.5), pixel, seed) - grey) / (pixel - grey)
        np.testing.assert_allclose(np.ptp(moved), 0, atol=1e-5)
        assert 0.5 <= moved.mean() <= 1.5


def test_hue_turns_the_colour_and_keeps_luma() -> None:
    pixel = np.array([0.7, 0.3, 0.2])
    for seed in range(100):
        turned = recoloured(alone(hue=0.05), pixel, seed)
        assert abs(turned @ [0.299, 0.587, 0.114] - pixel @ [0.299, 0.587, 0.114]) < 1e-4
        # IQ radius and angle by the standard library's own conversion
        (_, i, q), (_, i2, q2) = colorsys.rgb_to_yiq(*pixel), colorsys.rgb_to_yiq(*turned)
        angle = np.angle(complex(i2, q2) / complex(i, q)) / (2 * np.pi)
        assert abs(np.hypot(i2, q2) / np.hypot(i, q) - 1) < 0.02  # colorsys rounds its matrix to two digits
        assert abs(angle) <= 0.05 + 2e-3
        np.testing.assert_allclose(
            recoloured(alone(hue=0.05), np.full(3, 0.4), seed), 0.4, atol=1e-5
        )  # greys stay


def test_the_four_changes_compose() -> None:
    pixel, config = np.array([0.7, 0.3, 0.2]), alone(brightness=0.2, contrast=0.5, saturation=0.5, hue=0.1)
    for seed in range(20):
        expected = pixel
        for step in ({"brightness": 0.2}, {"saturation": 0.5}, {"hue": 0.1}, {"contrast": 0.5}):
            expected = recoloured(alone(**step), expected, seed)
        np.testing.assert_allclose(recoloured(config, pixel, seed), expected, atol=1e-5)


def test_each_change_happens_with_its_probability() -> None:
    config = replace(DataConfig(), color_probability=0.5)
    unchanged = sum(np.array_equal(colour_matrix(config, 3, draws(s)), np.eye(3, 4)) for s in range(640))
    assert 20 <= unchanged <= 60  # 1 of 16
    assert np.allclose(
        colour_matrix(replace(config, color_probability=0.0), 3, draws(0)), np.eye(3, 4), atol=1e-6
    )


def test_other_than_rgb_gets_brightness_and_contrast_alone() -> None:
    for seed in range(20):
        matrix = colour_matrix(replace(DataConfig(), color_probability=1.0), 5, draws(seed))
        assert matrix.shape == (5, 6)
        np.testing.assert_allclose(matrix[:, :5], np.eye(5) * matrix[0, 0])
        assert (matrix[:, 5] == matrix[0, 5]).all()
        assert abs(matrix[0, 0] - 1) <= 0.5


def mmsegmentations(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Its photometric distortion of one colour: clipped after every change, hue and saturation in HSV, 0-1."""
    happens, contrast_first = rng.random(4) < 0.5, rng.random() < 0.5
    brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4)
    contrast = 1 + 0.5 * contrast if happens[1] else 1.0
    if happens[0]:
        colour = np.clip(colour + brightness * 32 / 255, 0, 1)
    if contrast_first:
        colour = np.clip(colour * contrast, 0, 1)
    h, s, v = colorsys.rgb_to_hsv(*colour)
    s = min(s * (1 + 0.5 * saturation), 1.0) if happens[2] else s
    h = (h + hue * 18 / 180) % 1 if happens[3] else h
    colour = np.array(colorsys.hsv_to_rgb(h, s, v))
    return colour if contrast_first else np.clip(colour * contrast, 0, 1)


def test_composed_colours_move_as_far_as_mmsegmentations() -> None:
    config = DataConfig(brightness=32 / 255, contrast=0.5, saturation=0.5, hue=0.1, color_probability=0.5)
    street = np.clip(np.random.default_rng(2).normal(0.3, 0.18, (3000, 3)), 0, 1)
    for colours in (np.random.default_rng(1).random((3000, 3)), street):
        ours, theirs = np.empty_like(colours), np.empty_like(colours)
        for number, colour in enumerate(colours):
            matrix = colour_matrix(config, 3, np.random.default_rng([0, number]))
            ours[number] = np.clip(matrix @ [*colour, 1.0], 0, 1) - colour
            theirs[number] = mmsegmentations(colour, np.random.default_rng([1, number])) - colour
        assert np.abs(ours).mean() == pytest.approx(
            np.abs(theirs).mean(), rel=0.1
        )  # measured: 0.096 to 0.100
        assert ours.std() == pytest.approx(theirs.std(), rel=0.1)
        assert abs(ours.mean() - theirs.mean()) < 0.01
