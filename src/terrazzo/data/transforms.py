"""What happens to a sample between the data set and the network: resize, crop, flip, colours; training's view of it.

Crop first: scale and crop are drawn together, only the source rectangle is read, and it is resized to the crop in one
go. The result is what resizing the whole image and cropping it afterwards would give, at the cost of the crop. Every
draw comes from the generator that is passed in; the same generator gives the same crop on any machine. Ids are never
changed here, and the network normalises: images leave as float32 in [0, 1].
"""

# C channels, H W height width

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import DatasetFormatError
from terrazzo.reduced import Rectangle, Reduced, divisor_for
from terrazzo.sample import Sample

Size = tuple[int, int]  # (height, width)

REDRAWS = 10  # of a crop that one class fills, as MMSegmentation's RandomCrop
GRID = 48  # points per side at which a crop is looked at before it is taken: 2,304 of its pixels
LUMA = np.array([0.299, 0.587, 0.114])  # Rec. 601
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # NTSC; greys have I = Q = 0


@dataclass(frozen=True)
class DataConfig:
    """How samples are read, resized and changed for training; `resize` holds in evaluation and prediction as well."""

    resize: Literal["original", "short", "fit", "sides", "exact"] = "original"
    """Size at which the network sees an image: as it is; shorter side = the smaller of resize_hw; as large as fits
    inside resize_hw at its own ratio; sides: the same for upright and lying images, the longer side in the larger of
    resize_hw, and in evaluation and prediction without antialiasing, as OpenCV does it; or exactly resize_hw. The same
    size in training, evaluation and prediction."""
    resize_hw: tuple[int, int] = (512, 512)
    """Height and width that `resize` aims at."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How pixels are mixed where an image is resized, in training as well; masks take the nearest pixel."""
    rounding: Literal["pillow", "torchvision"] = "pillow"
    """Whose arithmetic resizes 8-bit images, to the bit: Pillow's or torchvision's, a grey level apart in places; image
    processors of transformers have either."""
    crop_hw: tuple[int, int] = (512, 512)
    """Height and width of a training crop."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor, evenly drawn, by which an image is scaled (after `resize`) before it is cropped."""
    max_one_class: float = 0.75
    """Draw a crop again, up to 10 times, while one class covers more of its labelled pixels than this; 1 = off."""
    rare_images: float = 0.0
    """Images that hold a class found in less than this share of them come more often, such as 0.1; 0 is off."""
    rare_crops: float = 0.0
    """Share of crops that are aimed at a pixel of a class drawn from the image, the rare ones with the best odds."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    brightness: float = 0.125
    """Largest shift of brightness, as a share of the range from black to white."""
    contrast: float = 0.5
    """Contrast factors are drawn from 1 ± this."""
    saturation: float = 0.5
    """Saturation factors are drawn from 1 ± this; RGB only."""
    hue: float = 0.05
    """Largest rotation of the hue, in turns; RGB only."""
    color_probability: float = 0.5
    """Probability of each of the four colour changes."""
    augment: bool = True
    """False: no scaling, cropping, flipping or colour changes in training, only `resize`."""
    workers: int = -1
    """Threads that prepare samples; 0 = none beside the trainer, -1 = as many as the machine has to spare."""
    cache: Literal["auto", "memory", "disk", "none"] = "auto"
    """Keep decoded samples in memory: while they take at most a quarter of what is free and 2 GiB; always; on the disk
    instead, for the next training too; never."""
    scaled_decoding: bool = False
    """In training, decode JPEGs at 1/2, 1/4 or 1/8 of their sides where that leaves a crop a pixel for each of its own:
    faster, slightly other pixels; no decoded sample is kept, so `cache` is auto or none."""
    stream: bool = False
    """Read parquet files, on the Hub, in a bucket or here, row group by row group where they lie, without a copy."""
    shuffle_buffer: int = 1024
    """Samples of a stream, over all processes, that are shuffled with each other; about twice as many lie in memory."""
    on_unreadable: Literal["stop", "skip"] = "stop"
    """What to do when a sample cannot be read: stop with its name, or train without its pixels and say how many."""
    keep_void: bool = False
    """Keep classes called "unlabeled", "void" and the like instead of ignoring them."""
    merge: tuple[str, ...] = ()
    """Classes to train as one, such as "car+truck=vehicle"."""


def resized_hw(size_hw: tuple[int, ...], config: DataConfig) -> Size:
    """Return the (height, width) at which the network sees an image of `size_hw`; at least 1 x 1."""
    height, width = size_hw
    if config.resize == "original":
        return height, width
    if config.resize == "exact":
        return config.resize_hw
    if config.resize == "short":
        factor = min(config.resize_hw) / min(height, width)
    elif config.resize == "sides":
        low, high = sorted(config.resize_hw)
        factor = min(high / max(height, width), low / min(height, width))
        return max(1, int(height * factor + 0.5)), max(
            1, int(width * factor + 0.5)
        )  # halves up, as MMCV rounds
    else:
        factor = min(config.resize_hw[0] / height, config.resize_hw[1] / width)
    return _scaled((height, width), factor)


def typical_shrink(size_hw: Size, config: DataConfig) -> float:
    """Return by how much training shrinks an image of `size_hw`, at the middle of `scale`; below 1 it enlarges it."""
    middle = sum(config.scale) / 2 if config.augment else 1.0
    resized = resized_hw(size_hw, config)
    return min(whole / side for whole, side in zip(size_hw, resized, strict=True)) / middle


def resize_image(
    image: NDArray[Any], size_hw: Size, config: DataConfig | None = None, *, threads: int = 1
) -> NDArray[Any]:
    """Return `image` (H, W, C) at `size_hw`, same dtype, antialiased where it shrinks.

    config: of which `interpolation` and `rounding` count: uint8 results are those of Pillow or of torchvision to the
    last bit. uint16 and float32, which Pillow resizes one channel at a time and in double precision, are computed in
    float32. The image itself is returned where its size is right.
    """
    from terrazzo.kernels.crop_resize import crop_resize

    height, width = image.shape[:2]
    if (height, width) == tuple(size_hw):
        return image
    how = config or DataConfig()
    return crop_resize(
        image,
        (0, 0, height, width),
        size_hw,
        interpolation=how.interpolation,
        rounding=how.rounding,
        threads=threads,
    )


def unit_range(image: NDArray[Any], *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return `image` as float32, white being 1: uint8 / 255, uint16 / 65535, float32 as it is.

    out: of the image's shape, to write to.
    """
    if out is None:
        if image.dtype == np.float32:
            return image
        out = np.empty(image.shape, np.float32)
    out[...] = image
    if image.dtype != np.float32:
        out /= np.float32(_white(image.dtype))
    return out


