"""A small data set in plain folders that a test makes ill, and the doctor's command run on it."""

import hashlib
import json
import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from terrazzo.cli import COMMANDS
from terrazzo.cli.parsing import find_command
from terrazzo.data.doctor import Diagnosis, Finding, check
from terrazzo.data.repair import Remedies, Repair, fix

HW = (12, 16)
NAMES = ("road", "car", "tree")
COLORS = ((128, 64, 128), (0, 0, 142), (107, 142, 35))


class Folder:
    """A data set in plain folders, healthy until a test breaks it: train a, b, c and val d."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for seed, (split, name) in enumerate((("train", "a"), ("train", "b"), ("train", "c"), ("val", "d"))):
            self.put(f"{split}/images/{name}.png", photo(seed))
            self.put(f"{split}/masks/{name}.png", ids(seed))
        self.describe()

    def put(self, where: str, array: np.ndarray, **options: Any) -> Path:
        path = self.root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, **options)
        return path

    def describe(self, **more: Any) -> None:
        classes = [{"name": name, "color": list(color)} for name, color in zip(NAMES, COLORS, strict=True)]
        (self.root / "dataset.json").write_text(json.dumps({"classes": classes, **more}))

    def masks(self) -> list[Path]:
        return sorted(self.root.glob("*/masks/*"))

    def each_mask(self, change: Any) -> None:
        for path in self.masks():
            Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


def photo(seed: int, hw: tuple[int, int] = HW) -> np.ndarray:
    """An image that is like no other one."""
    coarse = np.random.default_rng(seed).integers(0, 256, (hw[0] // 2 + 1, hw[1] // 2 + 1, 3))
    return np.kron(coarse, np.ones((2, 2, 1)))[: hw[0], : hw[1]].astype(np.uint8)


def ids(seed: int, hw: tuple[int, int] = HW, count: int = 3) -> np.ndarray:
    """A mask of 4 x 4 blocks with every class 0 … count-1."""
    coarse = np.random.default_rng(100 + seed).integers(0, count, (-(-hw[0] // 4), -(-hw[1] // 4)))
    coarse.flat[:count] = np.arange(count)
    return np.kron(coarse, np.ones((4, 4), int))[: hw[0], : hw[1]].astype(np.uint8)


def only(diagnosis: Diagnosis, kind: str) -> Finding:
    """The one finding, of this kind."""
    assert [one.kind for one in diagnosis.findings] == [kind], diagnosis.text()
    return diagnosis.findings[0]


def of_kind(diagnosis: Diagnosis, kind: str) -> Finding:
    """The one finding of this kind, among others."""
    found = [one for one in diagnosis.findings if one.kind == kind]
    assert len(found) == 1, diagnosis.text()
    return found[0]


def mended(finding: Finding, tmp_path: Path) -> tuple[Repair, Diagnosis]:
    """Run a finding's command; the finding is gone from the copy, and what was raw is as it was."""
    source = shlex.split(finding.command or "")[2]
    before = fingerprint(Path(source))
    repair = run(finding.command, tmp_path / "mended")
    after = check(repair.folder, workers=1)
    assert (finding.kind, finding.severity) not in [(one.kind, one.severity) for one in after.findings], (
        after.text()
    )
    assert fingerprint(Path(source)) == before
    return repair, after


def run(command: str | None, out: Path) -> Repair:
    """Do what a `terrazzo fix` line says, read by the command line itself; only the copy's place is another."""
    assert command is not None
    words = shlex.split(command)
    assert words[:2] == ["terrazzo", "fix"] and words[-2] == "--out" and words[-1] == words[2] + "-fixed"
    arguments = find_command("fix", COMMANDS).parser().read([*words[2:-1], str(out)])
    asked = {one.name: getattr(arguments, one.name) for one in fields(Remedies)}
    return fix(words[2], out, Remedies(**asked), workers=1)


def fingerprint(root: Path) -> dict[str, str]:
    """Hashes of a file, or of every file below a folder."""
    paths = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def read(path: Path) -> np.ndarray:
    """The pixels as they are stored."""
    return np.asarray(Image.open(path))
