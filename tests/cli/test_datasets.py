"""Data sets on the command line: brought in, examined, mended."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from command_line import Terrazzo
from terrazzo.images import write_image, write_mask


def test_formats_in_the_help_are_those_there_are() -> None:
    from terrazzo.cli.datasets import FORMATS
    from terrazzo.data.importers import IMPORTERS

    assert tuple(IMPORTERS) == FORMATS


@pytest.fixture
def raw_camvid(tmp_path: Path) -> Path:
    """CamVid's layout with 2 + 1 images of 48x64; 11 is void."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1)):
        for number in range(count):
            name = f"0001TP_{number:06d}.png"
            (tmp_path / "raw" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "raw" / f"{split}annot").mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)
            write_image(tmp_path / "raw" / split / name, image)
            write_mask(
                tmp_path / "raw" / f"{split}annot" / name, rng.integers(0, 12, (48, 64)).astype(np.uint8)
            )
    return tmp_path / "raw"


def test_import_says_what_came_in_and_what_to_type_next(
    terrazzo: Terrazzo, raw_camvid: Path, tmp_path: Path
) -> None:
    out_folder = tmp_path / "camvid"
    code, out, _ = terrazzo("import", "camvid", raw_camvid, "--out", out_folder)
    assert code == 0
    assert "train 2, val 1" in out
    assert out.endswith(f"Next:\n  terrazzo check {out_folder}\n")
    code, out, err = terrazzo("import", "camvid", raw_camvid, "--out", out_folder)
    assert (code, out) == (2, "")
    assert err.startswith("ExistingOutputError: ")
    code, _, err = terrazzo("import", "camvid", tmp_path / "nowhere", "--out", tmp_path / "x")
    assert code in (1, 2)
    assert "nowhere" in err
    assert not (tmp_path / "x").exists()


def test_check_names_the_command_that_mends_and_it_does(terrazzo: Terrazzo, boxes_of_my_own: Path) -> None:
    (boxes_of_my_own / "train" / "masks" / "003.png").unlink()
    code, out, err = terrazzo("check", boxes_of_my_own)
    assert (code, err) == (1, "")
    assert "1 image has no mask." in out
    command = next(line.strip() for line in out.splitlines() if line.strip().startswith("terrazzo fix "))
    code, out, _ = terrazzo(*shlex.split(command)[1:])
    assert code == 0
    assert "left out" in out
    assert "003" in out
    mended = Path(shlex.split(command)[-1])
    code, out, _ = terrazzo("check", mended)
    assert code == 0
    assert "train 7 images, val 3 images" in out
    assert (boxes_of_my_own / "train" / "images" / "003.png").exists()


def test_check_speaks_json(terrazzo: Terrazzo, boxes: Path) -> None:
    code, out, _ = terrazzo("check", boxes, "--json")
    assert code == 0
    assert json.loads(out)["images"] == {"train": 8, "val": 3}


def test_fix_does_nothing_that_was_not_asked_for(terrazzo: Terrazzo, boxes: Path, tmp_path: Path) -> None:
    code, _, err = terrazzo("fix", boxes, "--out", tmp_path / "copy")
    assert code == 2
    assert err.startswith("UsageError: Nothing to mend was named.")
    code, _, err = terrazzo("fix", boxes, "--out", tmp_path / "copy", "--ignore-ids", "1,x")
    assert code == 2
    assert "--ignore-ids: 'x' is not a whole number from 0 on." in err
    assert not (tmp_path / "copy").exists()


def test_every_remedy_has_its_flag(terrazzo: Terrazzo) -> None:
    from dataclasses import fields

    from terrazzo.data.repair import Remedies

    _, out, _ = terrazzo("fix", "--help")
    for remedy in fields(Remedies):
        assert f"--{remedy.name.replace('_', '-')}" in out.split()
