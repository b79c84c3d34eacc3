"""Input that went wrong: read and consistent, or refused in words; nothing else, whatever the importer or reader.

The law is in `law.py`, what is read in `targets.py`, how it is made wrong in `mutator.py` and `forms.py`. 500 mutations
here, 10,000 with --long; the seeds are fixed, so a broken case is seen again by the line that names it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mutation.law import Bench, Tally
from mutation.plants import PLANTS
from mutation.targets import TARGETS, shares

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, and forks")
SHORT, LONG = shares(500), shares(10_000)
FOUND = {  # plant: the target that shows it, and what is said
    "lets_pillow_speak": ("images-others", "UnidentifiedImageError"),
    "waits_for_ever": ("images-others", "hang"),
    "dies": ("images-others", "crash: the process died with SIGABRT"),
    "believes_every_size": ("images-png", "memory: more than"),
    "leaves_a_part": ("coco-panoptic", "a part of the output is there although it failed"),
    "writes_elsewhere": ("camvid", "it did what it should not"),
    "guesses_ids": ("folder-ids", "ids"),
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A process that has imported everything once."""
    bench = Bench(tmp_path_factory.mktemp("mutation"))
    yield bench
    bench.close()


def hold(tally: Tally, count: int, record_property: Any) -> None:
    record_property("counted", str(tally))
    assert not tally.broken, "\n\n".join((str(tally), *tally.broken))
    assert sum(tally.counts.values()) == count


@pytest.mark.parametrize("target", TARGETS)
def test_wrong_input_is_read_or_refused_and_nothing_else_happens(
    target: str, bench: Bench, record_property: Any
) -> None:
    hold(bench.run(target, range(SHORT[target])), SHORT[target], record_property)


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_ten_thousand_wrong_inputs_are_read_or_refused(
    target: str, bench: Bench, record_property: Any
) -> None:
    hold(bench.run(target, range(LONG[target])), LONG[target], record_property)


@pytest.mark.parametrize("plant", FOUND)
def test_a_planted_bug_is_found(plant: str, bench: Bench) -> None:
    target, told = FOUND[plant]
    tally = bench.run(target, range(100), plant=plant, enough=1, seconds=1)
    assert any(told in broken for broken in tally.broken), str(tally)


def test_every_plant_is_tried_and_the_counts_are_those_promised() -> None:
    assert FOUND.keys() == PLANTS.keys()
    assert (sum(SHORT.values()), sum(LONG.values())) == (500, 10_000)
    assert min(SHORT.values()) >= 2


def test_a_case_is_the_same_each_time(bench: Bench) -> None:
    first, second = (bench.run("coco-instances", range(20, 40)) for _ in range(2))
    assert (first.counts, first.kinds) == (second.counts, second.kinds)
    assert first.counts["read"] and first.counts["refused"]  # some are still right, some are not


def test_nothing_is_read_as_xml() -> None:
    """What no parser reads cannot unfold its entities; an importer that will has to bring defusedxml."""
    source = Path(__file__).parents[2] / "src" / "terrazzo"
    words = ("xml.etree", "xml.dom", "xml.sax", "lxml", "expat", "minidom")
    found = [path for path in source.rglob("*.py") if any(word in path.read_text("utf-8") for word in words)]
    assert found == []
