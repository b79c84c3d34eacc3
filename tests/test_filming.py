"""A video through the eye: its masks are those of its frames, its overlay plays as long as it did."""

import csv
import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from terrazzo.classes import Classes
from terrazzo.errors import DataError, ExistingOutputError, UnreadableFileError
from terrazzo.images import read_mask, write_image
from terrazzo.inference import Predictor
from terrazzo.nn.outputs import Output
from terrazzo.predicting import predict
from terrazzo.video import Video, new_video

DARK_LIGHT = Classes(("dark", "=light"))


class Brightness(nn.Module):
    """Class 1 where the first channel is above a half; nothing is learned."""

    channels = 3

    def forward(self, image_BCHW: Tensor) -> Output:
        return Output(torch.cat([0.5 - image_BCHW[:, :1], image_BCHW[:, :1] - 0.5], dim=1))


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(Brightness(), DARK_LIGHT, device="cpu", name="brightness")


def drive(path: Path, *, count: int = 20, rate: float = 10) -> Path:
    """A light bar, 8 pixels wide, that moves to the right by 2 pixels a frame."""
    with new_video(path, rate=rate) as writer:
        for number in range(count):
            image = np.zeros((32, 64, 3), np.uint8)
            image[:, 2 * number : 2 * number + 8] = 255
            writer.write(image)
    return path


def shares_of(table: Path) -> list[list[str]]:
    with open(table, newline="") as file:
        return list(csv.reader(file))


def test_the_masks_of_a_video_are_those_of_its_frames(predictor: Predictor, tmp_path: Path) -> None:
    path = drive(tmp_path / "day" / "drive.mp4")
    [overlay] = predict(predictor, path, out=tmp_path / "out", frames=True, parts=["masks"], quiet=True)
    assert overlay == tmp_path / "out" / "videos" / "drive.mp4"
    with Video(path) as video:
        alone = [predictor(frame.image).mask for frame in video]
    masks = sorted((tmp_path / "out" / "masks" / "drive").iterdir())
    assert [mask.name for mask in masks] == [f"{number:06d}.png" for number in range(20)]
    for mask, truth in zip(masks, alone, strict=True):
        assert np.array_equal(read_mask(mask), truth)
    light = [int(np.argmax(truth[16])) for truth in alone]
    assert light == [2 * number for number in range(20)]  # the bar itself
    assert not (tmp_path / "out" / "overlays").exists()
    with Video(overlay) as video:
        assert (video.rate, video.count) == (10, 20)
        assert next(iter(video)).image.shape == (32, 64, 3)
    head, *rows = shares_of(tmp_path / "out" / "videos" / "drive.csv")
    assert head == ["frame", "seconds", "dark", "'=light"]  # no spreadsheet takes it for a formula
    assert [(int(row[0]), float(row[1])) for row in rows] == [(n, pytest.approx(n / 10)) for n in range(20)]
    assert {float(row[3]) for row in rows} == {8 / 64}
    record = json.loads((tmp_path / "out" / "videos" / "drive.json").read_text())
    assert record == {"model": "brightness", "frames": 20, "rate": 10.0, "whole": True}


def test_images_and_videos_of_a_folder_are_answered_under_their_own_names(
    predictor: Predictor, tmp_path: Path
) -> None:
    drive(tmp_path / "in" / "a.mp4", count=3)
    write_image(tmp_path / "in" / "a.png", np.zeros((16, 16, 3), np.uint8))
    written = predict(predictor, tmp_path / "in", out=tmp_path / "out", quiet=True)
    names = [path.relative_to(tmp_path / "out").as_posix() for path in written]
    assert names == ["masks/a.png.png", "videos/a.mp4.mp4"]
    predict(predictor, tmp_path / "in", out=tmp_path / "out", quiet=True)  # again: it is ours


def test_the_first_seconds_are_looked_at_where_asked(predictor: Predictor, tmp_path: Path) -> None:
    path = drive(tmp_path / "a.mp4")
    predict(predictor, path, out=tmp_path / "out", seconds=0.5, quiet=True)
    assert len(shares_of(tmp_path / "out" / "videos" / "a.csv")) == 1 + 5


