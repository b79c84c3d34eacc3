"""Video: files, network streams and cameras to RGB frames, and frames to a file.

OpenCV opens them (extra `video`; Apache-2.0, its FFmpeg is LGPL), when one is opened and not before. Frames are read
in a thread of their own, a few ahead. A file gives every frame; what is live (a camera, rtsp://) gives the newest one,
so that a slow reader sees the present and not an ever longer queue.
"""

import contextlib
import errno
import os
import queue
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import (
    ImageFormatError,
    MissingExtraError,
    MissingPathError,
    StorageError,
    UnreadableFileError,
    UsageError,
)
from terrazzo.remote import is_url, is_web
from terrazzo.storage import replacing

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
STREAMS = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "udp://")
CAMERA = "camera:"  # camera:0 is the first
DEPTH = 4  # frames read ahead
PATIENCE = 10  # seconds for a stream to open, and between two frames of it
USUAL_RATE = 25.0  # frames a second, where a source does not tell
SLACK = 0.02  # share of the frames that a container may claim and not have; counts are estimates in some


@dataclass(frozen=True)
class Frame:
    """One picture of a video."""

    image: NDArray[np.uint8]
    """(H, W, 3) RGB, upright."""
    seconds: float
    """Since the first: by the file's rate, or by the clock where it is live."""


def is_live(source: str | os.PathLike[str]) -> bool:
    """True for cameras ("camera:0") and network streams ("rtsp://…")."""
    return os.fspath(source).lower().startswith((CAMERA, *STREAMS))


def is_video(source: str | os.PathLike[str]) -> bool:
    """True for what is live, and for files by their suffix."""
    return is_live(source) or Path(source).suffix.lower() in VIDEO_SUFFIXES


