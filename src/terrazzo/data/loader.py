"""The samples of every training step, in an order and with augmentation that depend on nothing but seed and step.

`order.py` says which sample stands where in the endless line of epochs; step s takes the positions
[s * batch_size, (s + 1) * batch_size) of that line, across epochs where they meet. What is drawn for a sample comes
from (seed, epoch, sample). So the same training sees the same pixels with any number of threads, processes and
micro-batches, and a run goes on exactly where it was from its step alone: the loader has no state to save.

A crew of threads prepares the steps ahead (`crew.py` says why threads); decoded samples are kept (`cache.py`).
"""

# B C H W batch channels height width

import functools
import math
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terrazzo.data.cache import MaskFirst, SampleCache, Samples, cache_budget
from terrazzo.data.crew import Crew, Task
from terrazzo.data.decoded import DecodedSamples
from terrazzo.data.order import Order, Shuffled
from terrazzo.data.transforms import TrainTransform, Unread
from terrazzo.errors import DataError, DatasetFormatError, RecipeError
from terrazzo.reduced import DIVISORS
from terrazzo.sample import Sample

MOST_THREADS = 16  # beyond, threads wait for each other's turn in the interpreter


class Loader:
    """Prepares this process's share of each step: the rank-th of `world` equal, contiguous parts of the batch."""

    def __init__(
        self,
        split: Samples,
        *,
        transform: TrainTransform,
        batch_size: int,
        micro_batch: int = 0,
        seed: int = 0,
        order: Order | None = None,
        expect: Callable[[Sequence[int]], None] | None = None,
        foresight: int = 0,
        workers: int = -1,
        cache: Literal["auto", "memory", "disk", "none"] = "auto",
        cache_key: Callable[[], str] | None = None,
        rank: int = 0,
        world: int = 1,
        pixel_weight: Callable[[Tensor], float],
        on_unreadable: Literal["stop", "skip"] = "stop",
        for_gpu: bool = False,
        colour_on: torch.device | None = None,
    ) -> None:
        """batch_size: samples per step over all processes. micro_batch: samples per tensor, 0 = this process's share.

        order: which sample stands at a position; by default each epoch is a permutation drawn from (seed, epoch).
        expect: called at each step with the indices that this process reads from there on, `foresight` of them or more,
        by data that are fetched many samples at a time.
        workers: threads; 0 = prepare in the caller, -1 = half of the cores this process may use, 1 to 16. cache: what
        to keep decoded, see `cache_budget`; "disk" keeps it under `cache_key()`, see `decoded`. Where the transform's
        configuration asks for scaled decoding nothing is kept, and the split is `MaskFirst`.
        pixel_weight: mask (H, W) int64 -> what it adds to `weight`.
        on_unreadable: "stop" raises the DataError of a sample at the step that needs it; "skip" trains that step with
        a blank in its place, of the mean colour and ignored everywhere, and counts it in `skipped`.
        for_gpu: tensors lie in pinned memory, which a GPU copies by itself, and masks are uint8 where ids fit in it.
        colour_on: the device to which images go as bytes, to become float32 and change their colours there, for samples
        of 8 bits; None: the threads do it.

        Memory: the pixels of about two steps (of one more where threads outnumber samples) and the cache.
        Raises RecipeError when batch_size is not a multiple of world * micro_batch, DatasetFormatError for no samples.
        """
        if not len(split):
            raise DatasetFormatError(
                "The training split is empty.", hint="What is there:", command="terrazzo check DATA"
            )
        _check_batch(batch_size, micro_batch, world)
        assert 0 <= rank < world
        self.batch_size, self.seed = batch_size, seed
        self.share = batch_size // world
        self.micro_batch = micro_batch or self.share
        threads = default_threads() if workers < 0 else workers
        self._split, self._transform, self._rank = split, transform, rank
        self._names = list(split.names)
        self._order = order or Shuffled(len(split), seed)
        self._expect, self._foresight = expect, foresight
        self._next: dict[int, list[int]] = {}  # step -> indices that were announced
        self.said: list[str] = []
        self._samples: SampleCache | DecodedSamples | MaskFirst
        if transform.config.scaled_decoding:
            assert isinstance(split, MaskFirst)
            self._samples = split
            self.said.append(_told_scaled(split, is_stream=expect is not None))
        elif cache == "disk":
            assert cache_key is not None
            self._samples = DecodedSamples(split, key=cache_key())
            self.said += self._samples.said
        else:
            self._samples = SampleCache(split, cache_budget(cache, sharers=processes_here(world)))
        self._pixel_weight, self._on_unreadable = pixel_weight, on_unreadable
        self._for_gpu, self._colour_on = for_gpu, colour_on
        self._padding = torch.from_numpy(transform.mean).to(colour_on or "cpu")
        self._mask_dtype = torch.uint8 if for_gpu and transform.mask_dtype == np.uint8 else torch.int64
        self._crew = Crew(threads)
        self._ahead = max(1, math.ceil(2 * threads / self.share)) if threads else 0
        self._steps: dict[int, _Step] = {}
        self._skipped: dict[int, str] = {}  # position -> name
        self._sizes: dict[int, tuple[int, int]] = {}  # index -> (height, width), where crops do not give it

    @property
    def num_micro_batches(self) -> int:
        """How many pairs `micro_batches` yields."""
        return self.share // self.micro_batch

    @property
    def skipped(self) -> Mapping[str, int]:
        """Name of every sample that could not be read so far -> in how many of its turns it was blank."""
        return Counter(self._skipped.values())

    def micro_batches(self, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's part of a step: image (B, C, H, W) float32 in [0, 1] and mask (B, H, W) int64.

        For a GPU the mask is uint8 while ids fit in it. The tensors are views of memory that belongs to the step: what
        is written to them stays when asked again. Only an image coloured on a device is made there each time.
        Following steps are prepared meanwhile. Without augmentation, images that differ in size are padded to the
        largest of the whole step, with the mean colour and ignore, at the bottom and right.
        """
        ready = self._ready(step)
        for start in range(0, self.share, self.micro_batch):
            part = slice(start, start + self.micro_batch)
            yield self._coloured(ready, part), ready.masks[part]

    def weight(self, step: int) -> Tensor:
        """Return the float64 sum of `pixel_weight` over this process's samples of a step."""
        ready = self._ready(step)
        if ready.weight is None:
            ready.weight = math.fsum(float(self._pixel_weight(mask)) for mask in ready.masks)
        return torch.tensor(ready.weight, dtype=torch.float64)

    def waited(self, step: int) -> float:
        """Return the seconds the caller waited for this step's samples; 0 for a step that is not at hand any more."""
        return self._steps[step].waited if step in self._steps else 0.0

    def sample_indices(self, step: int) -> list[int]:
        """Return the indices in the split of this process's samples of a step, in order."""
        return [self._at(position)[1] for position in self._positions(step)]

    def names(self, step: int) -> list[str]:
        """Return the names of this process's samples of a step, in order."""
        return [self._names[index] for index in self.sample_indices(step)]

    def epoch_of(self, step: int) -> int:
        """Return the epoch in which a step begins, from 0."""
        return step * self.batch_size // len(self._split)

    def key(self, step: int, number: int) -> int:
        """Return a seed for the draws the network makes in micro-batch `number` of a step, such as dropout's.

        It depends on the seed and on which sample the micro-batch begins with, 64 bits of them mixed.
        """
        position = self._positions(step)[number * self.micro_batch]
        return int(np.random.SeedSequence([self.seed, position]).generate_state(1, np.uint64)[0])

    def close(self) -> None:
        """End the threads; the loader is of no further use."""
        self._crew.close()
        self._steps.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _positions(self, step: int) -> range:
        """This process's positions in the endless line of samples."""
        first = step * self.batch_size + self._rank * self.share
        return range(first, first + self.share)

    def _at(self, position: int) -> tuple[int, int]:
        """The (epoch, index in the split) at a position."""
        return self._order(position)

    def _ready(self, step: int) -> "_Step":
        """Return a step whose samples are all there, with the steps after it on their way."""
        self._announce(step)
        wanted = range(step, step + 1 + self._ahead)
        for number in [number for number in self._steps if number not in wanted]:
            self._steps.pop(number).cancel()
        for number in wanted:
            if number not in self._steps:
                self._steps[number] = self._begin(number)
        ready = self._steps[step]
        while ready.tasks:
            self._finish(ready, step)
        return ready

    def _announce(self, step: int) -> None:
        """Say which samples come next, those of `step` first; where crops have no size, those of all processes."""
        if self._expect is None or next(iter(self._next), None) == step:
            return
        steps = range(step, step + 1 + max(self._ahead, -(-self._foresight // self.share)))
        self._next = {number: self._next.get(number) or self._looked_at(number) for number in steps}
        self._expect([index for number in steps for index in self._next[number]])

    def _looked_at(self, step: int) -> list[int]:
        if self._transform.config.augment:
            return self.sample_indices(step)
        first = step * self.batch_size
        return [self._at(position)[1] for position in range(first, first + self.batch_size)]

    def _coloured(self, ready: "_Step", part: slice) -> Tensor:
        """A micro-batch's image (B, C, H, W) float32: as the threads wrote it, or made of bytes on a device."""
        if ready.changes is None:
            return ready.images[part]
        from terrazzo.kernels.colour import recolour_batch

        def there(tensor: Tensor) -> Tensor:
            return tensor[part].to(self._colour_on, non_blocking=self._for_gpu)

        inside_B2 = ready.changes.inside_hw
        is_full = bool((inside_B2[part] == torch.tensor(ready.images.shape[1:3])).all())
        return recolour_batch(
            there(ready.images),
            there(ready.changes.matrices),
            inside_B2=None if is_full else there(inside_B2),
            beyond_C=self._padding,
        )

    def _begin(self, step: int) -> "_Step":
        size_hw = self._size_hw(step)
        begun = self._empty(size_hw)
        started = time.perf_counter()
        for slot, position in enumerate(self._positions(step)):
            epoch, index = self._at(position)
            work = functools.partial(
                _prepare, self._samples, self._transform, (self.seed, epoch, index), *begun.place(slot)
            )
            begun.tasks.append((slot, position, self._crew.submit(f"sample {self._names[index]}", work)))
        begun.waited = time.perf_counter() - started if not self._ahead else 0.0
        return begun

    def _empty(self, size_hw: tuple[int, int]) -> "_Step":
        """Memory for a step of images of `size_hw`."""
        empty = functools.partial(torch.empty, pin_memory=self._for_gpu)
        masks = empty((self.share, *size_hw), dtype=self._mask_dtype)
        channels = self._transform.channels
        if self._colour_on is None:
            return _Step(empty((self.share, channels, *size_hw), dtype=torch.float32), masks)
        matrices = empty((self.share, channels, channels + 1), dtype=torch.float32)
        changes = _Changes(matrices, empty((self.share, 2), dtype=torch.int32))
        return _Step(empty((self.share, *size_hw, channels), dtype=torch.uint8), masks, changes)

    def _finish(self, step: "_Step", number: int) -> None:
        """Wait for the first sample of a step that is not there yet."""
        slot, position, task = step.tasks[0]
        began = time.perf_counter()
        try:
            task.result()
        except DataError:
            if self._on_unreadable == "stop":
                raise
            self._skip(step, slot, position)
        except Exception as error:
            error.add_note(f"while preparing {task.what} for step {number}")
            raise
        finally:
            step.waited += time.perf_counter() - began
        step.tasks.popleft()

    def _skip(self, step: "_Step", slot: int, position: int) -> None:
        self._skipped[position] = self._names[self._at(position)[1]]
        if len(self.skipped) == len(self._split):
            raise DatasetFormatError(
                "Not one image of the training split can be read.",
                found=f"{len(self._split)} unreadable, such as {self._skipped[position]}",
                command="terrazzo check DATA",
            )
        if step.changes is None:
            self._transform.write_blank(step.images[slot].numpy(), step.masks[slot].numpy())
        else:  # without pixels it is of the mean colour everywhere
            step.masks[slot] = self._transform.ignore
            step.changes.inside_hw[slot] = 0

    def _size_hw(self, step: int) -> tuple[int, int]:
        """The size of a step's images: the crop, or the largest of all processes' samples where none is cut."""
        if self._transform.config.augment:
            return self._transform.config.crop_hw
        first = step * self.batch_size
        sizes = {
            self._largest_hw(self._at(position)[1]) for position in range(first, first + self.batch_size)
        }
        return max(height for height, _ in sizes), max(width for _, width in sizes)

    def _largest_hw(self, index: int) -> tuple[int, int]:
        try:
            return self._transform.output_hw(self._split.size_hw(index))
        except DataError:  # told when the sample is read
            return 1, 1


def prefetch(split: Samples, indices: Iterable[int], *, threads: int = 1, depth: int = 2) -> Iterator[Sample]:
    """Yield split[i] for i in `indices`, in order, reading up to `depth` samples ahead in `threads` threads.

    An error of reading a sample is raised where the sample would have come. threads=0 reads in the caller. Closing the
    iterator ends the threads.
    """
    names = list(split.names)
    with Crew(threads) as crew:
        waiting: deque[Task[Sample]] = deque()
        for index in indices:
            waiting.append(crew.submit(f"sample {names[index]}", functools.partial(split.__getitem__, index)))
            if len(waiting) > (max(depth, threads) if threads else 0):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def default_threads() -> int:
    """Return how many threads prepare samples where nobody says: half of this process's cores, 1 to 16.

    Half, because a training on the CPU uses all of them itself; processes of one machine share them.
    """
    return max(1, min(MOST_THREADS, cores() // 2 // processes_here(1)))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Changes(NamedTuple):
    """How the bytes of a step's images become float32."""

    matrices: Tensor
    """(B, C, C + 1) float32: their changes of colour."""
    inside_hw: Tensor
    """(B, 2) int32: height and width of what is not padding."""


@dataclass
class _Step:
    """The samples of one step, in the making or made."""

    images: Tensor
    """(B, C, H, W) float32, of this process's share; with `changes` (B, H, W, C) uint8."""
    masks: Tensor
    """(B, H, W)"""
    changes: _Changes | None = None
    """What is left to do where the colours change on a device."""
    tasks: deque[tuple[int, int, Task[None]]] = field(default_factory=deque)
    """(slot in the arrays, position in the line of samples, task), those not yet waited for."""
    waited: float = 0.0
    """Seconds the caller waited."""
    weight: float | None = None
    """What `Loader.weight` found."""

    def place(self, slot: int) -> tuple[NDArray[Any], NDArray[Any], tuple[NDArray[Any], NDArray[Any]] | None]:
        """Where a sample is written: image, mask, and its change (matrix, inside_hw) if there is one."""
        changes = self.changes
        change = (
            None if changes is None else (changes.matrices[slot].numpy(), changes.inside_hw[slot].numpy())
        )
        return self.images[slot].numpy(), self.masks[slot].numpy(), change

    def cancel(self) -> None:
        for _, _, task in self.tasks:
            task.cancel()


def _prepare(
    samples: SampleCache | DecodedSamples | MaskFirst,
    transform: TrainTransform,
    key: tuple[int, int, int],
    image: NDArray[Any],
    mask_HW: NDArray[np.integer[Any]],
    change: tuple[NDArray[np.float32], NDArray[np.int32]] | None,
) -> None:
    sample: Sample | Unread
    if transform.config.scaled_decoding:
        assert isinstance(samples, MaskFirst)
        sample = Unread(*samples.mask_first(key[2]))
    else:
        sample = samples[key[2]]
    rng = np.random.default_rng(key)
    if change is None:
        transform.write(sample, rng, image, mask_HW)
    else:
        change[0][...], change[1][...] = transform.write_bytes(sample, rng, image, mask_HW)


def can_reduce(split: MaskFirst) -> bool:
    """True where the first image is a JPEG that can be decoded smaller; it is read for that, at an eighth."""
    try:
        return split.read_reduced(0, DIVISORS[0]).divisor > 1
    except DataError:  # told when it is needed
        return False


def _told_scaled(split: MaskFirst, *, is_stream: bool) -> str:
    if is_stream or can_reduce(split):  # a stream is not asked for its first image: it may be far
        return "JPEGs are decoded no finer than their crops need; no decoded sample is kept"
    name = split.names[0]
    return f"data.scaled_decoding is for JPEGs and {name} is none: it is decoded whole, and nothing decoded is kept"


def processes_here(world: int) -> int:
    """Return how many of the training's processes share this machine: what the launcher says, else all of them."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", world)))


def _check_batch(batch_size: int, micro_batch: int, world: int) -> None:
    unit = world * max(1, micro_batch)
    if batch_size > 0 and batch_size % unit == 0:
        return
    below, above = batch_size // unit * unit, -(-batch_size // unit) * unit or unit
    near = " or ".join(str(size) for size in sorted({below, above} - {0}))
    share = batch_size // world if batch_size % world == 0 else 0
    divisors = [size for size in range(1, share + 1) if share % size == 0]
    other = f", or train.micro_batch={min(divisors, key=lambda d: abs(d - micro_batch))}" if divisors else ""
    portions = f"{world} process{'' if world == 1 else 'es'}" + (
        f" x {micro_batch} per pass" if micro_batch else ""
    )
    raise RecipeError(
        f"A batch of {batch_size} cannot be cut into equal parts.",
        found=f"train.batch_size={batch_size} for {portions}",
        expected=f"train.batch_size={near}{other}",
        hint="Every process and pass takes the same number of images, so that a result does not depend on the cut.",
    )