@dataclass(frozen=True, eq=False)
class Unread:
    """A sample whose image is read once it is known how fine it has to be."""

    mask: NDArray[Any]
    """(H, W)"""
    read: Callable[[int], Reduced]
    """Gives the image at 1 / divisor of its sides, or whole; the mask has the size of the whole image."""


@dataclass(frozen=True, eq=False)
class _Drawn:
    """What becomes of one sample."""

    source: Rectangle
    """What is seen of the whole image."""
    size_hw: Size
    """What it is resized to."""
    flip: bool = False
    matrix: NDArray[np.float32] | None = None
    """Of the colours; None without augmentation."""


class TrainTransform:
    """Turns a sample into what a training step sees; picklable, without state."""

    def __init__(
        self,
        config: DataConfig,
        *,
        ignore: int,
        mean: Sequence[float],
        odds_K: NDArray[np.float64] | None = None,
    ) -> None:
        """ignore: the mask value of padding. mean: the data set's mean colour in [0, 1], one number per channel.
        odds_K: with which odds a crop is aimed at each class (`sampling.crop_odds`), where `rare_crops` asks for it.

        Padding takes the mean colour, which the network's normalisation turns into zeros.
        """
        self.config = config
        self.ignore = ignore
        self.mean = np.asarray(mean, dtype=np.float32)
        self.odds_K = odds_K

    @property
    def channels(self) -> int:
        """C of the images."""
        return len(self.mean)

    @property
    def mask_dtype(self) -> np.dtype[Any]:
        """uint8 or uint16, whichever holds the ignore value."""
        return np.min_scalar_type(self.ignore)

    def output_hw(self, size_hw: Size) -> Size:
        """Return the (height, width) of what a sample of `size_hw` becomes."""
        return self.config.crop_hw if self.config.augment else resized_hw(size_hw, self.config)

    def __call__(
        self, sample: Sample, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.integer[Any]]]:
        """Return the image (C, h, w) float32 in [0, 1] and the mask (h, w); (h, w) is `output_hw`."""
        size_hw = self.output_hw(sample.size_hw)
        image = np.empty((self.channels, *size_hw), np.float32)
        mask = np.empty(size_hw, self.mask_dtype)
        self.write(sample, rng, image, mask)
        return image, mask

    def write(
        self,
        sample: Sample | Unread,
        rng: np.random.Generator,
        image_CHW: NDArray[np.float32],
        mask_HW: NDArray[np.integer[Any]],
    ) -> None:
        """Write what the sample becomes to the top left of these arrays, and padding to the rest of them.

        With augmentation they are as large as the crop; without, at least as large as `output_hw`. Raises
        DatasetFormatError for a sample without a mask. What is drawn, and what becomes of the mask, does not depend on
        whether the image is read before or after.
        """
        from terrazzo.kernels.colour import recolour

        crop, matrix = self._cut(sample, rng, mask_HW)
        height, width = crop.shape[:2]
        if matrix is None:
            unit_range(crop.transpose(2, 0, 1), out=image_CHW[:, :height, :width])
        else:
            low, high = _limits(crop)
            recolour(crop, matrix, white=_white(crop.dtype), low=low, high=high, out_CHW=image_CHW)
        image_CHW[:, height:] = self.mean[:, None, None]
        image_CHW[:, :height, width:] = self.mean[:, None, None]

    def write_bytes(
        self,
        sample: Sample | Unread,
        rng: np.random.Generator,
        image_HWC: NDArray[np.uint8],
        mask_HW: NDArray[np.integer[Any]],
    ) -> tuple[NDArray[np.float32], Size]:
        """Write a sample of 8 bits as `write` does, but its colours as they were; return their change, and its size.

        The change is a matrix (C, C + 1), the size the (height, width) that is written: `colour.recolour_batch` makes
        of them what `write` writes. A resized crop is of grey levels until its colours change, so bytes lose nothing.
        """
        crop, matrix = self._cut(sample, rng, mask_HW, out=image_HWC)
        assert crop.dtype == np.uint8
        height, width = crop.shape[:2]
        if crop is not image_HWC:
            image_HWC[:height, :width] = crop
        if matrix is None:
            matrix = np.eye(self.channels, self.channels + 1, dtype=np.float32)
        return matrix, (height, width)

    def write_blank(self, image_CHW: NDArray[np.float32], mask_HW: NDArray[np.integer[Any]]) -> None:
        """Write a sample that teaches nothing: the mean colour, and a mask that is ignored."""
        image_CHW[...] = self.mean[:, None, None]
        mask_HW[...] = self.ignore

    def _cut(
        self,
        sample: Sample | Unread,
        rng: np.random.Generator,
        mask_HW: NDArray[np.integer[Any]],
        *,
        out: NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        """The sample's pixels (h, w, C) before a change of colours, and the change, if any; its mask is written.

        out: what a crop of its very size is written to.
        """
        from terrazzo.kernels.crop_resize import crop_resize, crop_resize_mask

        mask = _mask_of(sample)
        drawn = self._draw(mask, rng)
        height, width = size_hw = drawn.size_hw
        if isinstance(sample, Unread):
            image = sample.read(divisor_for(drawn.source, size_hw))
        else:
            image = Reduced.whole(sample.image)
        assert image.image.shape[2] == self.channels, "the data set checks its channels on reading"
        if drawn.matrix is None and image.image.shape[:2] == image.size_hw == size_hw:
            crop = image.image
        else:
            fits = out is not None and out.shape[:2] == size_hw
            place = image.place(drawn.source)
            crop = crop_resize(
                image.image,
                place,
                size_hw,
                flip=drawn.flip,
                interpolation=self.config.interpolation,
                rounding=self.config.rounding,
                out=out if fits else None,
            )
        crop_resize_mask(mask, drawn.source, size_hw, flip=drawn.flip, out=mask_HW[:height, :width])
        mask_HW[height:] = self.ignore
        mask_HW[:height, width:] = self.ignore
        return crop, drawn.matrix

    def _draw(self, mask: NDArray[Any], rng: np.random.Generator) -> "_Drawn":
        resized = resized_hw(mask.shape, self.config)
        if not self.config.augment:
            return _Drawn((0.0, 0.0, float(mask.shape[0]), float(mask.shape[1])), resized)
        crop_hw = self.config.crop_hw
        scaled_hw = _scaled(resized, rng.uniform(*self.config.scale))
        flip = bool(rng.random() < self.config.flip)
        matrix = colour_matrix(self.config, self.channels, rng)
        inside_hw = min(scaled_hw[0], crop_hw[0]), min(scaled_hw[1], crop_hw[1])
        source = self._aimed_rectangle(mask, scaled_hw, inside_hw, rng)
        if source is None:
            source = self._draw_rectangle(mask, scaled_hw, inside_hw, rng)
        return _Drawn(source, inside_hw, flip, matrix)

    def _aimed_rectangle(
        self, mask: NDArray[Any], scaled_hw: Size, inside_hw: Size, rng: np.random.Generator
    ) -> Rectangle | None:
        """Draw a crop as `_draw_rectangle` does, but one that holds a drawn pixel of a drawn class, or None."""
        if self.odds_K is None or not rng.random() < self.config.rare_crops:
            return None
        counts = np.bincount(mask[mask != self.ignore], minlength=len(self.odds_K))
        odds = np.where(counts > 0, self.odds_K, 0.0)
        if not odds.sum() > 0:
            return None
        aimed = rng.choice(len(odds), p=odds / odds.sum())
        pixel = np.flatnonzero(mask == aimed)[rng.integers(counts[aimed])]
        factors = mask.shape[0] / scaled_hw[0], mask.shape[1] / scaled_hw[1]
        corner = []
        for place, factor, scaled, inside in zip(
            divmod(pixel, mask.shape[1]), factors, scaled_hw, inside_hw, strict=True
        ):
            hit = min(int((place + 0.5) / factor), scaled - 1)
            corner.append(int(rng.integers(max(0, hit - inside + 1), min(scaled - inside, hit) + 1)))
        (top, left), (y_factor, x_factor) = corner, factors
        return top * y_factor, left * x_factor, inside_hw[0] * y_factor, inside_hw[1] * x_factor

    def _draw_rectangle(
        self, mask: NDArray[Any], scaled_hw: Size, inside_hw: Size, rng: np.random.Generator
    ) -> Rectangle:
        """Draw a crop of `inside_hw` from the image scaled to `scaled_hw`; returned in pixels of the image itself."""
        y_factor, x_factor = mask.shape[0] / scaled_hw[0], mask.shape[1] / scaled_hw[1]
        spare_hw = scaled_hw[0] - inside_hw[0], scaled_hw[1] - inside_hw[1]
        for _ in range(REDRAWS + 1):
            top, left = int(rng.integers(spare_hw[0] + 1)), int(rng.integers(spare_hw[1] + 1))
            source = (top * y_factor, left * x_factor, inside_hw[0] * y_factor, inside_hw[1] * x_factor)
            if self.config.max_one_class >= 1 or spare_hw == (0, 0):
                break
            if self._largest_share(mask, source, inside_hw) <= self.config.max_one_class:
                break
        return source

    def _largest_share(self, mask: NDArray[Any], source: Rectangle, inside_hw: Size) -> float:
        """The largest class's share of the crop's labelled pixels, seen at a grid of points; 1 if none is labelled."""
        from terrazzo.kernels.crop_resize import nearest_rows_columns

        grid_hw = min(GRID, inside_hw[0]), min(GRID, inside_hw[1])
        rows, columns = nearest_rows_columns(mask.shape, source, grid_hw)
        seen = mask[rows[:, None], columns].ravel()
        counts = np.bincount(seen[seen != self.ignore], minlength=1)
        labelled = int(counts.sum())
        return float(counts.max() / labelled) if labelled else 1.0


def colour_matrix(config: DataConfig, channels: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw one colour change: (C, C + 1) float32, to be multiplied with (pixel in [0, 1], 1).

    Each of the four happens with `color_probability`: brightness adds b in ± `brightness`; contrast multiplies by
    c in 1 ± `contrast`; saturation mixes with the grey of equal luma by s in 1 ± `saturation`; hue turns the colour
    round the grey axis (in YIQ, which keeps luma) by ± `hue` turns. In all: c * turn(saturate(pixel)) + c * b.
    Saturation and hue are for RGB, three channels; others get brightness and contrast. Eight numbers are drawn in any
    case, so the draws after them do not depend on the configuration.

    The ranges are those of SSD's photometric distortion (Liu et al. 2016), which MMSegmentation uses; it turns
    hue in HSV, clips after every change and draws their order, where we compose first and clip once. With its numbers
    (a hue of 0.1) colours move as far as there: on average by 0.098 of the range, there by 0.103, for even colours.
    """
    happens = rng.random(4) < config.color_probability
    b, c, s, h = np.where(happens, rng.uniform(-1.0, 1.0, 4), 0.0)
    shift, contrast = b * config.brightness, 1.0 + c * config.contrast
    linear = np.eye(channels)
    if channels == 3:
        factor, angle = 1.0 + s * config.saturation, 2 * math.pi * h * config.hue
        linear = factor * linear + (1.0 - factor) * LUMA  # every row mixes with the same grey
        if angle:
            turn = np.eye(3)
            turn[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            linear = np.linalg.inv(YIQ) @ turn @ YIQ @ linear
    matrix = np.empty((channels, channels + 1), np.float32)
    matrix[:, :-1] = contrast * linear
    matrix[:, -1] = contrast * shift
    return matrix


def _mask_of(sample: Sample | Unread) -> NDArray[Any]:
    if sample.mask is None:
        assert isinstance(sample, Sample)
        raise DatasetFormatError(
            f"The sample {sample.name} has no mask; training needs one for every image.",
            hint="Train on a split whose images all have masks. To see what is missing:",
            command="terrazzo check DATA",
        )
    return sample.mask


def _scaled(size_hw: Size, factor: float) -> Size:
    return max(1, round(size_hw[0] * factor)), max(1, round(size_hw[1] * factor))


def _white(dtype: np.dtype[Any]) -> float:
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def _limits(crop: NDArray[Any]) -> tuple[float, float]:
    """Between which values changed colours are clipped: black and white, wider where float data is wider itself."""
    if crop.dtype != np.float32:
        return 0.0, 1.0
    return min(0.0, float(crop.min())), max(1.0, float(crop.max()))
