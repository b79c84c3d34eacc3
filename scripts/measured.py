"""Writes the measured table of README.md from bench/results, so that no figure is typed by hand.

python scripts/measured.py            compare; exit code 1 when the table differs
python scripts/measured.py --write    write it

A result is bench/results/WHAT_HARDWARE_YYYYMM.md, whose last line that is JSON is what the bench printed last. Of files
that differ in the month alone the newest counts. A bench that has no line in `ROWS` is named, and not in the table.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent
RESULTS = PROJECT / "bench" / "results"
README = PROJECT / "README.md"
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->"
HEAD = "| what | terrazzo | beside it | on |\n| --- | --- | --- | --- |\n"
NOTHING = "Nothing is filed in `bench/results` yet.\n"

Row = tuple[str, str, str, str]  # what, terrazzo, beside it, on


def quality(result: dict[str, Any]) -> Iterator[Row]:
    """CamVid in so many seconds from random weights: mIoU."""
    if "miou" not in result:
        return  # skipped: no CamVid
    sides = result["sides"]
    beside = []
    if "hf" in sides:
        beside.append(
            f"{sides['hf'][0]['miou']:.1f}: the Hugging Face walk-through's recipe ({result['ratio']:.1f}x)"
        )
    if "control" in sides:
        beside.append(f"{sides['control'][0]['miou']:.1f}: a guess that sees no image")
    what = f"mIoU on CamVid val after {result['seconds']:.0f} s of training from random weights, `{result['recipe']}`"
    seeds = len(sides["terrazzo"])
    ours = f"{result['miou']:.1f}" + (f" (mean of {seeds} seeds)" if seeds > 1 else "")
    yield what, ours, "; ".join(beside), _threads(result["threads"], result["processor"])


def step(result: dict[str, Any]) -> Iterator[Row]:
    """A training step."""
    height, width = result["size_hw"]
    size = f"{result['batch']} x {height}x{width}"
    peer = result.get("peer_precision", result["precision"])
    other = f", {peer}" if peer != result["precision"] else ""
    what = f"Training step, SegFormer-{result['model'].upper()}, {size}, {result['precision']}"
    beside = f"{result['transformers_ms']:,.1f} ms: transformers{other} ({result['ratio']:.2f}x)"
    is_gpu = result["peak_memory_mib"] > [0, 0]  # not measured on a CPU
    on = result["device"] if is_gpu else _threads(result["threads"], result["device"])
    yield what, f"{result['terrazzo_ms']:,.1f} ms", beside, on


def loader(result: dict[str, Any]) -> Iterator[Row]:
    """Files to training samples."""
    height, width = result["size_hw"]
    for name, one in result["results"].items():
        peer = {"mmseg": "MMSegmentation's pipeline", "hf": "the Hugging Face walk-through's transform"}[name]
        what = f"One {width}x{height} PNG pair to a training sample, decoded once before"
        beside = f"{one['peer_ms']:.1f} ms: {peer} ({one['ratio']:.1f}x; {one['ratio_decoding']:.1f}x decoding anew)"
        yield what, f"{one['terrazzo_ms']:.1f} ms", beside, f"one thread of {result['processor']}"


def evaluate_memory(result: dict[str, Any]) -> Iterator[Row]:
    """Peak memory of scoring many images."""
    peaks, kept = result["peak_mib"], result["kept_logits_mib"]
    counts = sorted(peaks, key=int)
    what = f"Peak memory of scoring {' and '.join(f'{int(count):,}' for count in counts)} images"
    ours = " and ".join(f"{peaks[count]:,.0f} MiB" for count in counts)
    beside = " and ".join(f"{kept[count]:,.0f} MiB" for count in counts)
    yield (
        what,
        ours,
        f"{beside}: all logits kept and resized (computed)",
        _threads(result["threads"], result["processor"]),
    )


def step_gpu(result: dict[str, Any]) -> Iterator[Row]:
    """Training on a GPU."""
    height, width = result["size_hw"]
    for one in result["results"]:
        rates, memory = one["images_per_second"], one["memory_mib"]
        what = (
            f"Training on a GPU, SegFormer-{one['model'].upper()}, {result['batch']} x {height}x{width}, "
            f"{result['classes']} classes, {result['precision']}"
        )
        peers = [name for name in rates if name != "terrazzo"]
        beside = "; ".join(
            f"{rates[name]:,.0f} images/s, {memory[name] / 1024:.1f} GiB: {name} "
            f"({rates['terrazzo'] / rates[name]:.1f}x)"
            for name in peers
        )
        ours = f"{rates['terrazzo']:,.0f} images/s, {memory['terrazzo'] / 1024:.1f} GiB"
        yield what, ours, beside, result["device"]


def predict_gpu(result: dict[str, Any]) -> Iterator[Row]:
    """One image that is decoded already, to its mask, on a GPU."""
    height, width = result["image_hw"]
    for one in result["results"]:
        theirs = one["ms"]["transformers"]
        ours = one["ms"]["terrazzo, f32"]
        what = (
            f"A decoded {width}x{height} image to its mask on a GPU, SegFormer-B0 at 512x512, f32, "
            f"{one['classes']} classes"
        )
        beside = f"{theirs:.1f} ms: the Hugging Face walk-through's code ({theirs / ours:.1f}x)"
        yield what, f"{ours:.1f} ms", beside, result["device"]


def kernels_gpu(result: dict[str, Any]) -> Iterator[Row]:
    """Kernels on a GPU."""
    for one in result["results"]:
        beside = "; ".join(
            f"{ms:.2f} ms, {one['peer_mib'][name]:,} MiB: {name} ({ms / one['ms']:.1f}x)"
            for name, ms in one["peers_ms"].items()
        )
        yield f"On a GPU: {one['what']}", f"{one['ms']:.2f} ms, {one['mib']:,} MiB", beside, result["device"]


def metrics(result: dict[str, Any]) -> Iterator[Row]:
    """Confusion counts."""
    for one in result["results"]:
        if one["content"] != "street":
            continue
        times, nanoseconds = one["times_faster"], one["ns_per_pixel"]
        peers = [
            name
            for name in (
                "torchmetrics",
                "torchmetrics, no checks",
                "evaluate mean_iou",
                "evaluate's formula",
            )
            if name in times
        ]
        beside = "; ".join(f"{nanoseconds[name]:.1f} ns: {name} ({times[name]:.0f}x)" for name in peers)
        what = f"Counting a pixel of {one['classes']} classes"
        yield (
            what,
            f"{nanoseconds['terrazzo']:.2f} ns",
            beside,
            _threads(result["threads"], result["processor"]),
        )


def pspnet(result: dict[str, Any]) -> Iterator[Row]:
    """A network's pass over an image."""
    height, width = result["size_hw"]
    what = f"PSPNet R{result['depth']}-d8, one image of {height}x{width}, {result['precision']}"
    beside = f"{result['mmseg_ms']:,.0f} ms: MMSegmentation ({result['ratio']:.2f}x)"
    yield what, f"{result['terrazzo_ms']:,.0f} ms", beside, _threads(result["threads"], result["device"])


