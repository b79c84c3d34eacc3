"""A data set comes from a Hub (a small one on this machine) with its names, licence and commit, and stays for later.

The Hub's client reads its address once, so opening runs in a process of its own.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

MAIN, V1 = "0123456789abcdef0123456789abcdef01234567", "1" * 40
RNG = np.random.default_rng(4)
IMAGES = [RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8) for _ in range(5)]
MASKS = [RNG.integers(0, 3, (4, 6), dtype=np.uint8) for _ in range(5)]
OPEN = """
import json, sys, warnings
from terrazzo.data import open_dataset
from terrazzo.errors import TerrazzoError
for source in sys.argv[1:]:
    try:
        data = open_dataset(source)
    except TerrazzoError as error:
        print(json.dumps({"error": type(error).__name__, "says": str(error)}))
        continue
    print(json.dumps({
        "location": data.location, "license": data.license, "source": data.source, "names": data.classes.names,
        "splits": {name: split.names for name, split in data.splits.items()},
        "image": data["train"][0].image.tolist(), "mask": data["train"][0].mask.tolist(),
        "where": data["train"].where(0),
    }))
"""


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def publish(folder: Path, *, names: bool = True, script: bool = False) -> None:
    """Write parquet as `datasets` pushes it, by pyarrow alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True)
    cells = {
        "pixel_values": [{"bytes": png(one), "path": f"frame{i}.png"} for i, one in enumerate(IMAGES)],
        "label": [{"bytes": png(one), "path": None} for one in MASKS],
    }
    kinds = {name: {"_type": "Image"} for name in cells}
    about = {b"huggingface": json.dumps({"info": {"features": kinds}}).encode()}
    pq.write_table(
        pa.table(cells).replace_schema_metadata(about), folder / "data" / "train-00000-of-00001.parquet"
    )
    if names:
        (folder / "id2label.json").write_text(
            json.dumps({"0": "unlabeled", "1": "flat-road", "2": "human-person"})
        )
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    if script:
        (folder / f"{folder.name}.py").write_text("raise SystemExit('ran')")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which the Hub is the one on this machine; a home of its own."""
    root = tmp_path_factory.mktemp("hub")
    publish(root / "segments" / "sidewalk")
    publish(root / "segments" / "nameless", names=False)
    publish(root / "someone" / "scene_parse_150", script=True)
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1] / "hub_server.py"), str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    yield {**environment, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path_factory.mktemp("home"))}
    server.kill()
    server.wait()
    server.stdout.close()


def opened(environment: dict[str, str], *sources: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", OPEN, *sources],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_data_set_comes_from_the_hub_and_stays_for_later(hub: dict[str, str]) -> None:
    here, tagged, nameless, script, wrong, nobody = opened(
        hub,
        "segments/sidewalk",
        "segments/sidewalk@v1",
        "segments/nameless",
        "someone/scene_parse_150",
        "segments/sidewalk@v9",
        "segments/nowhere",
    )
    assert here["location"] == f"segments/sidewalk@{MAIN}"
    assert tagged["location"] == f"segments/sidewalk@{V1}"
    assert here["license"] == "cc-by-nc-4.0"
    assert here["source"] == "https://huggingface.co/datasets/segments/sidewalk"
    assert here["names"] == ["flat-road", "human-person"]
    assert sorted(here["splits"]["train"] + here["splits"]["val"]) == [f"frame{i}" for i in range(5)]
    row = int(here["splits"]["train"][0][-1])
    assert here["image"] == IMAGES[row].tolist()
    assert here["mask"] == np.array([255, 0, 1])[MASKS[row]].tolist()
    assert here["where"] == f"segments/sidewalk [train], row {row} (frame{row}), column 'pixel_values'"

    assert "segments/nameless does not say what its ids mean: it holds no id2label.json." in nameless["says"]
    assert "found: 3 ids in 5 of 5 masks: 0, 1, 2" in nameless["says"]
    assert 'load_dataset("segments/nameless").save_to_disk(FOLDER)' in nameless["says"]
    assert script["error"] == "DatasetFormatError"
    assert "terrazzo import ade20k PATH --out data/ade20k" in script["says"]
    assert wrong["error"] == nobody["error"] == "MissingPathError"
    assert "and on the Hub:" in wrong["says"]
    assert "and on the Hub:" in nobody["says"]

    gone = {**hub, "HF_ENDPOINT": "http://127.0.0.1:9"}  # nobody answers there
    again, other, never = opened(gone, "segments/sidewalk@v1", "segments/sidewalk", "segments/elsewhere")
    assert again == tagged | {"license": None}
    assert (
        f"cannot be reached, and only commit {V1} is kept here" in other["says"]
    )  # never another one in silence
    assert "the Hugging Face Hub cannot be reached" in never["says"]
