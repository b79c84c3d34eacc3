"""The whole loop in small, and on from where it ends: the page opens on new scenes, pre-labelled by its model."""

import json
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from terrazzo import quickstart
from terrazzo.data.scenes import SCENE_CLASSES
from terrazzo.recipe import Recipe, load

TINY = ["train.steps=2", "train.batch_size=2", "data.crop_hw=32x48", "eval.every=2", "train.pictures=0"]


def test_the_loop_ends_with_the_command_that_labels_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def tiny(name: str) -> Recipe:
        return load(name, TINY)

    monkeypatch.setattr(quickstart, "load_recipe", tiny)
    for name, value in {"TRAIN": 6, "VAL": 6, "SIZE_HW": (32, 48), "TO_LABEL": 3}.items():
        monkeypatch.setattr(quickstart, name, value)
    report = quickstart.quickstart(tmp_path / "quick", device="cpu")
    assert report is not None and report.num_images == 6
    (typed,) = re.findall(r"^  label +terrazzo (label .*?)   \(", capsys.readouterr().out, re.MULTILINE)
    words = [*shlex.split(typed), "--port", "0", "--no-browser"]
    server = subprocess.Popen([sys.executable, "-m", "terrazzo", *words], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        said = [server.stdout.readline() for _ in range(4)]
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+/", "".join(said))
        assert f"The project gets the {len(SCENE_CLASSES)} classes of run.\n" in said
        until = time.monotonic() + 240
        while True:
            with urllib.request.urlopen(f"{address}api/v1/projects/street", timeout=30) as answer:
                told = json.load(answer)
            if told["counts"]["prelabelled"] == 3:
                break
            assert time.monotonic() < until, told
            time.sleep(0.1)
        assert [one["name"] for one in told["categories"]] == list(SCENE_CLASSES.names)
        assert [one["name"] for one in told["models"]] == ["run"]
    finally:
        server.terminate()
        server.wait(30)
        assert server.stdout is not None
        server.stdout.close()
