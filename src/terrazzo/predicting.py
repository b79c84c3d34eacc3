"""Predicting many images to disk: sources in, one folder of masks, colours, overlays and shares out.

The eye is `inference.Predictor`, what is written of one image is `Prediction.save`; here is the road between them.
Memory does not grow with the number of images.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from terrazzo.errors import DataError, TerrazzoError, UsageError
from terrazzo.inference import Predictor, load
from terrazzo.progress import track
from terrazzo.remote import is_url
from terrazzo.sources import Source, find_sources

SHOWN = 10  # how many unreadable images an error lists


def predict(
    model: "str | os.PathLike[str] | Predictor",
    sources: "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]",
    *,
    out: "str | os.PathLike[str]",
    ids: Literal["class", "raw"] = "class",
    confidence: bool = False,
    inference: Literal["whole", "windows"] | None = None,
    blend: Literal["uniform", "smooth"] | None = None,
    flip: bool | None = None,
    scales: Sequence[float] | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "f32",
    overwrite: bool = False,
    config: "str | os.PathLike[str] | None" = None,
    quiet: bool = False,
) -> list[Path]:
    """Predict every image that `sources` (files, folders, globs, URLs) name into the folder `out`; return the masks.

    model: whatever `load` takes, config with it, or a Predictor. ids: "raw" writes the data set's own ids. inference,
    blend, flip, scales, batch_size: the fields of `recipe.eval`, as the model's recipe has them unless given.
    overwrite: replace files in `out` that this model did not write, or that were changed since. Images that cannot be
    read are left out and named in the DataError at the end; the others are predicted. Raises ExistingOutputError,
    MissingPathError, UsageError; StorageError when the disk is full.
    """
    if is_url(out):
        raise UsageError("Masks are written to a folder on this machine.", found=f"--out {out}")
    named = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    images = find_sources(named, outside=Path(out))
    predictor = (
        model
        if isinstance(model, Predictor)
        else load(model, device=device, precision=precision, config=config)
    )
    if not quiet:
        for line in predictor.notes:
            print(line, file=sys.stderr)
    look = predictor.eval
    look = replace(
        look,
        inference=inference or look.inference,
        blend=blend or look.blend,
        flip=look.flip if flip is None else flip,
        scales=look.scales if scales is None else tuple(scales),
        batch_size=batch_size or look.batch_size,
    )
    unreadable: list[tuple[Source, TerrazzoError]] = []

    def note(image: Any, error: TerrazzoError) -> None:
        unreadable.append((image, error))

    predictions = predictor.with_eval(look).stream(images, confidence=confidence, on_error=note)
    masks = [
        prediction.save(out, ids=ids, overwrite=overwrite)
        for prediction in track(predictions, total=len(images), what="predict", quiet=quiet)
    ]
    if unreadable:
        raise unreadable[0][1] if len(images) == 1 else _left_out(unreadable, len(images), out)
    return masks


def _left_out(
    unreadable: Sequence[tuple[Source, TerrazzoError]], total: int, out: "str | os.PathLike[str]"
) -> DataError:
    listed = [str(error) for _, error in unreadable[:SHOWN]]
    if len(unreadable) > SHOWN:
        listed.append(f"… and {len(unreadable) - SHOWN} more")
    listed.append(f"The other {total - len(unreadable)} are predicted, in {os.fspath(out)}.")
    return DataError(f"{len(unreadable)} of {total} images could not be read.", hint="\n".join(listed))
