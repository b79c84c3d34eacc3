"""One image and, where there is one, its mask; shapes and dtypes are checked at birth.

Ids are checked where the table is known: `Classes.check_mask`, `Remap.__call__`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import ImageFormatError, MaskSizeError, MaskValueError

IMAGE_DTYPES = (np.uint8, np.uint16, np.float32)


@dataclass(frozen=True, eq=False)
class Sample:
    """An image and its mask, at the size they were published."""

    image: NDArray[Any]
    """(H, W, C) uint8, uint16, or float32 in [0, 1]; RGB uint8 by default."""
    mask: NDArray[Any] | None
    """(H, W) uint8 or uint16 class ids, 0 … K-1 and ignore; None where there is none (a test split)."""
    name: str
    """The name within its split, such as "0001TP_006690" or "aachen/000012"; stable over machines."""

    def __post_init__(self) -> None:
        check_image(self.image, where=self.name)
        if self.mask is None:
            return
        if self.mask.ndim != 2 or self.mask.dtype not in (np.uint8, np.uint16):
            raise MaskValueError(
                f"The mask of {self.name} is not a map of class ids.",
                found=f"shape {self.mask.shape}, {self.mask.dtype}",
                expected="(H, W) uint8 or uint16",
            )
        if self.mask.shape != self.image.shape[:2]:
            raise MaskSizeError(
                f"The mask of {self.name} has another size than its image.",
                found=f"mask {self.mask.shape[0]}x{self.mask.shape[1]} (height x width)",
                expected=f"{self.image.shape[0]}x{self.image.shape[1]}, as the image",
                hint="A mask must be drawn on its image at full size, EXIF rotation applied. To see every such file:",
                command="terrazzo check DATA",
            )

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the image."""
        return self.image.shape[0], self.image.shape[1]


def check_image(image: NDArray[Any], *, where: str) -> None:
    """Raise ImageFormatError unless `image` is (H, W, C) uint8, uint16 or float32 with at least one pixel."""
    if image.ndim != 3 or image.dtype not in IMAGE_DTYPES or 0 in image.shape:
        raise ImageFormatError(
            f"The image {where} has a form terrazzo does not take.",
            found=f"shape {image.shape}, {image.dtype}",
            expected="(height, width, channels), uint8, uint16 or float32 in [0, 1]",
        )