def test_a_video_that_breaks_off_is_predicted_as_far_as_it_goes_and_named(
    predictor: Predictor, tmp_path: Path
) -> None:
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "in" / "a.avi"
    path.parent.mkdir()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 32))
    rng = np.random.default_rng(0)
    for _ in range(25):
        writer.write(rng.integers(0, 256, (32, 64, 3)).astype(np.uint8))
    writer.release()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        UnreadableFileError, match=r"a\.avi breaks off.(.|\n)*What there is has been predicted"
    ):
        predict(predictor, path, out=tmp_path / "out", quiet=True)
    assert 5 < len(shares_of(tmp_path / "out" / "videos" / "a.csv")) < 25
    assert json.loads((tmp_path / "out" / "videos" / "a.json").read_text())["whole"] is False
    drive(tmp_path / "in" / "b.mp4", count=3)
    (tmp_path / "in" / "c.mkv").write_bytes(b"no video")
    with pytest.raises(DataError, match="2 of 3 sources could not be predicted"):
        predict(predictor, tmp_path / "in", out=tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / "videos" / "b.mp4").is_file()


def test_another_models_video_is_not_replaced_unasked(predictor: Predictor, tmp_path: Path) -> None:
    path = drive(tmp_path / "a.mp4", count=2)
    mine = tmp_path / "out" / "videos" / "a.mp4"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"my own cut")
    with pytest.raises(ExistingOutputError, match="not predicted by this model"):
        predict(predictor, path, out=tmp_path / "out", quiet=True)
    assert mine.read_bytes() == b"my own cut"
    predict(predictor, path, out=tmp_path / "out", overwrite=True, quiet=True)
    other = Predictor(Brightness(), DARK_LIGHT, device="cpu", name="another")
    with pytest.raises(ExistingOutputError, match="found: model brightness"):
        predict(other, path, out=tmp_path / "out", quiet=True)


def test_a_live_source_goes_on_until_ctrl_c_and_its_overlay_plays_as_fast_as_life(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file played as if it were a camera, over and over, until the signal comes."""
    path = drive(tmp_path / "a.mp4", count=4, rate=20)
    cv2 = pytest.importorskip("cv2")

    class Camera:
        """Never ends, and gives a frame every 50 ms; with the twentieth somebody types Ctrl-C."""

        def __init__(self) -> None:
            self.file = cv2.VideoCapture(str(path))
            self.num_read = 0

        def get(self, what: int) -> float:
            return 0.0 if what == cv2.CAP_PROP_FRAME_COUNT else self.file.get(what)

        def read(self) -> tuple[bool, object]:
            threading.Event().wait(0.05)
            self.num_read += 1
            if self.num_read == 20:
                os.kill(os.getpid(), signal.SIGINT)
            there, image = self.file.read()
            if not there:
                self.file = cv2.VideoCapture(str(path))
                there, image = self.file.read()
            return there, image

        def release(self) -> None:
            self.file.release()

    monkeypatch.setattr(
        "terrazzo.video._opened",
        lambda cv2, where: Camera() if where == "camera:0" else cv2.VideoCapture(where),
    )
    [overlay] = predict(predictor, "camera:0", out=tmp_path / "out", quiet=True)
    assert overlay.name == "camera-0.mp4"
    last = float(shares_of(overlay.with_suffix(".csv"))[-1][1])
    assert 0.3 < last < 60
    with Video(overlay) as video:
        assert video.count is not None
        # the last frame is due at a whole frame, and shown for one
        assert video.count == pytest.approx(last * video.rate + 0.5, abs=1.05)


def test_the_overlay_shows_the_frame_under_its_colours(predictor: Predictor, tmp_path: Path) -> None:
    path = drive(tmp_path / "a.mp4", count=2)
    [overlay] = predict(predictor, path, out=tmp_path / "out", quiet=True)
    with Video(path) as video, Video(overlay) as drawn:
        truth = predictor(next(iter(video)).image).overlay()
        seen = Image.fromarray(next(iter(drawn)).image)
    difference = np.abs(np.asarray(truth).astype(int) - np.asarray(seen))
    assert difference.mean() < 12  # MPEG-4
