"""Which columns of a table are the image and the mask: told by name and kind, refused in words where they cannot be."""

from collections.abc import Mapping
from typing import Any

from terrazzo.errors import DatasetFormatError

IMAGE_COLUMNS = ("image", "pixel_values")
MASK_COLUMNS = ("label", "annotation", "mask", "segmentation")
REGION_COLUMN = "label.segmentation_bitmap"  # as release2dataset of Segments.ai called it


def find_columns(features: Mapping[str, Any], title: str) -> tuple[str, str | None]:
    """Return the names of the image column and of the mask column, None where there is none.

    features: those of `datasets`, by column. Raises DatasetFormatError where they cannot be told.
    """
    pictures = [name for name, feature in features.items() if _is_picture(feature)]
    image = next((name for name in IMAGE_COLUMNS if name in pictures), None)
    masks = [name for name in MASK_COLUMNS if name in pictures]
    if image is None or len(masks) > 1 or (not masks and _labels_are_numbers(features)):
        what = (
            "no image column" if image is None else "more than one mask column" if masks else "no mask column"
        )
        raise unknown_columns(features, title, what)
    return image, masks[0] if masks else None


def unknown_columns(features: Mapping[str, Any], title: str, what: str) -> DatasetFormatError:
    hint = (
        "A label that is one number classifies the whole image. Otherwise rename the columns, as in "
        'datasets: table.rename_column("old", "label"), then save_to_disk.'
    )
    if REGION_COLUMN in features:
        hint = (
            "Its bitmaps hold region ids, whose categories stand in another column. terrazzo.region_ids.category_map "
            "puts them together; a release itself gives a table that opens here with --columns semantic."
        )
    kinds = ", ".join(f"{name} ({_kind(feature)})" for name, feature in features.items())
    return DatasetFormatError(
        f"{title} has {what} that terrazzo knows.",
        found=f"columns {kinds}",
        expected=f"an image in {' or '.join(IMAGE_COLUMNS)}; a mask in one of {', '.join(MASK_COLUMNS)}",
        hint=hint,
    )


def _is_picture(feature: Any) -> bool:
    """True for columns that can hold an image: encoded, raw bytes, or numbers in two or three dimensions."""
    import datasets

    if isinstance(feature, datasets.Image | datasets.Array2D | datasets.Array3D):
        return True
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("binary", "large_binary")
    inner = getattr(feature, "feature", None)  # a list of lists
    return inner is not None and getattr(inner, "feature", None) is not None


def _labels_are_numbers(features: Mapping[str, Any]) -> bool:
    import datasets

    return any(isinstance(features.get(name), datasets.ClassLabel | datasets.Value) for name in MASK_COLUMNS)


def _kind(feature: Any) -> str:
    name = type(feature).__name__
    return f"{feature.dtype}" if name == "Value" else "struct" if name == "dict" else name
