"""Models and data sets go to a Hub (a small one on this machine) and come back the same; bad days are told in words.

The clients are the unmodified huggingface_hub, datasets and transformers, in processes of their own (hub_walk.py). What
the Hub holds is read here by plain HTTP and pyarrow.
"""

import io
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from terrazzo.cli import share
from terrazzo.data.doctor import check
from terrazzo.data.scenes import write_scenes

HERE = Path(__file__).parent
RNG = np.random.default_rng(11)
TOKEN = "hf_token_of_user"
PLACE = b"52.3702 N 4.8952 E"
Walk = dict[str, Any]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    empty = str(tmp_path_factory.mktemp("empty-hub"))
    server = subprocess.Popen(
        [sys.executable, str(HERE / "hub_server.py"), empty], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    yield server.stdout.readline().strip()
    server.kill()
    server.wait()
    server.stdout.close()


@pytest.fixture(scope="module")
def walks(address: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Walk], Path]:
    """What the walks of hub_walk.py said, by name, and the folder of their folders; the token is in none of it."""
    folder = tmp_path_factory.mktemp("hub")
    for write, name in ((write_streets, "streets"), (write_pool, "pool"), (write_saved, "saved")):
        write(folder / "data" / name)
    write_pictured(folder / "data" / "pictured")
    write_run(folder / "model")
    write_pool(folder / "bad_days" / "pool")
    (folder / "bad_days" / "weights.pth").touch()
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(folder / "home"), "HF_TOKEN": TOKEN}
    environment |= {"HF_HUB_DISABLE_XET": "1"}  # which is a protocol of its own
    done = subprocess.run(
        [sys.executable, str(HERE / "hub_walk.py"), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,  # a machine that measures stops its others for minutes
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stderr + done.stdout
    said: dict[str, Walk] = {}
    for line in done.stdout.splitlines():
        walk, name, value = json.loads(line)
        said.setdefault(walk, {})[name] = value
    return said, folder


def stored(address: str, repo: str, *, kind: str = "", revision: str = "main") -> dict[str, bytes]:
    """What lies in a repository, by path; kind: "datasets/" or ""."""
    api = f"{address}/api/{kind or 'models/'}{repo}"
    files = json.loads(fetch(f"{api}/tree/{revision}?recursive=true"))
    names = [one["path"] for one in files if one["type"] == "file"]
    return {name: fetch(f"{address}/{kind}{repo}/resolve/{revision}/{name}") for name in names}


def fetch(url: str, token: str | None = TOKEN) -> bytes:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        content: bytes = answer.read()
        return content


# data sets --------------------------------------------------------------------------------------------------


def photograph(path: Path, *, orientation: int | None = None) -> None:
    """A photograph that says where it was taken."""
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
        exif.get_ifd(0x8825)[29] = PLACE.decode()
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8))
    picture.save(path, exif=exif) if orientation is not None else picture.save(path)


def mask(path: Path, top: int, size_hw: tuple[int, int] = (24, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, top, size_hw, dtype=np.uint8)).save(path)


def write_streets(root: Path) -> None:
    """Ids through a table, equal stems in sub-folders, a test split without masks, a path of this machine."""
    for name in ("a/one", "b/one", "b/two words"):
        photograph(root / "train" / "images" / f"{name}.jpg")
        mask(root / "train" / "masks" / f"{name}.png", 3)
    photograph(root / "val" / "images" / "three.png")
    mask(root / "val" / "masks" / "three.png", 3)
    photograph(root / "test" / "images" / "four.jpg")
    about = {
        "name": "Streets",
        "license": "CC-BY-4.0",
        "source": "https://example.org/streets",
        "classes": [{"name": "road", "color": [1, 2, 3]}, {"name": "car", "color": [4, 5, 6]}],
        "remap": {"0": None, "1": 1, "2": 0},
        "raw_names": {"0": "nobody knows"},
        "groups": "^(.)/",
        "extra": {"from": str(root), "camera": "left"},
    }
    (root / "dataset.json").write_text(json.dumps(about))


def write_pool(root: Path) -> None:
    """No split, names with void among them in a list."""
    for number in range(6):
        photograph(root / "images" / f"{number}.png")
        mask(root / "masks" / f"{number}.png", 3)
    (root / "classes.txt").write_text("unlabeled\nroad\ncar\n")


