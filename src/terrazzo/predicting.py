"""Predicting to disk: images and videos in, one folder of masks, colours, overlays and shares out.

The eye is `inference.Predictor`, what is written of one image is `Prediction.save`; here is the road between them.
While the network is at work the next images are decoded and the last ones written; memory grows neither with the
number of images nor with the length of a video. Processes that a launcher started together share the sources.

    out/
      masks/ colors/ overlays/ shares/ …     of images, as `prediction.py` says; of videos where frames are asked for
      videos/NAME.mp4                        its frames under the colours of their classes
      videos/NAME.csv                        frame, seconds, and the share of each class in it
      videos/NAME.json                       the model, and how many frames: its presence says that these are ours
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from terrazzo.errors import DataError, TerrazzoError, UsageError
from terrazzo.filming import film
from terrazzo.inference import Predictor, ahead, load
from terrazzo.kernels.threads import shared_by
from terrazzo.launcher import place
from terrazzo.prediction import USUAL, Prediction
from terrazzo.progress import track
from terrazzo.remote import is_url
from terrazzo.sources import Source, find_sources

SHOWN = 10  # how many unreadable images an error lists
WRITERS = 2  # threads that pack and write
HELD = 4  # predictions that wait to be written


def predict(
    model: "str | os.PathLike[str] | Predictor",
    sources: "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]",
    *,
    out: "str | os.PathLike[str]",
    ids: Literal["class", "raw"] = "class",
    confidence: bool = False,
    parts: Sequence[str] = USUAL,
    frames: bool = False,
    seconds: float | None = None,
    inference: Literal["whole", "windows"] | None = None,
    blend: Literal["uniform", "smooth"] | None = None,
    flip: bool | None = None,
    scales: Sequence[float] | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "f32",
    backend: str = "auto",
    overwrite: bool = False,
    config: "str | os.PathLike[str] | None" = None,
    quiet: bool = False,
) -> list[Path]:
    """Predict all that `sources` name (files, folders, globs, URLs, "camera:0", "rtsp://…") into the folder `out`.

    Returns the masks of images, then the overlays of videos; under a launcher those of this process.
    model: whatever `load` takes, config with it, or a Predictor. ids: "raw" writes the data set's own ids. parts: what
    is written of an image, of prediction.PARTS. frames: write that of every frame of a video too. seconds: how much of
    each video is looked at; when None all of it, and of what is live all until Ctrl-C.
    inference, blend, flip, scales, batch_size: fields of `recipe.eval`, as the model's recipe has them unless given.
    overwrite: replace files in `out` that this model did not write, or that were changed since. What cannot be read is
    left out and named in the DataError at the end; the others are predicted. Raises ExistingOutputError,
    MissingPathError, UsageError; StorageError when the disk is full.
    """
    if is_url(out):
        raise UsageError("Masks are written to a folder on this machine.", found=f"--out {out}")
    named = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    mine = place()
    found = find_sources(named, outside=Path(out), videos=True)[mine.rank :: mine.world]
    predictor = (
        model
        if isinstance(model, Predictor)
        else load(model, backend=backend, device=device, precision=precision, config=config)
    )
    if not quiet and mine.rank == 0:
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
    predictor = predictor.with_eval(look)
    unreadable: list[tuple[Source, TerrazzoError]] = []

    def note(image: Any, error: TerrazzoError) -> None:
        unreadable.append((image, error))

    def save(prediction: Prediction) -> Path:
        return prediction.save(out, ids=ids, parts=parts, overwrite=overwrite)

    images, videos = ([source for source in found if source.is_video == wanted] for wanted in (False, True))
    passes = predictor.passes if len(images) > 1 else 1
    with shared_by(passes):
        predictions = predictor.stream(images, confidence=confidence, on_error=note, passes=passes)
        saved = ahead(save, predictions, depth=HELD, threads=WRITERS)
        written = list(track(saved, total=len(images), what="predict", quiet=quiet))
    for video in videos:
        try:
            written.append(
                film(
                    predictor,
                    video,
                    Path(out),
                    seconds=seconds,
                    save=save if frames else None,
                    confidence=confidence,
                    overwrite=overwrite,
                    quiet=quiet,
                )
            )
        except DataError as error:
            note(video, error)
    if unreadable:
        raise unreadable[0][1] if len(found) == 1 else _left_out(unreadable, len(found), out)
    return written


def _left_out(
    unreadable: Sequence[tuple[Source, TerrazzoError]], total: int, out: "str | os.PathLike[str]"
) -> DataError:
    listed = [str(error) for _, error in unreadable[:SHOWN]]
    if len(unreadable) > SHOWN:
        listed.append(f"… and {len(unreadable) - SHOWN} more")
    others = total - len(unreadable)
    if others:
        told = "The other one is" if others == 1 else f"The other {others} are"
        listed.append(f"{told} predicted, in {os.fspath(out)}.")
    what = "sources" if any(source.is_video for source, _ in unreadable) else "images"
    return DataError(f"{len(unreadable)} of {total} {what} could not be predicted.", hint="\n".join(listed))
