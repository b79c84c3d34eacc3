"""What `terrazzo env` prints, for machines other than this one too."""

import sys
from pathlib import Path
from typing import Any

import pytest

from terrazzo import environment

MACHINE: dict[str, Any] = {
    "terrazzo": "0.1.0",
    "python": "3.12.1",
    "system": "Linux-6.1",
    "packages": {"torch": "2.9.0", "numpy": "2.2.0"},
    "processor": {"model": None, "capability": "AVX2", "cores": 16, "usable_cores": 4, "torch_threads": 2},
    "memory": {"total_gib": 62.5, "limit_gib": 8.0},
    "devices": [
        {
            "name": "cuda:0",
            "model": "H200",
            "memory_gib": 139.8,
            "capability": "9.0",
            "cuda": "12.8",
            "cudnn": 91002,
        },
        {"name": "mps", "model": "Apple M3"},
    ],
    "folders": {"hugging_face": "~/.cache/huggingface"},
    "variables": {"OMP_NUM_THREADS": "2"},
}


def test_the_printed_form_is_aligned_and_leaves_nothing_out() -> None:
    assert environment.to_text(MACHINE).splitlines() == [
        "terrazzo             0.1.0",
        "python               3.12.1",
        "system               Linux-6.1",
        "processor            unknown (AVX2)",
        "                     16 cores, 4 usable, 2 threads",
        "memory               62.5 GiB, limited to 8.0 GiB",
        "devices              cuda:0: H200, 139.8 GiB, capability 9.0, cuda 12.8, cudnn 91002",
        "                     mps: Apple M3",
        "torch                2.9.0",
        "numpy                2.2.0",
        "hugging face folder  ~/.cache/huggingface",
        "OMP_NUM_THREADS      2",
    ]


def test_a_machine_that_tells_little_is_described_all_the_same() -> None:
    bare = {**MACHINE, "memory": {"total_gib": None, "limit_gib": None}, "devices": []}
    text = environment.to_text(bare)
    assert "memory               unknown\n" in text
    assert "devices              no GPU\n" in text


def test_the_home_folder_is_not_named() -> None:
    assert environment._shown(Path.home() / "a") == str(Path("~") / "a")
    assert environment._shown(Path(Path.home().anchor)) == Path.home().anchor


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_memory_is_what_the_kernel_says() -> None:
    [line] = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")]
    total = environment._total_memory()
    assert total is not None
    assert abs(total / 1024 - int(line.split()[1])) < 1024  # KiB


def test_a_device_is_called_as_its_maker_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.model_of("cpu") == (environment.describe()["processor"]["model"] or "unknown")
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"Maker's {device}")
    assert environment.model_of("cuda:1") == "Maker's cuda:1"
