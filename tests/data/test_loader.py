"""The line of samples depends on seed and step alone; errors come where they belong; threads end with their use."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shelf import Shelf
from terrazzo.data.loader import Loader, default_threads, prefetch
from terrazzo.data.transforms import DataConfig, TrainTransform
from terrazzo.errors import DatasetFormatError, RecipeError, UnreadableFileError
from terrazzo.sample import Sample

CONFIG = DataConfig(crop_hw=(16, 24))


def labelled_pixels(mask: Tensor) -> float:
    return float((mask != 255).sum())


@pytest.fixture
def loader() -> Iterator[Callable[..., Loader]]:
    """Makes loaders and closes them."""
    made = []

    def make(split: Shelf, *, config: DataConfig = CONFIG, batch_size: int = 4, **options: Any) -> Loader:
        options = {"seed": 3, "workers": 0, "pixel_weight": labelled_pixels, **options}
        transform = TrainTransform(config, ignore=255, mean=(0.4, 0.5, 0.6))
        made.append(Loader(split, transform=transform, batch_size=batch_size, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def step_of(loaders: Loader | list[Loader], step: int) -> tuple[Tensor, Tensor]:
    """The whole batch of a step: ranks one after the other, micro-batches one after the other."""
    ranks = loaders if isinstance(loaders, list) else [loaders]
    parts = [part for rank in ranks for part in rank.micro_batches(step)]
    return torch.cat([image for image, _ in parts]), torch.cat([mask for _, mask in parts])


def assert_same_steps(
    one: Loader | list[Loader], other: Loader | list[Loader], steps: range = range(5)
) -> None:
    for step in steps:
        for a, b in zip(step_of(one, step), step_of(other, step), strict=True):
            assert torch.equal(a, b)


def test_tensors_are_what_a_network_and_a_loss_take(loader: Callable[..., Loader]) -> None:
    [(image, mask)] = loader(Shelf(5)).micro_batches(0)
    assert image.shape == (4, 3, 16, 24)
    assert image.dtype == torch.float32
    assert 0 <= image.min() <= image.max() <= 1
    assert mask.shape == (4, 16, 24)
    assert mask.dtype == torch.int64
    assert set(mask.unique().tolist()) <= {0, 1, 2, 255}


BY_BYTES = [
    pytest.param({"colour_on": torch.device("cpu")}, id="cpu"),
    pytest.param({"colour_on": torch.device("cuda"), "for_gpu": True}, id="cuda", marks=pytest.mark.gpu),
]


@pytest.mark.parametrize("options", BY_BYTES)
@pytest.mark.parametrize("micro_batch", [0, 2])
@pytest.mark.parametrize("augment", [True, False])
def test_images_that_travel_as_bytes_are_those_of_the_threads(
    loader: Callable[..., Loader], options: dict[str, Any], augment: bool, micro_batch: int
) -> None:
    config = replace(
        CONFIG, augment=augment, scale=(0.3, 2.0), color_probability=0.8
    )  # some crops are padded
    shelves = Shelf(7, sizes=((32, 40), (20, 48))), Shelf(7, sizes=((32, 40), (20, 48)))
    for shelf in shelves:
        shelf.broken[2] = UnreadableFileError("no image")
    about = {"config": config, "micro_batch": micro_batch, "workers": 2, "on_unreadable": "skip"}
    plain, by_bytes = loader(shelves[0], **about), loader(shelves[1], **about, **options)
    padded = 0
    for step in range(4):
        (image, mask), (there, mask_there) = step_of(plain, step), step_of(by_bytes, step)
        assert there.device.type == options["colour_on"].type
        assert there.dtype == torch.float32
        assert torch.allclose(image, there.cpu(), rtol=0, atol=1e-6)
        assert torch.equal(mask, mask_there.long())
        assert plain.weight(step) == by_bytes.weight(step)
        padded += int((there.cpu() == torch.tensor([0.4, 0.5, 0.6])[:, None, None]).all(1).sum())
    assert padded > 16 * 24  # a blank and more
    assert plain.skipped == by_bytes.skipped != {}


def test_every_epoch_takes_every_sample_once_in_an_order_of_its_own(loader: Callable[..., Loader]) -> None:
    line = [
        index for step in range(7) for index in loader(Shelf(7)).sample_indices(step)
    ]  # 28 places, 4 epochs
    epochs = [line[start : start + 7] for start in range(0, 28, 7)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 4
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert epochs[2] == np.random.default_rng([3, 2]).permutation(7).tolist()  # the order that is promised


def test_several_epochs_fit_in_one_step(loader: Callable[..., Loader]) -> None:
    small = loader(Shelf(3), batch_size=8)
    line = small.sample_indices(0) + small.sample_indices(1)
    assert [sorted(line[start : start + 3]) for start in range(0, 15, 3)] == [[0, 1, 2]] * 5
    assert [small.epoch_of(step) for step in range(4)] == [0, 2, 5, 8]
    image, _ = step_of(small, 0)
    first, second = line.index(0), line.index(0, 3)
    assert not torch.equal(image[first], image[second])  # the same sample, drawn anew


def test_names_are_those_of_the_samples(loader: Callable[..., Loader]) -> None:
    some = loader(Shelf(7))
    assert some.names(2) == [f"street/{index:03d}" for index in some.sample_indices(2)]


def test_threads_do_not_change_a_pixel(loader: Callable[..., Loader]) -> None:
    for workers in (1, 2, 5):
        assert_same_steps(loader(Shelf(7)), loader(Shelf(7), workers=workers))


def test_processes_do_not_change_a_pixel(loader: Callable[..., Loader]) -> None:
    alone = loader(Shelf(7))
    for world in (2, 4):
        ranks = [loader(Shelf(7), rank=rank, world=world, workers=rank % 2) for rank in range(world)]
        assert_same_steps(alone, ranks)
        assert [name for rank in ranks for name in rank.names(3)] == alone.names(3)
        assert sum(rank.weight(3) for rank in ranks) == alone.weight(3)


def test_micro_batches_do_not_change_a_pixel(loader: Callable[..., Loader]) -> None:
    cut = loader(Shelf(7), micro_batch=1)
    assert cut.num_micro_batches == 4
    assert [image.shape[0] for image, _ in cut.micro_batches(0)] == [1, 1, 1, 1]
    assert_same_steps(loader(Shelf(7), micro_batch=4), cut)
    assert_same_steps(loader(Shelf(7)), [loader(Shelf(7), micro_batch=1, rank=r, world=2) for r in (0, 1)])


def test_a_cache_does_not_change_a_pixel(loader: Callable[..., Loader]) -> None:
    assert_same_steps(loader(Shelf(5), cache="none"), loader(Shelf(5), cache="memory", workers=2))


def test_another_seed_is_another_training(loader: Callable[..., Loader]) -> None:
    one, other = loader(Shelf(7), seed=3), loader(Shelf(7), seed=4)
    assert [one.names(step) for step in range(4)] != [other.names(step) for step in range(4)]
    assert not torch.equal(step_of(one, 0)[0], step_of(other, 0)[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_from_its_step_alone(loader: Callable[..., Loader], workers: int) -> None:
    whole, resumed = loader(Shelf(7), workers=workers), loader(Shelf(7), workers=workers)
    for step in range(5):
        step_of(whole, step)
    assert_same_steps(whole, resumed, range(5, 9))


def test_a_step_can_be_asked_for_again(loader: Callable[..., Loader]) -> None:
    some = loader(Shelf(7), workers=2)
    first = [tensor.clone() for tensor in step_of(some, 1)]
    for step in (2, 3, 9):
        step_of(some, step)
    for a, b in zip(step_of(some, 1), first, strict=True):
        assert torch.equal(a, b)


def test_the_weight_is_the_sum_over_the_share(loader: Callable[..., Loader]) -> None:
    some = loader(Shelf(7), micro_batch=2)
    before = some.weight(2)  # asked for first, as the trainer does
    assert before.dtype == torch.float64
    assert before == (step_of(some, 2)[1] != 255).sum()


def test_keys_belong_to_the_samples_not_to_the_process(loader: Callable[..., Loader]) -> None:
    alone = loader(Shelf(7), micro_batch=1)
    ranks = [loader(Shelf(7), micro_batch=1, rank=rank, world=2) for rank in (0, 1)]
    keys = [alone.key(step, number) for step in range(3) for number in range(4)]
    assert keys == [rank.key(step, number) for step in range(3) for rank in ranks for number in range(2)]
    assert len(set(keys)) == 12
    assert keys[0] != loader(Shelf(7), seed=4, micro_batch=1).key(0, 0)
    torch.Generator().manual_seed(max(keys))  # torch takes 64 bits


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "world", "words"),
    [
        (
            6,
            4,
            1,
            [
                "train.batch_size=6 for 1 process x 4 per pass",
                "train.batch_size=4 or 8, or train.micro_batch=3",
            ],
        ),
        (10, 0, 4, ["train.batch_size=10 for 4 processes", "expected: train.batch_size=8 or 12\n"]),
        (
            2,
            4,
            2,
            ["train.batch_size=2 for 2 processes x 4 per pass", "train.batch_size=8, or train.micro_batch=1"],
        ),
        (0, 0, 1, ["train.batch_size=0 for 1 process", "expected: train.batch_size=1\n"]),
    ],
)
def test_a_batch_that_cannot_be_cut_is_refused(
    loader: Callable[..., Loader], batch_size: int, micro_batch: int, world: int, words: list[str]
) -> None:
    with pytest.raises(RecipeError) as caught:
        loader(Shelf(3), batch_size=batch_size, micro_batch=micro_batch, world=world)
    assert str(caught.value).startswith(f"A batch of {batch_size} cannot be cut into equal parts.")
    for part in words:
        assert part in str(caught.value)


def test_an_empty_split_is_refused(loader: Callable[..., Loader]) -> None:
    with pytest.raises(DatasetFormatError, match=r"The training split is empty\."):
        loader(Shelf(0))


def corrupt(name: str) -> UnreadableFileError:
    return UnreadableFileError(f"{name}.jpg is truncated.", found="1,024 bytes")


@pytest.mark.parametrize("workers", [0, 3])
def test_an_unreadable_sample_stops_at_the_step_that_needs_it(
    loader: Callable[..., Loader], workers: int
) -> None:
    split = Shelf(12)
    some = loader(split, workers=workers)
    bad = some.sample_indices(2)[1]
    split.broken[bad] = corrupt(split.names[bad])
    step_of(some, 0)
    time.sleep(0.05)  # the threads have met it by now
    step_of(some, 1)
    for _ in range(2):  # and again, should the caller insist
        with pytest.raises(UnreadableFileError, match=rf"street/{bad:03d}\.jpg is truncated"):
            step_of(some, 2)
    assert not some.skipped


@pytest.mark.parametrize("workers", [0, 3])
def test_a_skipped_sample_is_blank_and_counted(loader: Callable[..., Loader], workers: int) -> None:
    split, whole = Shelf(6), loader(Shelf(6))
    split.broken[4] = corrupt("street/004")
    some = loader(split, workers=workers, on_unreadable="skip")
    for step in range(3):  # two epochs
        (image, mask), (full_image, full_mask) = step_of(some, step), step_of(whole, step)
        for slot, index in enumerate(some.sample_indices(step)):
            if index == 4:
                assert torch.equal(
                    image[slot], torch.tensor([0.4, 0.5, 0.6])[:, None, None].expand(3, 16, 24)
                )
                assert (mask[slot] == 255).all()
            else:
                assert torch.equal(image[slot], full_image[slot])
                assert torch.equal(mask[slot], full_mask[slot])
        assert some.weight(step) == (mask != 255).sum()
    assert dict(some.skipped) == {"street/004": 2}


def test_a_split_of_nothing_but_unreadable_samples_stops_even_where_skipping_is_allowed(
    loader: Callable[..., Loader],
) -> None:
    split = Shelf(3)
    split.broken = {index: corrupt(name) for index, name in enumerate(split.names)}
    with pytest.raises(DatasetFormatError, match=r"Not one image of the training split can be read\."):
        step_of(loader(split, on_unreadable="skip"), 0)


def test_a_mistake_in_the_code_is_never_skipped_and_shows_the_stack_of_the_thread(
    loader: Callable[..., Loader],
) -> None:
    split = Shelf(4)
    split.broken[2] = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError) as caught:
        step_of(loader(split, workers=2, on_unreadable="skip"), 0)
    assert caught.value.__notes__ == ["while preparing sample street/002 for step 0"]
    assert "Shelf" in str(caught.traceback[-1].frame.f_locals["self"])  # the line in the data set


def test_without_augmentation_images_are_padded_to_the_largest_of_the_step(
    loader: Callable[..., Loader],
) -> None:
    split, config = Shelf(4, sizes=((8, 12), (10, 6), (9, 9), (4, 4))), replace(CONFIG, augment=False)
    alone = loader(split, config=config)
    image, mask = step_of(alone, 0)
    assert image.shape == (4, 3, 10, 12)
    for slot, index in enumerate(alone.sample_indices(0)):
        sample = split.samples[index]
        h, w = sample.size_hw
        assert sample.mask is not None
        np.testing.assert_array_equal(mask[slot, :h, :w], sample.mask)
        np.testing.assert_array_equal((image[slot, :, :h, :w] * 255).round().permute(1, 2, 0), sample.image)
        assert (mask[slot, h:] == 255).all()
        assert (mask[slot, :, w:] == 255).all()
        assert (image[slot, :, h:] == torch.tensor([0.4, 0.5, 0.6])[:, None, None]).all()
    assert_same_steps(alone, [loader(split, config=config, rank=rank, world=4) for rank in range(4)])


def test_following_steps_are_prepared_while_the_caller_works(loader: Callable[..., Loader]) -> None:
    split = Shelf(16, seconds=0.01)
    some = loader(split, workers=2, cache="none")
    step_of(some, 0)
    waited = some.waited(0)
    assert waited > 0.01  # four samples of 10 ms each, two threads
    until = time.monotonic() + 10
    while sum(split.reads.values()) < 8 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert sum(split.reads.values()) == 8  # one step ahead, no more
    step_of(some, 1)
    assert some.waited(1) < waited / 2
    assert some.waited(99) == 0


def test_waiting_is_counted_without_threads_too(loader: Callable[..., Loader]) -> None:
    some = loader(Shelf(8, seconds=0.005))
    step_of(some, 0)
    assert some.waited(0) >= 4 * 0.005


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cached_sample_is_decoded_once(loader: Callable[..., Loader], workers: int) -> None:
    for cache, is_kept in (("memory", True), ("auto", True), ("none", False)):
        split = Shelf(8)
        some = loader(split, workers=workers, cache=cache)
        for step in range(
            3
        ):  # an epoch and a half; two threads may read a sample both at once where epochs meet
            step_of(some, step)
        before = sum(split.reads.values())
        for step in range(3, 7):
            step_of(some, step)
        some.close()
        assert (sum(split.reads.values()) == before) == is_kept


def test_threads_are_half_of_the_cores_shared_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, local, expected in [
        (1, None, 1),
        (2, None, 1),
        (8, None, 4),
        (8, "2", 2),
        (8, "8", 1),
        (96, None, 16),
    ]:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        if local is None:
            monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
        else:
            monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
        assert default_threads() == expected


def data_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("terrazzo-data")]


def test_threads_end_with_the_loader(loader: Callable[..., Loader]) -> None:
    before = len(data_threads())
    with loader(Shelf(7), workers=3) as some:
        step_of(some, 0)
        assert len(data_threads()) == before + 3
    assert len(data_threads()) == before
    some.close()  # again, harmless


def test_threads_end_with_a_forgotten_loader() -> None:
    before = len(data_threads())
    transform = TrainTransform(CONFIG, ignore=255, mean=(0.4, 0.5, 0.6))
    forgotten = Loader(Shelf(7), transform=transform, batch_size=4, workers=2, pixel_weight=labelled_pixels)
    step_of(forgotten, 0)
    assert len(data_threads()) == before + 2
    del forgotten
    gc.collect()
    assert len(data_threads()) == before


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_prefetched_samples_come_in_order(threads: int) -> None:
    order = [5, 0, 0, 7, 3, 1]
    samples = prefetch(Shelf(8), order, threads=threads)
    assert [sample.name for sample in samples] == [f"street/{index:03d}" for index in order]


@pytest.mark.parametrize("threads", [0, 2])
def test_a_prefetched_error_is_raised_in_its_place(threads: int) -> None:
    split = Shelf(6)
    split.broken[2] = corrupt("street/002")
    samples = prefetch(split, range(6), threads=threads)
    assert [next(samples).name, next(samples).name] == ["street/000", "street/001"]
    with pytest.raises(UnreadableFileError, match="street/002"):
        next(samples)
    assert not data_threads()


def test_prefetch_reads_no_further_than_its_depth_and_ends_when_closed() -> None:
    split = Shelf(50)
    samples = prefetch(split, range(50), threads=1, depth=3)
    next(samples)
    time.sleep(0.1)
    assert sum(split.reads.values()) == 4
    assert len(data_threads()) == 1
    samples.close()  # type: ignore[attr-defined]
    assert not data_threads()


@pytest.mark.camvid
def test_real_images_train(camvid: Path, loader: Callable[..., Loader]) -> None:
    from terrazzo.images import read_image, read_mask

    files = sorted((camvid / "val").glob("*.png"))[:6]
    split = Shelf(6)
    split.samples = [
        Sample(
            read_image(f),
            np.where((m := read_mask(camvid / "valannot" / f.name)) > 10, 255, m).astype(np.uint8),
            f.stem,
        )
        for f in files
    ]
    some = loader(split, config=replace(CONFIG, crop_hw=(256, 320)), workers=2)
    seen = [step_of(some, step) for step in range(3)]
    assert all(image.min() >= 0 and image.max() <= 1 and image.std() > 0.05 for image, _ in seen)
    assert all(len(mask.unique()) > 5 for _, mask in seen)
    assert_same_steps(some, loader(split, config=replace(CONFIG, crop_hw=(256, 320))), range(3))
