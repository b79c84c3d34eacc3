"""The server beside a plain one: FastAPI and transformers' pipeline in a process of its own.

    python bench/serve.py [--clients 16] [--seconds 12] [--precision f32|bf16] [--form both|def|async] [--threads 2]
    python bench/serve.py --soak 60 [--precision f32]      twice the capacity, for so many seconds

SegFormer-B0, 19 classes, the same random weights on both sides; four drawn street scenes of 1920x1080 as JPEG in, class
maps as PNG out. All clients are threads of one process on the same machine, without pause, so what they cost counts on
both sides. The peer is measured in both forms it can be written in, and the faster one counts; then the two sides take
turns. Class maps are compared: random weights make many near ties, and the processors of both resize differently by a
grey level, so their agreement says that the work is the same, not how exact it is (bench/predict.py says that).

--soak measures the capacity first, then sends twice as many requests a second, on time whether or not answers have
come; everything but 200 and 429 counts as a failure, and so does memory that grows.

The last line is JSON. Exit code 1 where a target is missed.
"""

import argparse
import http.client
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from PIL import Image

import terrazzo
from terrazzo import environment

BENCH = Path(__file__).parent
TARGETS = {"f32": 6.0, "bf16": 8.0}
CLASSES = 19
SIZE_HW = (1080, 1920)
IMAGES = 4
GROWTH_MIB = 60  # of the server's memory over a soak


@dataclass
class Asked:
    """What clients saw."""

    seconds: float
    statuses: dict[str, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.statuses.get("200", 0) / self.seconds

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.latencies, percent)) if self.latencies else float("nan")


