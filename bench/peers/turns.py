"""What a side of a bench takes in its turn: called in a row, as whoever works through many images calls it."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def in_a_row(call: Callable[[], Result], *, least: float) -> tuple[float, Result]:
    """Call until `least` seconds are over; return the mean seconds of a call, and what the last one returned."""
    begun, calls = time.perf_counter(), 0
    while True:
        result = call()
        calls += 1
        took = time.perf_counter() - begun
        if took >= least:
            return took / calls, result
