"""One small image of every form that is read, and the law of what reading one gives."""

from pathlib import Path
from typing import Any

import numpy as np

from mutation.law import BrokenError, check_words


def write_forms(folder: Path) -> None:
    """One small file of every form that is read."""
    import tifffile
    from PIL import Image

    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (24, 36, 3), dtype=np.uint8)
    ids = np.repeat(np.repeat(rng.integers(0, 5, (6, 9), dtype=np.uint8), 4, 0), 4, 1)
    Image.fromarray(rgb).save(folder / "rgb.png")
    Image.fromarray(np.dstack([rgb, ids])).save(folder / "rgba.png")
    Image.fromarray(ids).save(folder / "ids.png")
    Image.fromarray(ids.astype(np.uint16) * 300).save(folder / "ids16.png")
    Image.fromarray(ids > 2).save(folder / "bits.png")
    from terrazzo.images import write_image, write_mask

    write_mask(
        folder / "palette.png", ids, np.asarray([[i, 9, 255 - i] for i in range(9)], np.uint8), durable=False
    )
    write_image(folder / "deep.png", rgb.astype(np.uint16) * 257, durable=False)
    Image.fromarray(rgb).save(folder / "rgb.jpg", quality=80)
    Image.fromarray(rgb).save(folder / "progressive.jpg", progressive=True, exif=Image.Exif().tobytes())
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(rgb).save(folder / "lossy.webp")
    Image.fromarray(ids).convert("RGB").save(folder / "lossless.webp", lossless=True)
    Image.fromarray(ids).save(folder / "ids.gif")
    Image.fromarray(rgb).save(folder / "rgb.bmp")
    Image.fromarray(ids).save(folder / "ids.bmp")
    Image.fromarray(rgb).save(folder / "rgb.ppm")
    Image.fromarray(ids).save(folder / "ids.pgm")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
        picture = Image.fromarray(ids > 2) if compression == "group4" else Image.fromarray(rgb)
        picture.save(folder / f"{compression}.tif", compression=compression)
    tifffile.imwrite(
        folder / "bands.tif",
        rng.random((24, 36, 5), dtype=np.float32),
        planarconfig="contig",
        photometric="minisblack",
    )
    tifffile.imwrite(folder / "ids32.tif", ids.astype(np.uint32), compression="deflate")
    tifffile.imwrite(
        folder / "tiles.tif", np.tile(ids, (4, 4)), tile=(32, 32), compression="deflate", predictor=True
    )
    tifffile.imwrite(folder / "big.tif", ids.astype(np.int16), bigtiff=True)


def read_one(folder: Path, out: Path) -> None:
    """Read a file as an image, as a mask, and its size; the three agree, or it is refused as an image."""
    from terrazzo.errors import TerrazzoError
    from terrazzo.images import check_whole, image_size, read_image, read_mask

    path = next(iter(sorted(folder.iterdir())), folder / "gone.png")
    found: dict[str, Any] = {}
    errors: dict[str, TerrazzoError] = {}
    readers: dict[str, Any] = {"size": image_size, "image": read_image, "mask": read_mask}
    if path.is_file():
        readers["whole"] = lambda path: check_whole(path.read_bytes(), where=str(path))
    for kind, read in readers.items():
        try:
            found[kind] = read(path)
        except TerrazzoError as error:
            check_words(error)
            errors[kind] = error
    for kind, dtypes in (("image", ("uint8", "uint16", "float32")), ("mask", ("uint8", "uint16"))):
        array = found.get(kind)
        if array is not None and (array.shape[:2] != found.get("size") or str(array.dtype) not in dtypes):
            raise BrokenError(f"{kind} {array.shape}, {array.dtype}; its size is {found.get('size')}")
    if "whole" in readers and ("whole" in found) != ("image" in found) and _is_about_the_file(errors):
        raise BrokenError(
            f"looked at alone it is {found.get('whole')}, decoded it is {'image' in found}: {errors}"
        )
    if "image" in errors:
        raise errors["image"]


def _is_about_the_file(errors: dict[str, Any]) -> bool:
    """False where an image is whole, and holds what is none: NaN, or ids of 32 bits."""
    return "holds" not in str(errors.get("image"))
