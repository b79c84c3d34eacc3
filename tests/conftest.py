"""What every test lives in: no network, few threads, caches of its own, and the reasons some tests are skipped.

Environment variables are set when this file is imported, before torch, numba or the Hub's client read them; processes
that tests start inherit them.
"""

import atexit
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

PROJECT = Path(__file__).parent.parent
LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "", None)

# one thread a process when pytest-xdist runs several, two when there is one
THREADS = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, THREADS)

# the user's caches are neither read nor filled; the Hub is offline unless a test's own server on this machine plays it
_CACHES = tempfile.mkdtemp(prefix="terrazzo-tests-")
atexit.register(shutil.rmtree, _CACHES, ignore_errors=True)
os.environ["HF_HOME"] = _CACHES
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("HF_TOKEN", None)
os.environ["TERRAZZO_BACKEND"] = "torch"  # what backend="auto" means, but where a test is about that
if urlparse(os.environ.get("HF_ENDPOINT", "")).hostname not in ("localhost", "127.0.0.1", "::1"):
    os.environ["HF_HUB_OFFLINE"] = "1"
OURS = (
    "TERRAZZO_TRACEBACK",
    "TERRAZZO_MAX_PIXELS",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
)
for variable in list(os.environ):
    if variable in OURS or variable.startswith(("SLURM_", "OMPI_", "PMI_", "ACCELERATE_")):
        del os.environ[variable]


class NetworkBlockedError(RuntimeError):
    """A test reached for another machine."""


def _block_network(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a path is a Unix socket
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host
    if name not in LOOPBACK and not str(name).startswith("127.") and name != socket.gethostname():
        raise NetworkBlockedError(f"{event} to {name!r}: tests use no network")


sys.addaudithook(_block_network)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the full counts too (marked long)")


SLOW = ("test_processes.py", "browser", "test_tutorials.py", "test_training.py", "test_hub.py", "test_launcher.py",
        "test_exporting.py", "test_runtimes.py", "test_line.py", "test_kills.py")  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: not any(part in SLOW for part in item.path.parts)
    )  # or one process waits at the end
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="the full count: scripts/test --long"))
        if item.get_closest_marker("camvid") and camvid_folder() is None:
            item.add_marker(pytest.mark.skip(reason="no CamVid at ../shared/camvid or $TERRAZZO_CAMVID"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests counted: `record_property("counted", line)`."""
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.getreports(kind)]
    lines = [value for one in reports for name, value in one.user_properties if name == "counted"]
    if lines:
        terminalreporter.section("counted")
        terminalreporter.write_line("\n".join(lines))


def camvid_folder() -> Path | None:
    """Return the raw CamVid folder, or None where there is none."""
    folder = Path(os.environ.get("TERRAZZO_CAMVID", PROJECT.parent / "shared" / "camvid"))
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def camvid() -> Path:
    """The raw CamVid folder; the test is skipped where there is none."""
    folder = camvid_folder()
    if folder is None:
        pytest.skip("no CamVid at ../shared/camvid or $TERRAZZO_CAMVID")
    return folder


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def write_boxes(
    root: Path, *, train: int = 8, val: int = 3, size_hw: tuple[int, int] = (48, 64), seed: int = 0
) -> Path:
    """Write a data set learned in seconds: a red box on a green field under a blue sky; the last rows are ignored."""
    import json

    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    colors = np.array([[90, 120, 60], [200, 60, 60], [80, 80, 220], [0, 0, 0]], np.uint8)
    height, width = size_hw
    for split, count in (("train", train), ("val", val)):
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for number in range(count):
            mask = np.zeros(size_hw, np.uint8)
            top, left = rng.integers(6, height - 18), rng.integers(0, width - 16)
            mask[top : top + 16, left : left + 16] = 1
            mask[:6], mask[-2:] = 2, 255
            noise = rng.integers(0, 30, (*size_hw, 3)).astype(np.uint8)
            Image.fromarray(colors[np.where(mask == 255, 3, mask)] + noise).save(
                root / split / "images" / f"{number:03d}.png"
            )
            Image.fromarray(mask).save(root / split / "masks" / f"{number:03d}.png")
    names = [{"name": name} for name in ("field", "box", "sky")]
    (root / "dataset.json").write_text(json.dumps({"format_version": 1, "name": "boxes", "classes": names}))
    return root


@pytest.fixture(scope="session")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of 8 + 3 images, 48x64, three classes; not to be written to."""
    return write_boxes(tmp_path_factory.mktemp("data") / "boxes")


@pytest.fixture
def boxes_of_my_own(tmp_path: Path) -> Path:
    """The same, for a test that breaks it."""
    return write_boxes(tmp_path / "boxes")


@pytest.fixture(scope="session")
def tiny_model(boxes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: a SegFormer of a few thousand parameters that knows the boxes; not to be written to."""
    import numpy as np
    import torch

    from terrazzo.data import open_dataset
    from terrazzo.nn.segformer import SegFormer, Size
    from terrazzo.nn.weights import save_model

    torch.manual_seed(0)
    data = open_dataset(boxes)
    size = Size((1, 1, 1, 1), (8, 16, 24, 32), 16, num_heads=(1, 2, 3, 4))
    network = SegFormer(size, 3, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2), dropout=0.0, drop_path=0.0)
    samples = [data["train"][i] for i in range(8)]
    image = torch.from_numpy(np.stack([one.image for one in samples])).permute(0, 3, 1, 2) / 255
    mask = torch.from_numpy(np.stack([one.mask for one in samples if one.mask is not None])).long()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(40):
        logits = torch.nn.functional.interpolate(network(image).logits, mask.shape[1:], mode="bilinear")
        torch.nn.functional.cross_entropy(logits, mask, ignore_index=255).backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    about = {"licenses": {"weights": "CC0-1.0"}, "data": {"fingerprint": data.fingerprint}}
    save_model(
        folder, network.eval(), classes=data.classes, preprocessing={"resize": "original"}, terrazzo=about
    )
    return folder


@pytest.fixture(scope="session")
def tiny_graph(tiny_model: Path) -> Any:
    """The tiny model's network as an onnx.ModelProto, written once; not to be changed."""
    from terrazzo.graphs import onnx_graph
    from terrazzo.inference import load

    return onnx_graph(load(tiny_model, backend="torch").network, channels=3)