def write_saved(root: Path) -> None:
    """A table that `datasets` saved, under other names of columns, plain arrays as masks' bytes."""
    import datasets

    rows = []
    for number in range(5):
        photograph(root.parent / "for-saved" / f"frame {number}.png")
        mask(root.parent / "for-saved" / "masks" / f"{number}.png", 3)
        rows.append(number)
    there = root.parent / "for-saved"
    table = datasets.Dataset.from_dict(
        {
            "pixel_values": [str(there / f"frame {number}.png") for number in rows],
            "annotation": [str(there / "masks" / f"{number}.png") for number in rows],
        }
    )
    for column in table.column_names:
        table = table.cast_column(column, datasets.Image())
    table.save_to_disk(str(root))
    (root / "id2label.json").write_text(json.dumps({"0": "unlabeled", "1": "road", "2": "car"}))


def write_pictured(root: Path) -> None:
    """Photographs that say where they were taken, lying on their side."""
    for split in ("train", "val"):
        photograph(root / split / "images" / "turned.jpg", orientation=6)
        mask(root / split / "masks" / "turned.png", 2, (40, 24))
    (root / "classes.txt").write_text("road\ncar\n")


@pytest.fixture
def data(walks: tuple[dict[str, Walk], Path]) -> tuple[Walk, Path]:
    return walks[0]["data"], walks[1] / "data"


@pytest.mark.parametrize("name", ["streets", "pool", "saved"])
def test_a_data_set_opens_from_the_hub_as_the_very_one_that_was_pushed(
    data: tuple[Walk, Path], name: str
) -> None:
    walk, _ = data
    pushed, here, there = walk[name]
    assert pushed.startswith(f"user/{name}@")
    # the page on the Hub is the source of what states none
    here["about"][2] = here["about"][2] or f"https://huggingface.co/datasets/user/{name}"
    assert there == here
    assert walk[f"{name} void"][1]["classes"] == walk[f"{name} void"][0]["classes"]
    assert walk[f"{name} void"][1]["remap"] == walk[f"{name} void"][0]["remap"]


def test_plain_datasets_open_it_with_raw_ids_in_columns_image_and_label(
    data: tuple[Walk, Path], address: str
) -> None:
    walk, _ = data
    assert walk["rows"] == {
        "train": [3, ["image", "label"]],
        "val": [1, ["image", "label"]],
        "test": [1, ["image", "label"]],
    }
    shape, label = walk["a row"]
    assert shape == [24, 40, 3]
    assert np.array(label).max() == 2  # raw: 2 is the road
    names = json.loads(fetch(f"{address}/datasets/user/streets/resolve/main/id2label.json"))
    assert names == {"0": "nobody knows", "1": "car", "2": "road"}
    assert walk["streamed"]["classes"] == walk["streets"][1]["classes"]
    assert walk["streamed"]["has_masks"] == {"train": True, "val": True, "test": False}
    assert walk["streamed"]["remap"] == walk["streets"][1]["remap"]


def test_nothing_of_this_machine_and_no_place_is_in_what_the_hub_holds(
    data: tuple[Walk, Path], address: str
) -> None:
    _, folder = data
    for name in ("streets", "pool", "saved", "pictured"):
        for path, content in stored(address, f"user/{name}", kind="datasets/").items():
            assert str(folder).encode() not in content, (name, path)
            assert PLACE not in content, (name, path)
    about = json.loads(fetch(f"{address}/datasets/user/streets/resolve/main/dataset.json"))
    assert about["extra"] == {"camera": "left"}


def test_photographs_lose_their_place_and_stay_upright(data: tuple[Walk, Path], address: str) -> None:
    walk, folder = data
    here, there = walk["pictured"]
    original = (folder / "pictured" / "train" / "images" / "turned.jpg").read_bytes()
    assert PLACE in original
    assert there["first"] == here["first"]  # 40 x 24, turned
    assert np.array(there["first"][1]).shape == (40, 24, 3)
    assert there["fingerprint"] != here["fingerprint"]  # other bytes, and it says so
    found = stored(address, "user/pictured", kind="datasets/")
    import pyarrow.parquet as pq

    row = pq.read_table(io.BytesIO(found["data/train-00000-of-00001.parquet"])).to_pylist()[0]["image"]
    assert row["path"] == "turned.jpg"
    scan = original[original.index(b"\xff\xda") :]
    assert row["bytes"].endswith(scan)  # the compressed pixels themselves
    assert Image.open(io.BytesIO(row["bytes"])).getexif()[0x0112] == 6