class Video:
    """An open video; iterating it once yields its frames.

    >>> with Video("drive.mp4") as video:
    ...     for frame in video:
    ...         print(frame.seconds, frame.image.shape)
    """

    def __init__(self, source: str | os.PathLike[str], *, live: bool | None = None) -> None:
        """live: whether frames are left out to keep up with the present; by the kind of source when None.

        Raises MissingExtraError without OpenCV, MissingPathError, and UnreadableFileError for what is no video.
        """
        from terrazzo.decoding import check_size

        cv2 = _cv2()
        self.where = _shown(os.fspath(source))
        self.live = is_live(source) if live is None else live
        if is_url(source) and not (is_live(source) or is_web(os.fspath(source))):
            raise UsageError(
                f"{self.where} cannot be played from where it is.",
                expected="a file, http://…, https://…, rtsp://… or camera:0",
                hint="Copy it to this machine first.",
            )
        if not is_live(source) and not is_url(source) and not Path(source).is_file():
            raise MissingPathError(f"There is no video {self.where}.")
        self._capture = _opened(cv2, os.fspath(source))
        width, height = (
            int(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width <= 0 or height <= 0:
            self._capture.release()
            raise _unreadable(self.where)
        check_size(width, height, where=self.where)
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.rate = rate if 0.1 <= rate <= 1000 else USUAL_RATE
        """Frames a second."""
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = count if count > 0 and not is_live(source) else None
        """How many frames the file claims; None where nobody knows."""
        self.num_read = 0
        self._queue: queue.Queue[Frame | BaseException | None] = queue.Queue(1 if self.live else DEPTH)
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, name="terrazzo-video", daemon=True)

    @property
    def broke_off(self) -> bool:
        """True when a file that was read to its end gave fewer frames than it claims."""
        return self.count is not None and self.num_read < self.count * (1 - SLACK) - 1

    def __iter__(self) -> Iterator[Frame]:
        self._reader.start()
        while (frame := self._queue.get()) is not None:
            if isinstance(frame, BaseException):
                raise frame
            yield frame

    def close(self) -> None:
        """Let go of the file or the camera."""
        self._ended.set()
        if self._reader.ident is not None:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
            self._reader.join()
        self._capture.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        started, size = time.monotonic(), None
        try:
            while not self._ended.is_set():
                there, bgr = self._capture.read()
                if not there:
                    break
                image = np.ascontiguousarray(bgr[:, :, ::-1])
                if size is not None and image.shape != size:
                    raise ImageFormatError(
                        f"{self.where} changes its size.",
                        found=f"{image.shape[1]}x{image.shape[0]} after {self.num_read} frames",
                        expected=f"{size[1]}x{size[0]}, as its first frame",
                    )
                size = image.shape
                seconds = time.monotonic() - started if self.live else self.num_read / self.rate
                self.num_read += 1
                self._put(Frame(image, seconds))
        except Exception as error:  # the reader's turn ends; who iterates is told
            self._put(error)
        self._put(None)

    def _put(self, item: Frame | BaseException | None) -> None:
        if self.live and isinstance(item, Frame):
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()  # one that nobody has looked at yet
        while not self._ended.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return


class VideoWriter:
    """Appends frames to a video; `new_video` makes one."""

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self.num_written = 0
        self._writer: Any = None

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append a frame (H, W, 3) RGB; all have one size. A side that is odd gets one more row or column."""
        cv2 = _cv2()
        height, width = image.shape[:2]
        bgr = np.pad(image[:, :, ::-1], ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._writer is None:
            size = (bgr.shape[1], bgr.shape[0])
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*"mp4v"), self.rate, size)
            if not self._writer.isOpened():
                raise StorageError(
                    f"No video can be written to {self.path.parent}.", found="OpenCV could not begin one"
                )
        self._writer.write(bgr)
        self.num_written += 1

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.release()


@contextlib.contextmanager
def new_video(path: str | os.PathLike[str], *, rate: float) -> Iterator[VideoWriter]:
    """Yield a writer of the .mp4 (MPEG-4) `path`, which appears whole when the block ends, or not at all.

    rate: frames a second. Raises StorageError when the disk is full.
    """
    with replacing(Path(path), durable=False) as beside:
        draft = beside.with_name(f"{beside.name}.mp4")  # its suffix chooses the container
        writer = VideoWriter(draft, rate)
        try:
            yield writer
            writer.close()
            whole = _count(draft)  # OpenCV does not tell of a full disk
            if whole != writer.num_written:
                raise OSError(errno.ENOSPC, f"{whole} of {writer.num_written} frames are in the file")
            os.replace(draft, beside)
        finally:
            writer.close()
            draft.unlink(missing_ok=True)


def _count(path: Path) -> int | None:
    try:
        with Video(path) as video:
            return video.count
    except UnreadableFileError:
        return None


def _opened(cv2: ModuleType, where: str) -> Any:
    """An open cv2.VideoCapture; what its libraries would print is kept from the terminal."""
    if where.lower().startswith(CAMERA):
        number = where[len(CAMERA) :]
        capture = cv2.VideoCapture(int(number)) if number.isdigit() else None
        if capture is None or not capture.isOpened():
            raise MissingPathError(
                f"There is no camera {number!r}.",
                expected="camera:0 for the first one, camera:1 for the second",
                hint="On Linux, what there is:",
                command="ls /dev/video*",
            )
        return capture
    limits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        1000 * PATIENCE,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        1000 * PATIENCE,
    ]
    capture = cv2.VideoCapture(where, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        if is_live(where):
            raise UnreadableFileError(
                f"The stream {_shown(where)} does not open.",
                found=f"no picture within {PATIENCE} seconds",
                hint="Is its address right, user and password included (rtsp://user:password@camera/…), and does a "
                "player open it from this machine?",
            )
        raise _unreadable(where)
    return capture


def _unreadable(where: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{where} cannot be read: it is damaged, or no video that OpenCV knows.",
        expected="MP4, MKV, AVI, MOV or WebM with a picture",
        hint="A recording that was cut off has no index; a copy often helps:",
        command="ffmpeg -i SOURCE -c copy MENDED.mkv",
    )


def _shown(where: str) -> str:
    """The source without the password that its address may hold."""
    return re.sub(r"^(\w+://)[^/@]*@", r"\1…@", where)


def _cv2() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError(
            "Video needs OpenCV, which is not installed.",
            hint="Install it:",
            command='pip install "terrazzo[video]"',
        ) from error
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what matters is said in our words
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    return cv2
