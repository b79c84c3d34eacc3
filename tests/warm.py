"""Processes to kill that begin in a tenth of a second: forked from one that has imported what a training needs.

A fork of the tests' own process would copy its threads' locks; the one that is forked here has started no thread.
"""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

HEAVY = [
    "terrazzo.training",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "numba",
    "terrazzo.data.table",
    "pyarrow.parquet",
]


def start(function: Callable[..., Any], *args: object, said: Path) -> BaseProcess:
    """Call a function of a module in a process of its own; what it says on standard error is written to `said`."""
    context = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
    if sys.platform != "win32":
        context.set_forkserver_preload(HEAVY)
    process = context.Process(target=_call, args=(function, args, said), daemon=True)
    process.start()
    return process


def _call(function: Callable[..., Any], args: tuple[object, ...], said: Path) -> None:
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    import torch

    torch.set_num_threads(
        torch.get_num_threads()
    )  # a pool of its own, while one thread asks: two would find none
    try:
        function(*args)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