def predict(result: dict[str, Any]) -> Iterator[Row]:
    """One image that is decoded already, to its mask."""
    height, width = result["image_hw"]
    for precision, ratio in result["ratio"].items():
        what = f"A decoded {width}x{height} image to its mask, SegFormer-B0 at 512x512, {precision}"
        beside = f"{result['peer_ms']:,.0f} ms: the Hugging Face walk-through's code, f32 ({ratio:.1f}x)"
        on = _threads(result["threads"], result["device"])
        yield what, f"{result['terrazzo_ms'][precision]:,.0f} ms", beside, on
    from_file = result["jpeg_to_png_ms"]
    for precision in result["ratio"]:
        what = f"The same from a JPEG file to a PNG file, {precision}"
        ratio = from_file["transformers"] / from_file[precision]
        beside = f"{from_file['transformers']:,.0f} ms: the walk-through's code, f32 ({ratio:.1f}x)"
        yield what, f"{from_file[precision]:,.0f} ms", beside, _threads(result["threads"], result["device"])


def predict_folder(result: dict[str, Any]) -> Iterator[Row]:
    """Files in, files out."""
    theirs = result["pipeline_images_per_second"]
    for precision, one in result["results"].items():
        what = f"A folder of {result['images']} CamVid images to masks, SegFormer-B0 at 512x512, {precision}"
        beside = f"{theirs:.1f} images/s: transformers.pipeline, f32 ({one['ratio']:.1f}x)"
        yield (
            what,
            f"{one['images_per_second']:.1f} images/s",
            beside,
            _threads(result["threads"], result["device"]),
        )


def serve(result: dict[str, Any]) -> Iterator[Row]:
    """Images over HTTP."""
    height, width = result["size_hw"]
    what = f"A server asked by {result['clients']} clients, {width}x{height} JPEG to class map, {result['precision']}"
    beside = (
        f"{result['peer_per_second']:.2f} images/s: FastAPI and transformers.pipeline, {result['peer_precision']} "
        f"({result['ratio']:.1f}x)"
    )
    ours = f"{result['terrazzo_per_second']:.1f} images/s"
    yield what, ours, beside, _threads(result["threads"], result["processor"])


def soak(result: dict[str, Any]) -> Iterator[Row]:
    """A server asked for more than it can."""
    what = f"The server at twice its capacity for {result['seconds']:.0f} s, {result['precision']}"
    told = ", ".join(f"{count:,} x {status}" for status, count in sorted(result["statuses"].items()))
    beside = f"memory {result['memory_growth_mib']:+.0f} MiB; 99 % within {result['answered_seconds']['p99']:.2f} s"
    yield what, told, beside, _threads(result["threads"], result["processor"])


def checkpoint(result: dict[str, Any]) -> Iterator[Row]:
    """What saving costs."""
    what = f"Saving a checkpoint of {result['recipe']}, every {result['interval']:,} steps"
    ours = f"{100 * result['share']:.2f} % of the time"
    on = _threads(result["threads"], result["device"])
    yield what, ours, f"{result['save_ms']:.0f} ms beside steps of {result['step_ms']:.0f} ms", on


