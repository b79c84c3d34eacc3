"""Frames out of videos and into them: compared with what OpenCV reads of the same files, and with what was drawn."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrazzo import video
from terrazzo.errors import (
    ImageFormatError,
    MissingExtraError,
    MissingPathError,
    StorageError,
    UnreadableFileError,
    UsageError,
)
from terrazzo.video import Video, is_live, is_video, new_video

cv2 = pytest.importorskip("cv2")


def lossless(path: Path, images: list[np.ndarray], rate: float = 10) -> Path:
    """Write RGB frames as FFV1, which keeps every value; written by OpenCV alone."""
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), rate, (width, height))
    for image in images:
        writer.write(np.ascontiguousarray(image[:, :, ::-1]))
    writer.release()
    return path


def drawn(count: int, size_hw: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Frames whose left column says which one it is, in 8-pixel blocks of flat colours."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (count, size_hw[0] // 8, size_hw[1] // 8, 3), np.uint8)
    return [np.kron(block, np.ones((8, 8, 1), np.uint8)) for block in blocks]


def test_every_frame_comes_in_order_and_in_its_colours(tmp_path: Path) -> None:
    images = drawn(30)
    path = lossless(tmp_path / "a.mkv", images, rate=12.5)
    with Video(path) as opened:
        assert (opened.rate, opened.live) == (12.5, False)
        frames = list(opened)
    assert [frame.seconds for frame in frames] == pytest.approx([number / 12.5 for number in range(30)])
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(frame.image.astype(int) - image).max() <= 4  # FFV1 in OpenCV is YUV: rounding alone
    assert not opened.broke_off


@pytest.mark.parametrize("size_hw", [(48, 64), (45, 63)])
def test_what_is_written_is_read_again(size_hw: tuple[int, int], tmp_path: Path) -> None:
    levels = [10, 90, 170, 250]
    with new_video(tmp_path / "deep" / "a.mp4", rate=8) as writer:
        for level in levels:
            writer.write(np.full((*size_hw, 3), (level, 128, 255 - level), np.uint8))
    capture = cv2.VideoCapture(str(tmp_path / "deep" / "a.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 8
    read = [capture.read()[1] for _ in levels]
    assert not capture.read()[0]
    assert read[0].shape == (size_hw[0] + size_hw[0] % 2, size_hw[1] + size_hw[1] % 2, 3)
    for image, level in zip(read, levels, strict=True):
        assert np.abs(image.astype(int) - (255 - level, 128, level)).max() < 8  # BGR, and MPEG-4
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.mp4"]


def test_a_video_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    def stopped() -> None:
        with new_video(tmp_path / "a.mp4", rate=8) as writer:
            writer.write(drawn(1)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV says nothing when a file could not be written to its end; its count of frames does."""
    monkeypatch.setattr(video, "_count", lambda path: 3)

    def written() -> None:
        with new_video(tmp_path / "a.mp4", rate=8) as writer:
            for image in drawn(5):
                writer.write(image)

    with pytest.raises(StorageError, match="The disk is full") as told:
        written()
    assert isinstance(told.value.__cause__, OSError)
    assert told.value.__cause__.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_what_is_live_gives_the_newest_frame(tmp_path: Path) -> None:
    """A slow reader of a fast source: frames are left out, those that come are in order and the last one comes."""
    path = lossless(tmp_path / "a.mkv", drawn(40))
    seen: list[int] = []
    with Video(path, live=True) as opened:
        for frame in opened:
            seen.append(opened.num_read)
            opened._reader.join(0.05)  # slower than the file is read
            assert frame.seconds >= 0
    assert seen == sorted(seen)
    assert len(seen) < 40
    assert opened.num_read == 40


def test_leaving_early_ends_the_reader(tmp_path: Path) -> None:
    path = lossless(tmp_path / "a.mkv", drawn(40))
    with Video(path) as opened:
        next(iter(opened))
    assert not opened._reader.is_alive()


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_file_that_ends_too_early_is_noticed(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (128, 96))
    for image in drawn(30, (96, 128)):
        writer.write(image)
    writer.release()
    data = path.read_bytes()
    noise = np.random.default_rng(0).bytes(len(data) // 2)
    path.write_bytes(data[: len(data) // 2] + (noise if damage == "garbage" else b""))
    with Video(path) as opened:
        frames = list(opened)
    assert 5 < len(frames) < 25
    assert opened.broke_off


def test_what_is_no_video_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(UnreadableFileError, match="damaged, or no video"):
        Video(tmp_path / "a.mp4")
    with pytest.raises(MissingPathError, match=r"There is no video .*b\.mp4"):
        Video(tmp_path / "b.mp4")
    with pytest.raises(MissingPathError, match="There is no camera '93'"):
        Video("camera:93")
    with pytest.raises(MissingPathError, match="There is no camera 'front'"):
        Video("camera:front")
    with pytest.raises(UsageError, match="cannot be played from where it is"):
        Video("s3://bucket/drive.mp4")


def test_a_stream_that_is_not_there_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "PATIENCE", 1)
    with pytest.raises(
        UnreadableFileError, match=r"The stream rtsp://…@127\.0\.0\.1:9/door does not open"
    ) as told:
        Video("rtsp://me:secret@127.0.0.1:9/door")
    assert "secret" not in str(told.value)


def test_a_header_that_claims_a_giant_picture_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRAZZO_MAX_PIXELS", "1000")
    with pytest.raises(ImageFormatError, match="claims 48 x 64 pixels"):
        Video(lossless(tmp_path / "a.mkv", drawn(2)))


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"terrazzo\[video\]"):
        Video("a.mp4")


@pytest.mark.parametrize(
    ("source", "live", "moves"),
    [
        ("drive.MP4", False, True),
        (Path("drive.mkv"), False, True),
        ("street.jpg", False, False),
        ("camera:0", True, True),
        ("rtsp://10.0.0.7/door", True, True),
        ("https://example.org/drive.mp4", False, True),
    ],
)
def test_what_is_a_video_and_what_is_live(source: Any, live: bool, moves: bool) -> None:
    assert (is_live(source), is_video(source)) == (live, moves)
