"""A peer in a process of its own, which does its work once whenever it is told to."""

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any


class Child:
    """Starts a command, reads its line of versions, and asks it with a line for every turn."""

    def __init__(self, name: str, command: Sequence[object], *, threads: int) -> None:
        """name: what it is called where it fails. command: its words; threads: what OpenMP may take in it."""
        self.name = name
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        self.versions: dict[str, Any] = json.loads(self._line())

    def ask(self) -> float:
        """Let it work once; returns the time it tells."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line[0] in "{0123456789":  # mmengine says things of its own
                return line
        raise SystemExit(f"{self.name} ended with exit code {self.process.wait()}; it says why above.")
