"""Decoded samples are kept while there is room, which the processes of a machine share."""

from pathlib import Path

import pytest

from shelf import Shelf
from terrazzo.data import cache as cache_module
from terrazzo.data.cache import SampleCache, cache_budget, free_memory


def test_a_cache_keeps_what_fits_and_reads_the_rest_anew() -> None:
    split = Shelf(4)
    each = split.samples[0].image.nbytes + 32 * 40
    kept = SampleCache(split, budget=2 * each)
    for _ in range(3):
        for index in range(4):
            assert kept[index].name == split.names[index]
    assert kept.bytes == 2 * each
    assert split.reads == {0: 1, 1: 1, 2: 3, 3: 3}


def test_the_budget_is_shared_by_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "free_memory", lambda: 4 << 30)
    assert cache_budget("auto") == 1 << 30
    assert cache_budget("auto", sharers=4) == 1 << 28
    monkeypatch.setattr(cache_module, "free_memory", lambda: 100 << 30)
    assert cache_budget("auto") == 2 << 30
    assert cache_budget("none") == 0
    assert cache_budget("memory", sharers=4) == float("inf")


def test_free_memory_is_plausible_and_minds_the_container(tmp_path: Path) -> None:
    assert 1 << 20 < free_memory() < 1 << 50
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 100\nfile 500\ninactive_file 250\n")
    assert cache_module._free_in_cgroup(tmp_path) == 1000 - 700 + 250
    (tmp_path / "memory.max").write_text("max\n")
    assert cache_module._free_in_cgroup(tmp_path) is None
