"""Environments of the peers: made once under bench/.environments, so that nothing of theirs is installed into ours."""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent / ".environments"


def environment_of(name: str, packages: list[str]) -> Path:
    """Return the Python of the environment `name` with `packages` (pip's words), made if it is not there."""
    stamp = hashlib.sha256("\n".join([sys.version, *packages]).encode()).hexdigest()[:16]
    folder = ROOT / f"{name}-{stamp}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = folder / "installed"
    if not done.exists():
        print(f"making the peer's environment {folder.name}: {' '.join(packages)}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages], check=True
        )
        done.touch()
    return python