def test_what_is_there_is_not_sent_again_and_what_is_gone_goes(data: tuple[Walk, Path]) -> None:
    walk, _ = data
    assert walk["again"] == [True, []]
    here, there, files = walk["fewer"]
    assert there == here
    shards = [path for path in files if path.endswith(".parquet")]
    before = [path for path in walk["streets files"] if path.endswith(".parquet")]
    assert len([path for path in before if "train" in path]) == 1
    assert sorted(shards) == [
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "data/val-00000-of-00001.parquet",
    ]
    assert walk["the state before"] == walk["streets"][2]  # at its commit


def test_a_data_set_that_was_pulled_is_the_same_again(data: tuple[Walk, Path]) -> None:
    walk, folder = data
    path, back = walk["pulled"]
    assert path == str(folder / "back")
    assert back == walk["streets"][1]
    assert "back/README.md" in walk["pulled files"]
    assert not [one for one in walk["pulled files"] if ".cache" in one]
    assert "train 3 images, val 1 image, test 1 image" in check(folder / "back", workers=1).text()


def test_what_is_private_is_seen_by_its_owner_alone(data: tuple[Walk, Path], address: str) -> None:
    walk, folder = data
    assert walk["secret"] == walk["pool"][1]["fingerprint"]
    assert walk["others"]["error"] == "MissingPathError"
    assert "There is no user/secret on the Hub, or you may not see it." in walk["others"]["says"]
    assert not (folder / "stolen").exists()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        fetch(f"{address}/datasets/user/secret/resolve/trial/README.md", token=None)


# models -----------------------------------------------------------------------------------------------------


def write_run(folder: Path) -> None:
    """A training of one step, and an image."""
    import terrazzo as tz

    scenes = write_scenes(folder / "scenes", train=2, val=2, size_hw=(32, 64))
    overrides = [
        "train.steps=1",
        "train.batch_size=2",
        "data.crop_hw=32x64",
        "data.workers=0",
        "train.pictures=1",
    ]
    tz.train(
        "segformer-b0-scratch", data=scenes, out=folder / "run", overrides=overrides, quiet=True, device="cpu"
    )
    Image.open(sorted((scenes / "val" / "images").iterdir())[0]).save(folder / "picture.png")


@pytest.fixture
def model(walks: tuple[dict[str, Walk], Path]) -> tuple[Walk, Path]:
    return walks[0]["model"], walks[1] / "model"


def test_a_model_predicts_the_same_from_the_hub_and_in_transformers(model: tuple[Walk, Path]) -> None:
    walk, _ = model
    here, there = walk["masks"]
    assert there == here == walk["mask of the pulled"]
    assert walk["distance"] < 1e-4
    seen = np.unique(here)
    assert len(walk["pipeline"]) == len(seen)
    assert sum(walk["pipeline"].values()) == np.array(here).size


def test_a_model_goes_without_state_logs_and_paths(model: tuple[Walk, Path], address: str) -> None:
    _, folder = model
    found = stored(address, "user/model")
    assert not {"optimizer.safetensors", "state.json", "env.json", "metrics.jsonl"} & found.keys()
    assert {
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
        "terrazzo.json",
        "README.md",
    } <= found.keys()
    assert not [path for path, content in found.items() if str(folder).encode() in content]
    best = folder / "run" / "checkpoints" / "step-00000001" / "model.safetensors"
    assert found["model.safetensors"] == best.read_bytes()
    card = found["README.md"].decode()
    assert "library_name: terrazzo" in card or "library_name: transformers" in card
    assert "user/model" in card


def test_a_download_that_breaks_goes_on_where_it_broke(model: tuple[Walk, Path]) -> None:
    walk, folder = model
    assert walk["in pieces"][:2] == [None, f"bytes={10 << 20}-"]  # the client writes down 10 MiB at a time
    best = folder / "run" / "checkpoints" / "step-00000001" / "model.safetensors"
    assert (folder / "back" / "model.safetensors").read_bytes() == best.read_bytes()


