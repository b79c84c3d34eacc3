"""Whether the processes of a training still live, noticed within a minute and told once.

A process that is killed closes its connections, and the others' next exchange fails at once. A machine that loses its
power closes nothing, a process that waits for a GPU's exchange hears nothing, and neither may be mistaken for one that
is busy: saving to a slow disk takes minutes. So a thread of each process writes a number into the store that the
launcher keeps, every few seconds, and looks at its neighbour's; who ends with an error leaves a word there.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist

from terrazzo.launcher import Place

# seconds
BEAT = 3.0
SILENCE = 40.0  # without a beat, and a neighbour is taken for dead; with GRACE, less than a minute
FAREWELL = 3.0  # that process 0 stays after an error, for the others to hear that it is told
GRACE = 10.0  # for the main thread to end by itself once somebody has ended


class Pulse:
    """The beats of process `rank`, and its eye on process `rank + 1`; `stop` ends both."""

    def __init__(self, mine: Place, *, name: str) -> None:
        """Connect to the store where the launcher put it. name: of these processes, for a store outlives them."""
        self.rank, self.world = mine.rank, mine.world
        self.command = "terrazzo train --resume RUN"  # what goes on from here, once somebody knows
        self._is_busy = False
        patience = timedelta(seconds=SILENCE)
        store = dist.TCPStore(
            mine.address, mine.port, is_master=False, wait_for_workers=False, timeout=patience
        )
        self._store = dist.PrefixStore(f"terrazzo/{name}", store)
        self._stopped = threading.Event()
        self._store.set(f"beat/{self.rank}", "0")  # before anybody looks
        self._thread = threading.Thread(target=self._live, name="terrazzo-pulse", daemon=True)

    def start(self) -> None:
        """Begin to beat and to watch; call it once every process has made its pulse."""
        self._thread.start()

    def stop(self) -> None:
        """Say nothing any more."""
        self._stopped.set()

    def claim(self) -> bool:
        """Say that training is over; return whether this process is the first to, whose part it is to tell why."""
        try:
            return self._store.add("over", 1) == 1
        except RuntimeError:  # the store is gone with its process: nobody can be asked
            return True

    def leave(self) -> None:
        """Say that this process ends and has nothing to ask, since it knows who tells."""
        with contextlib.suppress(RuntimeError):
            self._store.add("left", 1)

    def linger(self) -> None:
        """Keep the store, where process 0 holds it, until all know whose part it is to tell, or FAREWELL is over."""
        if self.rank or "TORCHELASTIC_RUN_ID" in os.environ:  # there the launcher keeps it
            return
        until = time.monotonic() + FAREWELL
        with contextlib.suppress(RuntimeError):
            while (
                self._store.add("over", 0) + self._store.add("left", 0) < self.world
                and time.monotonic() < until
            ):
                time.sleep(0.05)

    @contextmanager
    def first(self) -> Iterator[bool]:
        """Yield True in the first process that comes here, and False in the others once that one has left.

        Training is over then; it is done with what is inside, however long that takes.
        """
        try:
            is_first = self._store.add("first", 1) == 1
            if not is_first:
                self._store.wait(["done"], timedelta(seconds=SILENCE))
        except RuntimeError:  # the store is gone, or the first with it
            is_first = False
        self._is_busy = is_first
        try:
            yield is_first
        finally:
            self._is_busy = False
            if is_first:
                with contextlib.suppress(RuntimeError):
                    self._store.set("done", "")

    def sentence(self, dead: int | None = None) -> str:
        """Return what is said when a process is gone."""
        who = f"Process {dead} of {self.world}" if dead is not None else f"One of the {self.world} processes"
        return (
            f"{who} is gone; the others have ended.\n"
            "  It was killed, or its machine or network went down. What was saved is whole. To go on:\n"
            f"  {self.command}"
        )

    def _live(self) -> None:
        neighbour, beats = (self.rank + 1) % self.world, 0
        heard, heard_at = "", time.monotonic()
        while not self._stopped.wait(BEAT):
            beats += 1
            try:
                self._store.set(f"beat/{self.rank}", str(beats))
                is_over = self._store.check(["over"])
                present = self._store.get(f"beat/{neighbour}").decode()
            except RuntimeError:  # whoever holds the store is gone: process 0, or the launcher
                self._end(None, already_told=False)
                return
            if is_over:
                self._end(None, already_told=True)
                return
            if present != heard:
                heard, heard_at = present, time.monotonic()
            elif time.monotonic() - heard_at > SILENCE:
                self._end(neighbour, already_told=not self.claim())
                return

    def _end(self, dead: int | None, *, already_told: bool) -> None:
        """End this process, whose main thread may wait for ever; it is given a moment to end by itself."""
        if self._stopped.wait(GRACE):
            return
        while self._is_busy:
            time.sleep(BEAT)
        if not already_told:
            with contextlib.suppress(OSError):
                print(f"TrainingError: {self.sentence(dead)}", file=sys.stderr, flush=True)
        os._exit(1)
