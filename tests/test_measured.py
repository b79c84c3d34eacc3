"""The measured table of README.md holds what is filed in bench/results, and nothing typed by hand."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROJECT = Path(__file__).parent.parent
RESULTS = PROJECT / "bench" / "results"

STEP = {"bench": "step", "model": "b0", "batch": 2, "size_hw": [512, 512], "peak_memory_mib": [0, 0], "classes": 35,
        "precision": "f32", "device": "CPU X",
        "threads": 2, "terrazzo_ms": 500.0, "transformers_ms": 1000.0, "ratio": 2.0}  # fmt: skip
QUALITY = {"bench": "quality", "recipe": "small", "miou": 45.04, "ratio": 2.252, "seconds": 600.0, "threads": 2,
           "processor": "CPU X",
           "sides": {"control": [{"miou": 16.8}], "hf": [{"miou": 20.0}], "terrazzo": [{}, {}]}}  # fmt: skip


@pytest.fixture(scope="module")
def measured() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measured", PROJECT / "scripts" / "measured.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def file(folder: Path, name: str, value: dict[str, Any]) -> None:
    (folder / name).write_text(f"# A card\n\n```\n{{not the last line\n{json.dumps(value)}\n```\n")


def test_the_table_of_the_readme_is_what_was_measured(
    measured: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["measured.py"])
    assert measured.main() == 0, "scripts/check --fix writes it anew"


def test_a_result_becomes_a_line_with_its_peer_and_its_machine(measured: ModuleType, tmp_path: Path) -> None:
    file(tmp_path, "step_x_202611.md", STEP)
    file(tmp_path, "quality_x_202611.md", QUALITY)
    table, left_out = measured.block(tmp_path)
    assert table == measured.HEAD + (
        "| [mIoU on CamVid val after 600 s of training from random weights, `small`]"
        "(bench/results/quality_x_202611.md) | "
        "45.0 (mean of 2 seeds) | 20.0: the Hugging Face walk-through's recipe (2.3x); "
        "16.8: a guess that sees no image | 2 threads of CPU X |\n"
        "| [Training step, SegFormer-B0, 2 x 512x512, f32](bench/results/step_x_202611.md) | 500.0 ms | "
        "1,000.0 ms: transformers (2.00x) | 2 threads of CPU X |\n"
    )
    assert left_out == []


def test_the_newest_month_counts_and_an_unknown_bench_is_named(measured: ModuleType, tmp_path: Path) -> None:
    file(tmp_path, "step_x_202611.md", STEP)
    file(tmp_path, "step_x_202612.md", {**STEP, "terrazzo_ms": 400.0})
    file(tmp_path, "coffee_x_202611.md", {"bench": "coffee"})
    table, left_out = measured.block(tmp_path)
    assert "400.0 ms" in table
    assert "500.0 ms" not in table
    assert left_out == ["coffee_x_202611.md"]


def test_without_results_it_says_so(measured: ModuleType, tmp_path: Path) -> None:
    assert measured.block(tmp_path) == (measured.NOTHING, [])