def kills(result: dict[str, Any]) -> Iterator[Row]:
    """A training that is killed again and again."""
    what = f"A training killed {result['kills']} times, {result['while_saving']} of them while saving"
    yield (
        what,
        "the same, bit for bit" if result["bit_identical"] else "another",
        "one never killed",
        result["device"],
    )


def import_time(result: dict[str, Any]) -> Iterator[Row]:
    """How long until it answers."""
    seconds = result["seconds"]
    beside = "; ".join(f"{seconds[n]:.2f} s: {n}" for n in ("python", "import torch") if n in seconds)
    yield "`terrazzo --help`", f"{seconds['terrazzo --help']:.2f} s", beside, result["processor"]


def importing(result: dict[str, Any]) -> Iterator[Row]:
    """An import with all checks."""
    rates, (few, many) = result["pairs_per_s"], result["peak_mib"].items()
    what = f"Importing {result['pairs']:,} pairs of 480x360, every file checked to its last pixel"
    ours = f"{rates['terrazzo']:,.0f} pairs/s; {many[1]:.0f} MiB, {few[1]:.0f} for {few[0]}"
    beside = f"{rates['loop']:,.0f} pairs/s: a loop with Pillow ({rates['terrazzo'] / rates['loop']:.1f}x)"
    yield what, ours, beside, _threads(result["workers"], result["processor"])


def label_latency(result: dict[str, Any]) -> Iterator[Row]:
    """What the labelling page lets one wait."""
    height, width = result["size_hw"]
    words = {
        "preview": "preview",
        "pointer_to_pixel_p95": "brush, pointer to pixel (95 %)",
        "acknowledged_p95": "stroke saved (95 %)",
        "undo_p95": "undo (95 %)",
        "next_image": "next image",
    }
    ours = "; ".join(f"{result[name]:.0f} ms: {told}" for name, told in words.items())
    beside = "; ".join(f"{result['targets'][name]:.0f}" for name in words) + " ms, asked of four cores"
    what = f"Labelling a {width}x{height} image in Chromium"
    yield what, ours, beside, f"{result['cores']} cores of {result['processor']}, browser and server"


def superpixels(result: dict[str, Any]) -> Iterator[Row]:
    """Cells of a large image."""
    what = "Superpixels of a 12-megapixel image, seven nested levels"
    kept, squares = result["nested"][3], result["squares"][3]
    cells = f"{100 * kept:.1f} % of drawn pixels kept by {result['levels'][3]} cells"
    yield (
        what,
        f"{result['total']:.2f} s; {cells}",
        f"{100 * squares:.1f} %: as many squares",
        result["processor"],
    )


ROWS: dict[str, Callable[[dict[str, Any]], Iterator[Row]]] = {
    "quality": quality,
    "step": step,
    "step_gpu": step_gpu,
    "kernels_gpu": kernels_gpu,
    "pspnet": pspnet,
    "predict": predict,
    "predict_gpu": predict_gpu,
    "predict_folder": predict_folder,
    "serve": serve,
    "serve-soak": soak,
    "label_latency": label_latency,
    "superpixels": superpixels,
    "loader": loader,
    "metrics": metrics,
    "evaluate_memory": evaluate_memory,
    "checkpoint": checkpoint,
    "kills": kills,
    "import": importing,
    "import_time": import_time,
}


def block(folder: Path = RESULTS) -> tuple[str, list[str]]:
    """Return what stands between the marks, and the files that have no row."""
    newest = {path.stem.rpartition("_")[0]: path for path in sorted(folder.glob("*.md"))}
    rows: list[tuple[int, str]] = []
    left_out = []
    for path in newest.values():
        result = last_json(path.read_text(encoding="utf-8"))
        name = str(result.get("bench"))
        if name not in ROWS:
            left_out.append(path.name)
            continue
        for what, ours, beside, on in ROWS[name](result):
            link = f"[{what}](bench/results/{path.name})"
            rows.append((list(ROWS).index(name), f"| {link} | {ours} | {beside} | {on} |\n"))
    table = "".join(row for _, row in sorted(rows, key=lambda row: row[0]))
    return HEAD + table if table else NOTHING, left_out


def last_json(text: str) -> dict[str, Any]:
    """Return the last line of a text that is a JSON object; {} where there is none."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            value = json.loads(line)
            assert isinstance(value, dict)
            return value
    return {}


def _threads(count: int, machine: str) -> str:
    return f"{count} threads of {machine}"


def main() -> int:
    """Write or compare the table; return the exit code."""
    page = README.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"README.md has no {BEGIN.strip()} … {END}"
    table, left_out = block()
    if left_out:
        print(f"bench/results: no row in scripts/measured.py for {', '.join(left_out)}", file=sys.stderr)
    wanted = before + BEGIN + table + END + after
    if "--write" in sys.argv[1:]:
        README.write_text(wanted, encoding="utf-8", newline="\n")
    elif wanted != page:
        print(
            "README.md: the measured table is not what bench/results says; scripts/check --fix writes it",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
