"""Kernels after a fork, from many threads, with no writable cache, on a full disk, without numba; our own threads."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from terrazzo.kernels.compile import kernel, read_only
from terrazzo.kernels.confusion import confusion
from terrazzo.kernels.resize_argmax import resize_argmax
from terrazzo.kernels.threads import default_threads, spread

COUNT = """
import numpy as np
from terrazzo.kernels.confusion import confusion
mask = np.arange(5, dtype=np.uint8).repeat(400_000)  # several pieces
def counts(): return confusion(mask, mask, 5, threads=2).diagonal().tolist()
"""


def run(script: str, *flags: str) -> str:
    """Run Python code in a fresh process and return what it printed."""
    done = subprocess.run([sys.executable, *flags, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout.strip()


def test_importing_kernels_imports_neither_numba_nor_torch() -> None:
    modules = (
        "terrazzo.kernels.confusion, terrazzo.kernels.resize_argmax, terrazzo.metrics, terrazzo.nn.losses"
    )
    loaded = "print([m for m in ('numba', 'llvmlite', 'torch') if m in sys.modules])"
    assert run(f"import sys, {modules}; {loaded}") == "[]"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_forked_child_counts_with_threads_of_its_own() -> None:
    script = COUNT + (
        "import os\n"
        "before = counts()\n"  # the pool and its threads exist now
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if counts() == before else 3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), before[0])\n"
    )
    assert run(script, "-W", "ignore::DeprecationWarning") == "0 400000"


def test_where_no_cache_folder_can_be_written_kernels_are_compiled_anew() -> None:
    # what a read-only container does: numba tries to write a file in every folder it knows, and none lets it
    script = (
        "import errno, tempfile\n"
        "def read_only(*args, **kwargs): raise OSError(errno.EROFS, 'Read-only file system')\n"
        "tempfile.TemporaryFile = read_only\n"
        "import numba\n"
        "try: numba.njit(cache=True)(lambda x: x)\n"
        "except RuntimeError as error: print('no locator' in str(error))\n"
    )
    assert run(script + COUNT + "print(counts()[0])").split() == ["True", "400000"]


def test_a_cache_that_fails_while_storing_costs_only_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.caching import IndexDataCacheFile

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    @kernel()
    def twice(x: float) -> float:
        return 2 * x

    monkeypatch.setattr(IndexDataCacheFile, "save", full)
    assert twice(4.0) == 8.0
    assert twice(5.0) == 10.0


def test_without_numba_the_reference_answers_and_one_warning_says_so() -> None:
    script = "import sys, warnings; sys.modules['numba'] = None; seen = []\n" + (
        "warnings.showwarning = lambda message, kind, *rest: seen.append((kind.__name__, str(message)))\n"
        "warnings.simplefilter('always')\n"
    )
    words = run(script + COUNT + "counts(); print(counts()[0], len(seen), *seen[0])")
    assert words.startswith("400000 1 RuntimeWarning numba cannot be imported (")
    assert words.endswith("several times slower and with the same results. To install it: pip install numba")


def test_many_threads_may_call_kernels_at_once() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((12, 40, 40)).astype(np.float32)
    mask = rng.integers(0, 12, (300, 400)).astype(np.uint8)
    wanted = resize_argmax(logits, (300, 400), threads=1)[0]
    counts = confusion(wanted, mask, 12, threads=1)

    def work(_: int) -> bool:
        pred, _ = resize_argmax(logits, (300, 400), threads=3)
        return bool((pred == wanted).all() and (confusion(pred, mask, 12, threads=3) == counts).all())

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(work, range(24)))


def test_results_come_in_the_order_of_the_pieces_from_as_many_threads_as_asked() -> None:
    names = set()

    def task(number: int) -> int:
        names.add(threading.current_thread().name)
        time.sleep(0.01 if number % 2 else 0.0)
        return number * number

    assert spread(task, range(20), threads=3) == [number * number for number in range(20)]
    assert 1 <= len(names) <= 3
    names.clear()
    assert spread(task, range(3), threads=1) == [0, 1, 4]
    assert names == {threading.current_thread().name}
    assert spread(task, [], threads=4) == []


def test_an_error_of_a_piece_reaches_the_caller() -> None:
    def task(number: int) -> int:
        if number == 3:
            raise ValueError("piece 3")
        return number

    for threads in (1, 3):
        with pytest.raises(ValueError, match="piece 3"):
            spread(task, range(8), threads=threads)


def test_a_piece_that_spreads_its_own_work_does_not_deadlock() -> None:
    def outer(number: int) -> int:
        return sum(spread(lambda inner: number * inner, range(4), threads=2))

    assert spread(outer, range(6), threads=2) == [6 * number for number in range(6)]


def test_threads_are_torchs_where_torch_is_loaded() -> None:
    import torch

    assert default_threads() == torch.get_num_threads()
    assert int(run("from terrazzo.kernels.threads import default_threads; print(default_threads())")) >= 1


def test_a_kernel_is_compiled_once_for_whoever_owns_the_memory() -> None:
    from terrazzo.kernels import confusion as module

    pred, mask = np.zeros((2, 3, 8), np.uint8)[:, 1], np.zeros((2, 8), np.uint8)
    mask.flags.writeable = False
    confusion(pred, pred, 2)
    before = len(module._count_blocks.compiled().signatures)  # type: ignore[attr-defined]
    confusion(mask, pred, 2)
    confusion(np.frombuffer(b"\0" * 33, np.uint8)[1:], np.zeros(32, np.uint8), 2)
    assert len(module._count_blocks.compiled().signatures) == before == 1  # type: ignore[attr-defined]
    assert read_only(pred).flags.c_contiguous and not read_only(pred).flags.writeable and pred.flags.writeable
