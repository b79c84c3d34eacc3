"""Runs the benches and files what they print: what `scripts/bench` starts.

    scripts/bench                    all for a CPU, in turn: two hours on two cores, quality.py alone half an hour
    scripts/bench predict step       these
    scripts/bench --file predict     and write bench/results/predict_HARDWARE_YYYYMM.md
    scripts/bench --list             their names and what each runs

Each prints a card and one line of JSON last. At the end stands what was reached and what was missed; the exit code is 1
where anything was. What is filed is what was printed; scripts/measured.py makes README's table of it.
"""

import argparse
import datetime
import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parent.parent
RESULTS = PROJECT / "bench" / "results"
TOLD = (
    "torch",
    "transformers",
    "openvino",
    "onnxruntime",
    "numba",
    "numpy",
)  # versions in a file's second line


@dataclass(frozen=True)
class Run:
    """One bench with its words; its name is that of its file in bench/results."""

    title: str
    words: str
    is_gpu: bool = False
    is_asked: bool = False  # it runs where it is named, and not with all


RUNS = {
    "import_time": Run("How long until terrazzo answers", "import_time.py"),
    "metrics": Run("Counting pixels by true and predicted class", "metrics.py"),
    "loader": Run("Large images to training samples", "loader.py"),
    "evaluate_memory": Run("Peak memory of scoring many images", "evaluate_memory.py"),
    "import": Run("Importing with all checks", "import.py"),
    "checkpoint": Run("What saving costs a training", "checkpoint.py"),
    "predict": Run("One decoded 1080p image to its class map", "predict.py"),
    "predict_folder": Run("A folder of images, files in, files out", "predict_folder.py"),
    "step": Run("A training step beside transformers", "step.py"),
    "step-bf16": Run(
        "A training step in bf16 beside transformers in f32", "step.py --precision bf16 --peer-precision f32"
    ),
    "step_gpu": Run("Training steps on a GPU", "step_gpu.py", is_gpu=True),
    "kernels_gpu": Run("Kernels on a GPU beside torch and torchmetrics", "kernels_gpu.py", is_gpu=True),
    "predict_gpu": Run("A decoded 1080p image to its class map on a GPU", "predict_gpu.py", is_gpu=True),
    "pspnet": Run("PSPNet R50-d8 beside MMSegmentation's own", "pspnet.py"),
    "pspnet-bf16": Run("PSPNet R50-d8 in bf16 beside MMSegmentation's own", "pspnet.py --precision bf16"),
    "serve": Run("The server beside a plain one", "serve.py --form def"),
    "serve-bf16": Run("The server in bf16 beside a plain one at f32", "serve.py --form def --precision bf16"),
    "superpixels": Run("Superpixels: time, and how cells keep to what is drawn", "superpixels.py"),
    "serve-soak": Run("The server at twice its capacity", "serve.py --soak 600", is_asked=True),
    "label_latency": Run("The labelling page on a 12-megapixel image", "label_latency.py"),
    "quality": Run("Quality per compute: CamVid val after 600 s of training on 2 cores", "quality.py"),
}


def main() -> int:
    """Run what was asked for, say what was reached, and return the exit code."""
    args = arguments()
    if args.list:
        for name, run in RUNS.items():
            print(f"{name:<16} python bench/{run.words}")
        return 0
    unknown = [name for name in args.names if name not in RUNS]
    if unknown:
        print(f"There is no bench {', '.join(unknown)}; there are {', '.join(RUNS)}.", file=sys.stderr)
        return 2
    outcomes = {}
    for name in args.names or [name for name, run in RUNS.items() if not run.is_gpu and not run.is_asked]:
        run = RUNS[name]
        print(f"\n== python bench/{run.words}", flush=True)
        code, printed = started(run)
        outcomes[name] = "reached" if code == 0 else "missed" if code == 1 and is_whole(printed) else "failed"
        if args.file and outcomes[name] != "failed":
            print(f"filed: {filed(name, run, printed).relative_to(PROJECT)}")
    print()
    for name, outcome in outcomes.items():
        print(f"{name:<16} {outcome}")
    return int(any(outcome != "reached" for outcome in outcomes.values()))


def started(run: Run) -> tuple[int, str]:
    """Run a bench, passing on what it prints; return its exit code and what it printed on standard output."""
    words = [sys.executable, "-u", *shlex.split(run.words)]
    words[2] = str(PROJECT / "bench" / words[2])
    lines = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return child.returncode, "".join(lines)


def is_whole(printed: str) -> bool:
    """Whether a bench got as far as its last line of JSON: below its target then, and not broken."""
    lines = printed.strip().splitlines()
    return bool(lines) and lines[-1].startswith("{") and lines[-1].endswith("}")


def filed(name: str, run: Run, printed: str, *, folder: Path = RESULTS) -> Path:
    """Write what a bench printed as a file of results and return its path; sections written below it by hand stay."""
    from terrazzo.storage import replacing

    today = datetime.date.today()
    machine, slug = hardware(is_gpu=run.is_gpu)
    text = (
        f"# {run.title}\n\n{today.isoformat()}, {machine}, {versions()}.\n\n"
        f"```sh\npython bench/{run.words}\n```\n\n```\n{printed.strip()}\n```\n"
    )
    path = folder / f"{name}_{slug}_{today:%Y%m}.md"
    if path.is_file():
        _, heading, sections = path.read_text(encoding="utf-8").partition("\n## ")
        text += heading + sections
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return path


def hardware(*, is_gpu: bool = False) -> tuple[str, str]:
    """Return the machine in words, and as it stands in a file's name: "two cores of an AMD EPYC", "epyc-2-cores"."""
    from terrazzo import environment

    model = environment.model_of("cuda" if is_gpu else "cpu")
    known = re.search(r"epyc|xeon|ryzen|core|apple m\d|graviton|[ahlv]\d{2,3}|rtx \d+", model.lower())
    short = re.sub(r"[^a-z0-9]+", "-", known.group() if known else model.lower()).strip("-")
    if is_gpu:
        return f"one {model}", short
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{cores} cores of {model}", f"{short}-{cores}-cores"


def versions() -> str:
    """Return the versions of what computes, such as "torch 2.15.0, OpenVINO 2026.4.1"."""
    found = []
    for name in TOLD:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="of --list; all but those of a GPU by default"
    )
    parser.add_argument("--file", action="store_true", help="write bench/results/NAME_HARDWARE_YYYYMM.md")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
