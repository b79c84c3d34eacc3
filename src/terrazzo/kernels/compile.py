"""How a kernel is compiled: lazily, serial, without the interpreter lock, cached on disk where that is possible.

Kernels are never compiled with `parallel=True`: numba's OpenMP layer kills forked data-loader workers and its own
work queue aborts under two threads. Importing this module imports neither numba nor llvmlite (0.3 s); the first call
of a kernel does. With no writable cache folder (a read-only container, a full disk) a kernel is compiled anew by each
process, about a second each.
"""

import functools
import importlib
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Fast-math without "reassoc" and "afn": sums keep their written order, so results are the same on every machine of
# a kind and rounding tricks survive. NaN and infinity keep their meaning: a diverging training must be seen.
ELEMENTWISE = {"nsz", "contract", "arcp"}


class Kernel:
    """A Python function over numpy arrays that becomes machine code when it is first called.

    Other kernels it calls must live in the same file: numba's cache watches only the file of the function it stores.
    """

    def __init__(self, function: types.FunctionType, options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self._options = options
        self._dispatcher: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        """Run the compiled loop; the first call of each combination of argument types compiles it."""
        dispatcher = self._dispatcher or self.compiled()
        try:
            return dispatcher(*args)
        except OSError:  # the cache folder filled up or went away while storing; no kernel does I/O itself
            self._dispatcher = None
            return self.compiled(cache=False)(*args)

    def compiled(self, *, cache: bool = True) -> Callable[..., Any]:
        """Return numba's dispatcher, made once; `cache=False` keeps its machine code in this process.

        No lock of ours, which a fork could copy while it is held: two threads may both compile, to the same end.
        """
        if self._dispatcher is None:
            self._dispatcher = _dispatcher(self, cache=cache)
        return self._dispatcher


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """Mark a function as a kernel; `options` go to `numba.njit`, such as fastmath."""

    def mark(function: Callable[..., Any]) -> Kernel:
        assert isinstance(function, types.FunctionType)
        return Kernel(function, options)

    return mark


def read_only(array: NDArray[Any], dtype: type[np.generic] | None = None) -> NDArray[Any]:
    """Return `array` contiguous, aligned and as a read-only view: one type for numba, whoever owns the memory.

    Copies only where it must; without it a mask that PIL or a memory map owns would be compiled for once more.
    """
    view = np.require(array, dtype, ("C", "A")).view()
    view.flags.writeable = False
    return view


@functools.cache
def is_available() -> bool:
    """True where numba can be imported; where it cannot, one warning says why and what it costs."""
    try:
        importlib.import_module("numba")
    except (ImportError, OSError) as error:  # OSError: llvmlite's library does not load on this system
        warnings.warn(
            f"numba cannot be imported ({error}); terrazzo's kernels run as plain numpy and torch, several times "
            "slower and with the same results. To install it: pip install numba",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    return True


def _dispatcher(one: Kernel, *, cache: bool) -> Callable[..., Any]:
    numba = importlib.import_module("numba")
    scope = one.function.__globals__
    inner = {
        name: scope[name].compiled(cache=cache)
        for name in one.function.__code__.co_names
        if isinstance(scope.get(name), Kernel)
    }
    function = types.FunctionType(one.function.__code__, {**scope, **inner}, one.function.__name__)
    function.__module__, function.__qualname__ = one.function.__module__, one.function.__qualname__
    options = {"nogil": True, "error_model": "numpy", **one._options}
    if cache:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # "no locator available": no cache folder can be written
            pass
    return numba.njit(**options)(function)