def test_a_public_model_shows_no_images_of_a_private_data_set(model: tuple[Walk, Path]) -> None:
    walk, _ = model
    assert [one for one in walk["private"] if one.startswith("pictures/")]
    assert not [one for one in walk["public"] if one.startswith("pictures/")]


def test_a_model_is_not_sent_twice_and_is_no_data_set(model: tuple[Walk, Path]) -> None:
    walk, _ = model
    assert walk["again"] == [True, []]
    assert walk["again from the pulled"].startswith("user/model@")
    assert walk["as data"]["error"] == "UsageError"
    assert "user/model on the Hub is a model, not a data set." in walk["as data"]["says"]
    assert "user/model on the Hub is a model, not a data set." in walk["as model"]["says"]


# bad days ---------------------------------------------------------------------------------------------------


@pytest.fixture
def bad_days(walks: tuple[dict[str, Walk], Path]) -> Walk:
    return walks[0]["bad_days"]


def test_an_upload_that_breaks_is_tried_again_and_gone_on_with(bad_days: Walk) -> None:
    pushed, uploads = bad_days["dropped once"]
    assert pushed.startswith("user/dropped@")
    assert (uploads[0][1], uploads[0][2]) == (0, 1000)  # hung up, without an answer
    assert uploads[1][0] == uploads[0][0]
    assert uploads[1][1] == 200
    assert bad_days["503 once"].startswith("user/later@")
    broken, tried = bad_days["broken"]
    assert broken["error"] == "UsageError"
    assert [status for _, status, _ in tried] == [403]
    pushed, uploads = bad_days["gone on"]
    assert pushed.startswith("user/bad@")
    assert len({path for path, _, _ in uploads}) == len(uploads)


@pytest.mark.parametrize(
    ("day", "kind", "sentences"),
    [
        ("500", "UnreachableError", ["The Hub has troubles of its own.", "500 Internal Server Error"]),
        (
            "409",
            "TerrazzoError",
            ["Something else is being done to user/day-409 on the Hub right now.", "busy"],
        ),
        ("412", "TerrazzoError", ["user/day-412 was changed on the Hub by somebody else in the meantime."]),
        ("429", "UnreachableError", ["asks to wait for 300 seconds", "sleep 300 && terrazzo push"]),
        ("silent", "UnreachableError", ["The Hub did not answer for 0.3 seconds."]),
        (
            "silent in an upload",
            "UnreachableError",
            ["The Hub did not answer for 0.3 seconds.", "PUT 127.0.0.1/lfs/"],
        ),
        ("name", "UsageError", ["'user/a/b' is no name on the Hub."]),
        ("another's", "UsageError", ["may not write to other/bad", 'under the namespace "other"']),
        ("public", "UsageError", ["user/dropped is there already, and it is public.", "Nothing was sent."]),
        (
            "nothing there",
            "MissingPathError",
            ["There is no user/nothing on the Hub, or you may not see it."],
        ),
        ("no revision", "MissingPathError", ["user/dropped has no such revision."]),
        ("a weights file", "UsageError", ["is a file of weights", "terrazzo convert"]),
        ("nothing here", "MissingPathError", ["There is nothing at", "Did you mean", "pool?"]),
        ("wrong token", "UsageError", ["does not know the token in the environment variable HF_TOKEN"]),
        ("token that reads", "UsageError", ["may not write to user/bad"]),
        ("no token", "UsageError", ["Nobody is logged in to the Hub on this machine.", "hf auth login"]),
        ("no network", "UnreachableError", ["The Hub at http://127.0.0.1:9 cannot be reached."]),
    ],
)
def test_a_bad_day_is_told_with_what_to_type_next(
    bad_days: Walk, day: str, kind: str, sentences: list[str]
) -> None:
    assert bad_days[day]["error"] == kind
    for sentence in sentences:
        assert sentence in bad_days[day]["says"]


def test_the_command_that_is_named_asks_for_the_same(bad_days: Walk) -> None:
    assert "terrazzo push" in bad_days["500"]["says"]
    assert "/pool user/day-500 --keep-metadata" in bad_days["500"]["says"]


def test_nothing_is_left_behind(bad_days: Walk) -> None:
    assert bad_days["left"] == ["pool", "weights.pth"]


def test_the_command_line_waits_as_long_as_the_library() -> None:
    from terrazzo.hub_client import TIMEOUT

    assert share.TIMEOUT == TIMEOUT
