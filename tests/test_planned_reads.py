"""How many images a training decodes, counted one by one in the order that the loader takes."""

# N images, K classes

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from terrazzo import planned_reads
from terrazzo.data import open_dataset
from terrazzo.data.cache import SampleCache
from terrazzo.data.decoded import SHARE, DecodedSamples
from terrazzo.data.order import Shuffled
from terrazzo.data.sampling import Balanced, Rarity
from terrazzo.planned_reads import Reads, reads_of
from terrazzo.preparation import cache_key
from terrazzo.recipe import Recipe, load


def recipe(*overrides: str) -> Recipe:
    return load("segformer-b0-scratch").with_overrides(overrides)


@pytest.mark.parametrize("count", [1, 7, 20, 33, 200])
def test_a_shuffled_epoch_holds_every_image_once(count: int) -> None:
    order = Shuffled(20, seed=3)
    met = len({order(position)[1] for position in range(count)})
    assert Reads(np.ones(20)).seen(count) == pytest.approx(met)


@pytest.mark.parametrize("count", [40, 100, 150, 430])
def test_of_repeated_images_as_many_are_new_as_the_orders_of_many_seeds_give(count: int) -> None:
    factors = np.r_[np.full(80, 1.0), np.full(15, 3.0), np.full(5, 6.5)]
    reads = Reads(planned_reads._shares(factors))
    orders = [Balanced(factors, seed) for seed in range(60)]
    met = np.mean([len({order(position)[1] for position in range(count)}) for order in orders])
    assert reads.seen(count) == pytest.approx(met, rel=0.03)
    assert reads.seen(count) < 100  # images without rare classes wait for epochs


def test_new_images_never_become_fewer_and_never_more_than_there_are() -> None:
    reads = Reads(planned_reads._shares([1.0, 1.0, 2.0, 5.0]))
    seen = [reads.seen(count / 3) for count in range(200)]
    assert seen[0] == 0 and all(a <= b + 1e-9 for a, b in itertools.pairwise(seen)) and seen[-1] <= 4


@pytest.mark.parametrize(
    ("kept", "there", "count", "decoded"),
    [
        (1.0, 0.0, 20, 10),  # two epochs of ten images
        (0.0, 0.0, 20, 20),
        (0.4, 0.0, 20, 16),  # 10 in the first, then the 6 that have no room
        (1.0, 1.0, 20, 0),
        (1.0, 0.3, 20, 7),
        (1.0, 0.3, 5, 3.5),
    ],
)
def test_an_image_is_decoded_once_where_it_is_kept_and_each_time_where_not(
    kept: float, there: float, count: int, decoded: float
) -> None:
    assert Reads(np.ones(10), kept, there).decoded(count) == pytest.approx(decoded)


class Counted:
    """Samples that count how often each is read."""

    def __init__(self, split: object) -> None:
        self.split, self.reads = split, 0
        self.names = split.names  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> object:
        self.reads += 1
        return self.split[index]  # type: ignore[index]

    def size_hw(self, index: int) -> tuple[int, int]:
        return self.split.size_hw(index)  # type: ignore[attr-defined]


@pytest.mark.parametrize("room", [0.0, 0.5, 1.0])
def test_a_memory_of_any_size_decodes_as_often_as_is_said(
    boxes: Path, room: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_dataset(boxes)
    split = data["train"]
    height, width = split.size_hw(0)
    size = len(split) * height * width * 4  # three channels and the mask; all are of one size
    monkeypatch.setattr(planned_reads, "cache_budget", lambda kind: room * size)
    counted, order = Counted(split), Shuffled(len(split), seed=0)
    cache = SampleCache(counted, room * size)  # type: ignore[arg-type]
    for position in range(3 * len(split)):
        cache[order(position)[1]]
    said = reads_of(data, recipe(), Rarity())
    assert said.kept == pytest.approx(room) and said.decoded(3 * len(split)) == pytest.approx(counted.reads)


def test_what_an_earlier_training_left_on_the_disk_is_not_decoded_again(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERRAZZO_CACHE", str(tmp_path / "cache"))
    data, chosen = open_dataset(boxes), recipe("data.cache=disk")
    split = data["train"]
    nothing_yet = reads_of(data, chosen, Rarity())
    assert (nothing_yet.kept, nothing_yet.there) == (1.0, 0.0)
    assert not (tmp_path / "cache" / "decoded").exists()  # looking makes nothing
    kept = DecodedSamples(split, key=cache_key(data, split))
    for index in range(2):
        kept[index]
    left = reads_of(data, chosen, Rarity())
    assert left.kept == 1.0 and left.there == pytest.approx(2 / len(split))
    counted = Counted(split)
    again = DecodedSamples(counted, key=cache_key(data, split))  # type: ignore[arg-type]
    counted.reads = 0  # opening looks at the first
    for position in range(2 * len(split)):
        again[position % len(split)]
    assert left.decoded(2 * len(split)) == pytest.approx(counted.reads)


@pytest.mark.parametrize("overrides", [("data.cache=none",), ("data.scaled_decoding=true",)])
def test_where_nothing_is_kept_everything_is_decoded(boxes: Path, overrides: tuple[str, ...]) -> None:
    reads = reads_of(open_dataset(boxes), recipe(*overrides), Rarity())
    assert reads.decoded(1000) == pytest.approx(1000)


@pytest.mark.parametrize("room", [0.4, 0.8, 3.0])
def test_as_many_have_room_on_the_disk_as_then_find_it(
    boxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: float
) -> None:
    monkeypatch.setenv("TERRAZZO_CACHE", str(tmp_path / "cache"))
    data = open_dataset(boxes)
    split = data["train"]
    height, width = split.size_hw(0)
    free = int(room * len(split) * height * width * 4) * SHARE
    monkeypatch.setattr("terrazzo.data.decoded.shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    said = reads_of(data, recipe("data.cache=disk"), Rarity())
    assert said.kept == pytest.approx(min(1.0, room), rel=1e-4)  # bytes are whole
    DecodedSamples(split, key=cache_key(data, split))
    then = reads_of(data, recipe("data.cache=disk"), Rarity()).kept
    assert then <= said.kept and then == pytest.approx(said.kept, abs=1.5 / len(split))  # whole images
