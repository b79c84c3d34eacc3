"""One video through the eye: its frames under the colours of their classes, and their shares, written as they come.

`predicting.py` says where the files lie. A file is answered whole or not at all; what is live (a camera, a stream) goes
on until Ctrl-C, which ends the recording in order.
"""

import csv
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import ExistingOutputError, TerrazzoError, UnreadableFileError
from terrazzo.inference import Predictor, ahead
from terrazzo.kernels.threads import shared_by
from terrazzo.prediction import Prediction
from terrazzo.progress import track
from terrazzo.sources import Source
from terrazzo.stopping import StopSignals
from terrazzo.storage import read_json, replacing, write_json
from terrazzo.video import Video, VideoWriter, new_video

HELD = 4  # frames that wait to be written


def film(
    predictor: Predictor,
    source: Source,
    out: Path,
    *,
    seconds: float | None = None,
    save: Callable[[Prediction], Path] | None = None,
    confidence: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Predict the frames of the video `source` and return the path of the overlay, out/videos/NAME.mp4.

    The overlay has the rate and the size of the video. Of a live source the newest frame is looked at each time, and
    shown until the next one, so that the overlay plays as fast as life. seconds: stop after so many. save: called with
    each frame's prediction, named NAME/000000 and so on. overwrite: replace what another model made.
    Raises UnreadableFileError for what is no video, and, with what there was written, for a file that breaks off.
    """
    overlay, table, record = (
        out / "videos" / f"{source.name}{suffix}" for suffix in (".mp4", ".csv", ".json")
    )
    if not overwrite:
        _refuse_foreign(overlay, record, predictor.name)
    stop = StopSignals()
    with Video(source.path) as video, stop if video.live else nullcontext():
        within = math.inf if seconds is None else seconds
        times: deque[float] = deque()  # of the frames that are on their way

        def images() -> Iterator[NDArray[np.uint8]]:
            for frame in takewhile(lambda frame: stop.received is None and frame.seconds < within, video):
                times.append(frame.seconds)
                yield frame.image

        passes = 1 if video.live else predictor.passes
        with (
            shared_by(passes),
            new_video(overlay, rate=video.rate) as writer,
            _new_table(table, predictor.classes.names) as rows,
        ):
            recording = _Recording(writer, rows, video.live, source.name, save)
            predictions = predictor.stream(images(), confidence=confidence, passes=passes)
            timed = ((times.popleft(), prediction) for prediction in predictions)
            written = ahead(lambda pair: recording.add(*pair), timed, depth=HELD)
            total = 0 if video.count is None else math.ceil(min(within * video.rate, video.count))
            for _ in track(written, total=total, what=source.name, quiet=quiet):
                pass
            if not recording.num_frames:
                raise UnreadableFileError(
                    f"{video.where} gave no picture.", expected="a video with at least one frame"
                )
    is_whole = not video.broke_off or seconds is not None
    known = {"model": predictor.name, "frames": recording.num_frames, "rate": video.rate, "whole": is_whole}
    write_json(record, known, durable=False)
    if not is_whole:
        raise UnreadableFileError(
            f"{video.where} breaks off.",
            found=f"{video.num_read:,} frames",
            expected=f"{video.count:,}, as it says itself",
            hint=f"What there is has been predicted: {overlay}",
        )
    return overlay


@dataclass
class _Recording:
    """What has been written of a video so far."""

    writer: VideoWriter
    write_row: Callable[[Sequence[object]], object]
    live: bool
    name: str
    save: Callable[[Prediction], Path] | None
    num_frames: int = 0
    """That were looked at."""
    last: NDArray[np.uint8] | None = None
    """The last picture."""

    def add(self, seconds: float, prediction: Prediction) -> None:
        """Write one frame, in the order of the frames."""
        if self.save is not None:
            self.save(replace(prediction, name=f"{self.name}/{self.num_frames:06d}"))
        picture = np.asarray(prediction.overlay())
        due = round(seconds * self.writer.rate)  # frames that a player has shown by now
        while self.live and self.last is not None and self.writer.num_written < due:
            self.writer.write(self.last)
        if not self.live or self.writer.num_written <= due:
            self.writer.write(picture)
        self.last = picture
        shares = [f"{share:.6f}" for share in prediction.shares().values()]
        self.write_row([self.num_frames, f"{seconds:.3f}", *shares])
        self.num_frames += 1


@contextmanager
def _new_table(path: Path, names: Sequence[str]) -> Iterator[Callable[[Sequence[object]], object]]:
    """Yield what appends a row to the new CSV file `path`, which appears whole when the block ends, or not at all."""
    with (
        replacing(path, durable=False) as beside,
        open(beside, "w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        harmless = [
            f"'{name}" if name.startswith(("=", "+", "-", "@")) else name for name in names
        ]  # no formulas
        table.writerow(["frame", "seconds", *harmless])
        yield table.writerow


def _refuse_foreign(overlay: Path, record: Path, model: str) -> None:
    if not overlay.exists() and not record.exists():
        return
    try:
        known = read_json(record)["model"]
    except (TerrazzoError, KeyError, TypeError):
        known = None
    if known != model:
        raise ExistingOutputError(
            f"{overlay} is already there and was not predicted by this model.",
            found=f"model {known}" if known else f"no record of it in {record}",
            hint="Nothing was overwritten: it may be someone's work. Choose another folder, or say overwrite "
            "(--overwrite).",
        )
