"""How long until terrazzo answers: `terrazzo --help`, `import terrazzo`, each in fresh processes.

    python bench/import_time.py [--repeats 15]

Medians of whole processes; the bare interpreter and `import torch`, `import transformers` stand beside them in the same
run. Prints a card and one line of JSON; exit code 1 above a target.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time

from terrazzo import environment

TARGETS = {
    "terrazzo --help": 0.25,
    "import terrazzo": 0.10,
}  # seconds; the import is what it adds to the interpreter
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "terrazzo --help": [sys.executable, "-m", "terrazzo", "--help"],
    "import terrazzo": [sys.executable, "-c", "import terrazzo"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import transformers": [sys.executable, "-c", "import transformers"],
}


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15, help="fresh processes each; at least 9")
    repeats = max(9, parser.parse_args().repeats)

    commands = {name: words for name, words in COMMANDS.items() if _is_installed(name)}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats + 1):  # interleaved, so that what disturbs the machine disturbs all alike
        for name, words in commands.items():
            slow = name in ("import torch", "import transformers")
            if not slow or len(times[name]) < 4:
                times[name].append(_seconds(words))
    medians = {
        name: statistics.median(values[1:]) for name, values in times.items()
    }  # the first warms the disk

    measured = {**medians, "import terrazzo": medians["import terrazzo"] - medians["python"]}
    is_met = {name: measured[name] <= target for name, target in TARGETS.items()}
    machine = environment.describe()
    print(f"fresh processes, medians of {repeats} (torch, transformers: 3)")
    print(
        f"{machine['processor']['model']}, {machine['processor']['usable_cores']} cores, Python {machine['python']}\n"
    )
    for name, seconds in measured.items():
        target = (
            f"target {TARGETS[name]:.2f} s: {'met' if is_met[name] else 'MISSED'}" if name in TARGETS else ""
        )
        added = " (beyond the interpreter)" if name == "import terrazzo" else ""
        print(f"  {name + added:<44}{seconds:8.3f} s   {target}")
    print()
    print(
        json.dumps(
            {
                "bench": "import_time",
                "seconds": {name: round(seconds, 4) for name, seconds in measured.items()},
                "targets": TARGETS,
                "met": all(is_met.values()),
                "python": machine["python"],
                "processor": machine["processor"]["model"],
            }
        )
    )
    return 0 if all(is_met.values()) else 1


def _seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _is_installed(name: str) -> bool:
    return (
        not name.startswith("import ") or importlib.util.find_spec(name.removeprefix("import ")) is not None
    )


if __name__ == "__main__":
    sys.exit(main())
