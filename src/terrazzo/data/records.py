"""What a place that holds images and masks must offer, so that a data set can be made of it, and what it may offer."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from terrazzo.reduced import Reduced


class Records(Protocol):
    """The raw images and masks of one split, where they lie; cheap to pickle, no open files."""

    @property
    def names(self) -> tuple[str, ...]:
        """One per image, distinct, stable over machines."""
        ...

    @property
    def has_masks(self) -> bool:
        """True when every image has a mask; False when none has."""
        ...

    def image(self, index: int, channels: int | None) -> NDArray[Any]:
        """Return the image (H, W, C), as `images.read_image`."""
        ...

    def mask(self, index: int) -> NDArray[Any]:
        """Return the raw ids (H, W), as `images.read_mask`."""
        ...

    def size_hw(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the image, from its header."""
        ...

    def where(self, index: int, *, mask: bool = False) -> str:
        """Return the path of the image, or of its mask, or what names them to a person."""
        ...

    def hashes(self, indices: Sequence[int], *, location: str) -> list[str]:
        """Return the content hashes of these records, image and mask together."""
        ...


@runtime_checkable
class Sharded(Protocol):
    """What records offer besides where many are fetched at a time, such as the row groups of a stream."""

    @property
    def shard_of(self) -> NDArray[np.int64] | None:
        """For each record, what it is fetched with; None where each is read alone after all."""
        ...

    def expect(self, shards: Sequence[int]) -> None:
        """Hold these shards, fetched ahead in this order, and drop those expected before."""
        ...

    def bytes_of(self, shards: Sequence[int]) -> int:
        """Return the memory that shards take."""
        ...


@runtime_checkable
class Reducible(Protocol):
    """What records offer besides where images may be JPEGs."""

    def reduced(self, index: int, channels: int | None, divisor: int) -> Reduced:
        """Return the image as `image` does, but a JPEG at 1 / divisor of its sides."""
        ...


def read_reduced(records: Records, index: int, channels: int | None, divisor: int) -> Reduced:
    """Return an image of `records`, a JPEG at 1 / divisor of its sides; whole where it is none, or they know none."""
    if isinstance(records, Reducible):
        return records.reduced(index, channels, divisor)
    return Reduced.whole(records.image(index, channels))