def main() -> int:
    args = arguments()
    if args.ask:
        print(json.dumps(asdict(ask(args.ask, Path(args.images), args))))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        model, images = Path(scratch, "b0"), Path(scratch, "images")
        write_model(model)
        write_images(images)
        return soak(args, model, images) if args.soak else compare(args, model, images)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=12, help="of each turn")
    parser.add_argument("--turns", type=int, default=2, help="of each side")
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument(
        "--peer-precision", default="f32", choices=["f32", "bf16"], help="f32: as its users run it"
    )
    parser.add_argument("--form", default="both", choices=["both", "def", "async"], help="of the peer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--soak", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--ask", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--images", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(args: argparse.Namespace, model: Path, images: Path) -> int:
    ours: list[Asked] = []
    theirs: list[Asked] = []
    forms: dict[str, float] = {}
    for form in ("def", "async") if args.form == "both" else ():
        with running(peer(args, model, form), args) as port:
            forms[form] = clients(
                f"http://127.0.0.1:{port}/predict", images, args, seconds=args.seconds / 2
            ).rate
    form = max(forms, key=lambda name: forms[name]) if forms else args.form
    with (
        running(peer(args, model, form), args) as their_port,
        running(terrazzo_server(args, model), args) as port,
    ):
        our_url, their_url = (
            f"http://127.0.0.1:{port}/models/b0?as=map",
            f"http://127.0.0.1:{their_port}/predict",
        )
        agreement, backend = agree(our_url, their_url, images), backend_of(port)
        for _ in range(args.turns):
            ours.append(clients(our_url, images, args, seconds=args.seconds))
            theirs.append(clients(their_url, images, args, seconds=args.seconds))
    rate, their_rate = (statistics.fmean(one.rate for one in side) for side in (ours, theirs))
    both = [Asked(1, {}, [x for one in side for x in one.latencies]) for side in (ours, theirs)]
    failed = sum(n for one in (*ours, *theirs) for status, n in one.statuses.items() if status != "200")
    ratio, target = rate / their_rate, TARGETS[args.precision]
    result = {
        "bench": "serve",
        "precision": args.precision,
        "peer_precision": args.peer_precision,
        "clients": args.clients,
        "size_hw": SIZE_HW,
        "classes": CLASSES,
        "threads": args.threads,
        "processor": environment.describe()["processor"]["model"],
        "terrazzo": terrazzo.__version__,
        "backend": backend,
        "peer_form": form,
        "peer_forms_per_second": {name: round(value, 3) for name, value in forms.items()},
        "terrazzo_per_second": round(rate, 2),
        "peer_per_second": round(their_rate, 3),
        "turns_per_second": [[round(one.rate, 2) for one in side] for side in (ours, theirs)],
        "terrazzo_seconds": {f"p{p}": round(both[0].percentile(p), 3) for p in (50, 99)},
        "peer_seconds": {f"p{p}": round(both[1].percentile(p), 3) for p in (50, 99)},
        "equal_pixels": round(agreement, 5),
        "other_than_200": failed,
        "ratio": round(ratio, 2),
        "target": target,
    }
    print(f"{result['processor']}, {args.threads} threads, {args.clients} clients on the same machine")
    print(f"JPEG {SIZE_HW[1]}x{SIZE_HW[0]} -> class map PNG, SegFormer-B0, {CLASSES} classes; {backend}")
    for name, side, value in (("terrazzo", both[0], rate), (f"pipeline ({form})", both[1], their_rate)):
        print(
            f"  {name:17} {value:7.2f} images/s   p50 {side.percentile(50):.2f} s   p99 {side.percentile(99):.2f} s"
        )
    print(
        f"  ratio {ratio:.2f}, target {target}; equal pixels {agreement:.2%}; other answers than 200: {failed}"
    )
    print(json.dumps(result))
    return int(ratio < target or failed > 0)


def soak(args: argparse.Namespace, model: Path, images: Path) -> int:
    kept: list[subprocess.Popen[bytes]] = []
    with running(terrazzo_server(args, model), args, keep=kept) as port:
        url = f"http://127.0.0.1:{port}/models/b0?as=map"
        capacity = clients(url, images, args, seconds=8).rate
        clients(url, images, args, seconds=5, rate=2 * capacity)
        resident: list[int] = []
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(1):
                resident.append(resident_mib(kept[0].pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        seen = clients(url, images, args, seconds=args.soak, rate=2 * capacity)
        stop.set()
        watcher.join()
    tenth = max(1, len(resident) // 10)
    growth = statistics.fmean(resident[-tenth:]) - statistics.fmean(resident[:tenth])
    others = {status: n for status, n in seen.statuses.items() if status not in ("200", "429")}
    result = {
        "bench": "serve-soak",
        "precision": args.precision,
        "seconds": args.soak,
        "threads": args.threads,
        "processor": environment.describe()["processor"]["model"],
        "terrazzo": terrazzo.__version__,
        "capacity_per_second": round(capacity, 2),
        "asked_per_second": round(sum(seen.statuses.values()) / seen.seconds, 2),
        "answered_per_second": round(seen.rate, 2),
        "statuses": seen.statuses,
        "answered_seconds": {f"p{p}": round(seen.percentile(p), 3) for p in (50, 99, 100)},
        "memory_mib": [round(min(resident)), round(max(resident))],
        "memory_growth_mib": round(growth, 1),
    }
    print(
        f"{result['processor']}, {args.threads} threads: twice the capacity of {capacity:.1f} images/s, {args.soak:g} s"
    )
    print(
        f"  answers {seen.statuses}; those of 200 within p50 {seen.percentile(50):.2f}, p99 {seen.percentile(99):.2f} s"
    )
    print(f"  memory {min(resident)} to {max(resident)} MiB; last tenth less first tenth {growth:+.1f} MiB")
    print(json.dumps(result))
    return int(bool(others) or growth > GROWTH_MIB)


# -- both sides --------------------------------------------------------------------------------------------------------


def write_model(folder: Path) -> None:
    """SegFormer-B0 with random weights and its processor, as transformers stores them."""
    import torch
    import transformers

    torch.manual_seed(0)
    names = {number: f"class {number}" for number in range(CLASSES)}
    config = transformers.SegformerConfig(
        id2label=names, label2id={name: number for number, name in names.items()}
    )
    network = transformers.SegformerForSemanticSegmentation(config)
    torch.nn.init.normal_(network.decode_head.classifier.weight, std=0.5)  # classes that differ
    network.save_pretrained(folder)
    transformers.SegformerImageProcessor(size={"height": 512, "width": 512}).save_pretrained(folder)


def write_images(folder: Path) -> None:
    from terrazzo.data.scenes import scene

    folder.mkdir()
    for number in range(IMAGES):
        Image.fromarray(scene(number, size_hw=SIZE_HW).image).save(folder / f"{number}.jpg", quality=90)


def terrazzo_server(args: argparse.Namespace, model: Path) -> list[str]:
    command = [sys.executable, "-m", "terrazzo", "serve", str(model), "--precision", args.precision]
    return [*command, "--queue", str(2 * args.clients)]


def peer(args: argparse.Namespace, model: Path, form: str) -> list[str]:
    command = [
        sys.executable,
        str(BENCH / "peers" / "pipeline_server.py"),
        str(model),
        "--precision",
        args.peer_precision,
    ]
    return command + (["--async"] if form == "async" else [])


@contextmanager
def running(
    command: list[str], args: argparse.Namespace, keep: list[subprocess.Popen[bytes]] | None = None
) -> Iterator[int]:
    """Run a server on a free port until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environ = os.environ | dict.fromkeys(variables, str(args.threads)) | {"HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([*command, "--port", str(port)], env=environ, stdout=subprocess.DEVNULL)
    if keep is not None:
        keep.append(process)
    try:
        for _ in range(1200):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
                    probe.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    if b" 200 " in probe.recv(100):
                        break
            except OSError:
                pass
            if process.poll() is not None:
                raise SystemExit(f"{command} ended with {process.returncode}")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def agree(our_url: str, their_url: str, images: Path) -> float:
    """Share of pixels of equal class over all images; each side has then seen every image once."""
    equal = []
    for path in sorted(images.iterdir()):
        ours, theirs = (
            np.asarray(Image.open(io.BytesIO(post(connect(url), url, path.read_bytes())[1])))
            for url in (our_url, their_url)
        )
        equal.append((ours == theirs).mean())
    return float(np.mean(equal))


def backend_of(port: int) -> str:
    """What runs our network, as the server tells."""
    with urlopen(f"http://127.0.0.1:{port}/models") as answer:
        return str(json.load(answer)[0]["backend"])


def resident_mib(pid: int) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) >> 10


# -- clients, in a process of their own --------------------------------------------------------------------------------


def clients(url: str, images: Path, args: argparse.Namespace, *, seconds: float, rate: float = 0) -> Asked:
    words = ["--ask", url, "--images", str(images), "--seconds", str(seconds), "--rate", str(rate)]
    words += ["--clients", str(args.clients if rate == 0 else 4 * args.clients)]
    done = subprocess.run([sys.executable, __file__, *words], check=True, capture_output=True, text=True)
    return Asked(**json.loads(done.stdout.splitlines()[-1]))


def ask(url: str, images: Path, args: argparse.Namespace) -> Asked:
    """Ask from many threads: without pause, or `rate` times a second all together."""
    bodies = [path.read_bytes() for path in sorted(images.iterdir())]
    statuses: Counter[str] = Counter()
    latencies: list[float] = []
    begun = time.monotonic()
    end = begun + args.seconds
    ticks = iter(range(1 << 60))
    lock = threading.Lock()

    def client(number: int) -> None:
        connection = connect(url)
        while True:
            with lock:
                tick = next(ticks)
            if args.rate:
                time.sleep(max(0.0, begun + tick / args.rate - time.monotonic()))
            asked = time.monotonic()
            if asked >= end:
                return
            try:
                status, _ = post(connection, url, bodies[tick % len(bodies)])
            except OSError as error:
                connection, status = connect(url), type(error).__name__  # type: ignore[assignment]
            with lock:
                statuses[str(status)] += 1
                if status == 200:
                    latencies.append(time.monotonic() - asked)

    with ThreadPoolExecutor(args.clients) as pool:
        list(pool.map(client, range(args.clients)))
    return Asked(time.monotonic() - begun, dict(statuses), latencies)


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(url.split("/")[2], timeout=300)


def post(connection: http.client.HTTPConnection, url: str, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", "/" + url.split("/", 3)[3], body, {"Content-Type": "image/jpeg"})
    response = connection.getresponse()
    return response.status, response.read()


if __name__ == "__main__":
    sys.exit(main())
