"""A probe is read from lines whose costs are known, and from trainings whose costs are made up."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from terrazzo import probing
from terrazzo.data import Dataset, open_dataset
from terrazzo.probing import Passes
from terrazzo.recipe import Recipe, load


def recipe(*overrides: str) -> Recipe:
    return load("segformer-b0-scratch").with_overrides(overrides)


def row(step: int, seconds: float, waited: float = 0.1) -> dict[str, Any]:
    return {"step": step, "seconds_per_step": seconds, "data_seconds": waited, "memory_bytes": step}


def test_a_probe_is_read_without_what_warming_up_took() -> None:
    rows = [row(4, 9.0), row(8, 2.0), row(12, 1.0), row(16, 1.2), row(20, 1.1)]
    looks = [
        {"seconds": 8.0, "images": 8, "drawing_seconds": 1.0},
        {"seconds": 4.0, "images": 8, "drawing_seconds": 0.5},
    ]
    probe = probing.read(rows, looks, [{"seconds": 1.0}], total=100.0)
    assert probe.step_seconds == pytest.approx(1.15) and probe.decoding_seconds == 0.0
    assert probe.image_seconds == 0.5 and probe.pictures_seconds == 0.5
    # a slow reading in the middle is no start: 4 * 1.15 of the first, then as it was
    assert probe.start_seconds == pytest.approx(100 - 4 * 1.15 - 4 * (2 + 1 + 1.2 + 1.1) - 2 * 4.5 - 1.0)
    assert probe.memory_bytes == 20


def test_what_is_decoded_once_is_told_from_what_every_step_costs() -> None:
    """Steps 1 to 12 decode, 13 to 24 compare what they find on the disk, later ones take it."""
    rows = [
        row(at, 3.0 if at <= 12 else 1.5 if at <= 24 else 1.0, 0.8 if at <= 12 else 0.1)
        for at in range(4, 37, 4)
    ]
    probe = probing.read(rows, [], [], total=12 * 3 + 12 * 1.5 + 12 + 7.0, passes=Passes(12, 24))
    assert (probe.step_seconds, probe.decoding_seconds) == (1.0, 2.0)
    assert probe.decoding_waited_seconds == pytest.approx(0.7) and probe.start_seconds == pytest.approx(7.0)


@pytest.mark.parametrize(("override", "times"), [("data.cache=auto", 1), ("data.cache=disk", 2)])
def test_a_probe_sees_its_few_images_again(
    boxes: Path, monkeypatch: pytest.MonkeyPatch, override: str, times: int
) -> None:
    monkeypatch.setattr(probing, "WARM", 2)
    monkeypatch.setattr(probing, "FRESH", 3)
    data, few = open_dataset(boxes), 5  # of its 8
    seen, passes = probing._seen_again(data, recipe("train.batch_size=1", override))
    assert (len(seen["train"]), passes) == (few, Passes(few, times * few))


class Costs:
    """A training and a clock in one: it takes what its costs say, and its images are kept after they came once."""

    def __init__(self, *, process: float, start: float, step: float, decode: float) -> None:
        self.process, self.start, self.step, self.decode = process, start, step, decode
        self.now = 0.0
        self.batch = 2

    def perf_counter(self) -> float:
        return self.now

    @contextmanager
    def trained(self, recipe: Recipe, data: Dataset, words: list[str], **more: Any) -> Iterator[Any]:
        asked = recipe.with_overrides(words)
        assert not asked.data.rare_images and asked.train.steps is not None
        self.now += self.process + self.start
        self.process = 0.0  # a process pays it once
        known: set[int] = set()
        rows, spent, every = [], 0.0, asked.train.log_every
        for step in range(asked.train.steps):
            own = {(step * self.batch + slot) % len(data["train"]) for slot in range(self.batch)}
            spent += self.step + self.decode * len(own - known)
            known |= own if asked.data.cache != "none" else set()
            if (step + 1) % every == 0:
                rows.append(row(step + 1, spent / every))
                self.now, spent = self.now + spent, 0.0
        lines = {"train": rows}
        yield SimpleNamespace(history=lambda kind: lines.get(kind, []))


@pytest.mark.parametrize(
    "overrides",
    [
        ("data.rare_images=0.9",),
        ("data.rare_crops=0.5",),
        ("data.rare_images=0.9", "data.rare_crops=0.5"),
        ("train.micro_batch=1",),
    ],
)
def test_the_costs_of_a_made_up_training_are_found(
    boxes: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    monkeypatch.setattr(probing, "EVERY", 1)
    monkeypatch.setattr(probing, "WARM", 1)
    monkeypatch.setattr(probing, "FRESH", 2)
    costs = Costs(process=40.0, start=3.0, step=0.5, decode=0.125)
    monkeypatch.setattr(probing, "time", costs)
    monkeypatch.setattr(probing, "_trained", costs.trained)
    data, words = open_dataset(boxes), ["train.batch_size=2", *overrides]
    chosen = recipe(*words)
    probing.warm_up(chosen, data, words, device="cpu", seed=None)
    probe = probing.probed(chosen, data, words, device="cpu", seed=None, is_kept=True)
    assert probe.start_seconds == pytest.approx(3.0)  # without the 40 s that no training will pay again
    assert probe.step_seconds == pytest.approx(0.5) and probe.decoding_seconds == pytest.approx(2 * 0.125)


def test_counting_that_is_kept_for_the_training_is_not_in_its_start(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRAZZO_CACHE", str(tmp_path))
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(probing, "time", clock)
    from terrazzo.data import counts

    count = counts._counts

    def slow(*words: Any) -> Any:
        clock.now += 1.0
        return count(*words)

    monkeypatch.setattr(counts, "_counts", slow)
    data = open_dataset(boxes)
    images = len(data["train"])
    chosen = recipe("data.rare_images=0.9", "loss.class_weights=none")
    seconds, rare = probing.before_first_step(chosen, data)
    assert seconds == 0.0 and clock.now == images and rare.repeats_N is not None
    weighed = recipe("loss.class_weights=sqrt_inverse")  # counted by every training anew
    assert probing.before_first_step(weighed, data)[0] == images


def test_a_probe_leaves_nothing_decoded_on_the_disk(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRAZZO_CACHE", str(tmp_path / "cache"))
    for name, value in (("EVERY", 1), ("WARM", 1), ("FRESH", 1)):
        monkeypatch.setattr(probing, name, value)
    words = ["data.cache=disk", "data.crop_hw=32x32", "train.batch_size=4", "data.workers=0",
             "train.precision=f32", "train.pictures=0"]  # fmt: skip
    data = open_dataset(boxes)
    probe = probing.probed(recipe(*words), data, words, device="cpu", seed=None, is_kept=True)
    assert probe.step_seconds > 0 and list((tmp_path / "cache" / "decoded").iterdir()) == []
