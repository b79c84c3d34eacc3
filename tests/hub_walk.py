"""What test_hub.py has done in a process of its own, for the Hub's client reads its address once.

`python hub_walk.py FOLDER` does all walks, each in its folder there, and prints a line of JSON for each thing one says.
"""

import json
import os
import shutil
import sys
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

warnings.simplefilter(
    "ignore"
)  # of libraries; ours are errors in the tests that run in the tests' own process
ADDRESS = os.environ["HF_ENDPOINT"]
walk = ""  # which is going on


def ask(what: str, value: Any = None) -> Any:
    """Ask the server something that is not the Hub's."""
    request = urllib.request.Request(f"{ADDRESS}/_{what}", json.dumps(value or {}).encode(), method="POST")
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def order(path: str, **fault: Any) -> None:
    """Plan a fault, and forget all requests and faults before it."""
    ask("forget")
    ask("order", {"path": path, **fault})


def uploads() -> list[list[Any]]:
    """The uploads of large files since the last order: [path, status, bytes that came]."""
    return [[one["path"], one["status"], one["received"]] for one in ask("log") if one["method"] == "PUT"]


def say(name: str, value: Any) -> None:
    print(json.dumps([walk, name, value]), flush=True)


def told(act: Callable[[], Any]) -> Any:
    """What an act returns, or the error it ends with."""
    from terrazzo.errors import TerrazzoError

    try:
        return act()
    except TerrazzoError as error:
        return {"error": type(error).__name__, "says": str(error)}


def facts(source: Any, **words: Any) -> dict[str, Any]:
    """What must be the same of a data set here and on the Hub."""
    import terrazzo as tz

    data = tz.open_dataset(source, **words)
    first = data["train"][0]
    return {
        "fingerprint": data.fingerprint,
        "classes": data.classes.to_json(),
        "remap": data.remap.to_json(),
        "raw_names": dict(data.raw_names),
        "splits": {name: split.names for name, split in data.splits.items()},
        "has_masks": {name: split.has_masks for name, split in data.splits.items()},
        "about": [
            data.name,
            data.license,
            data.source,
            data.channels,
            data.dtype,
            list(data.mean),
            data.groups,
        ],
        "first": [first.name, first.image.tolist(), None if first.mask is None else first.mask.tolist()],
    }


def data(folder: Path) -> None:
    """Push three forms of data sets, open them again in every way, and push changed ones over them."""
    import datasets

    import terrazzo as tz
    from terrazzo import staging

    staging.SHARD_BYTES, staging.GROUP_BYTES = 40_000, 15_000
    for name in ("streets", "pool", "saved"):
        pushed = tz.push(folder / name, f"user/{name}", quiet=True)
        say(name, [pushed, facts(folder / name), facts(pushed)])
        say(f"{name} void", [facts(folder / name, keep_void=True), facts(pushed, keep_void=True)])
        say(f"{name} files", ask("files", ["datasets", f"user/{name}", "main"]))
    first = tz.push(folder / "streets", "user/streets", quiet=True)
    order("nothing")
    say("again", [first == tz.push(folder / "streets", "user/streets", quiet=True), uploads()])
    rows = datasets.load_dataset("user/streets")
    say("rows", {name: [one.num_rows, sorted(one.column_names)] for name, one in rows.items()})
    say("a row", [np.array(rows["train"][0]["image"]).shape, np.array(rows["train"][0]["label"]).tolist()])
    say("streamed", facts("user/streets", stream=True))
    say("pulled", [str(tz.pull("user/streets", folder / "back")), facts(folder / "back")])
    say(
        "pulled files",
        sorted(p.relative_to(folder).as_posix() for p in (folder / "back").rglob("*") if p.is_file()),
    )
    shutil.rmtree(folder / "streets" / "train" / "images" / "b")
    shutil.rmtree(folder / "streets" / "train" / "masks" / "b")
    fewer = tz.push(folder / "streets", "user/streets", quiet=True)
    say(
        "fewer", [facts(folder / "streets"), facts(fewer), ask("files", ["datasets", "user/streets", "main"])]
    )
    say("the state before", facts(first))
    say("snapshot", tz.push(folder / "pictured", "user/pictured", quiet=True))
    say("pictured", [facts(folder / "pictured"), facts("user/pictured")])
    say("private", tz.push(folder / "pool", "user/secret", private=True, revision="trial", quiet=True))
    say("secret", facts("user/secret@trial")["fingerprint"])
    os.environ["HF_TOKEN"] = "hf_token_of_other"
    say("others", told(lambda: tz.pull("user/secret", folder / "stolen")))


def model(folder: Path) -> None:
    """Push a run, open it in every way."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline

    import terrazzo as tz

    pushed = tz.push(folder / "run", "user/model", quiet=True)
    say("pushed", pushed)
    say("files", ask("files", ["models", "user/model", "main"]))
    order("GET /cdn/models", kind="cut", after=11_000_000, times=1)
    say("pulled", str(tz.pull("user/model", folder / "back", quiet=True)))
    say("in pieces", [one["range"] for one in ask("log") if one["path"].startswith("/cdn")])
    picture = Image.open(folder / "picture.png")
    here, there = (tz.load(one, device="cpu", backend="torch") for one in (folder / "run", pushed))
    say("masks", [here(picture).mask.tolist(), there(picture).mask.tolist()])
    theirs = AutoModelForSemanticSegmentation.from_pretrained("user/model").eval()
    inputs = AutoImageProcessor.from_pretrained("user/model")(picture, return_tensors="pt")
    with torch.inference_mode():
        logits = theirs(**inputs).logits[0]
    ours = torch.as_tensor(np.asarray(here.logits(picture)))
    say("distance", float((logits - ours).abs().max()))
    found = pipeline("image-segmentation", model="user/model", device="cpu")(picture)
    say("pipeline", {one["label"]: int((np.array(one["mask"]) > 0).sum()) for one in found})
    order("nothing")
    say("again", [pushed == tz.push(folder / "run", "user/model", quiet=True), uploads()])
    say("mask of the pulled", tz.load(folder / "back", device="cpu", backend="torch")(picture).mask.tolist())
    say("again from the pulled", tz.push(folder / "back", "user/model", quiet=True))
    tz.push(folder / "scenes", "user/hidden", private=True, quiet=True)
    run = tz.Run.open(folder / "run")
    about = run.best_folder() / "terrazzo.json"
    value = json.loads(about.read_text())
    value["data"]["hub"] = {"id": "user/hidden", "revision": "0" * 40}
    shutil.copytree(run.best_folder(), folder / "of-hidden")
    (folder / "of-hidden" / "terrazzo.json").write_text(json.dumps(value))
    shutil.copytree(folder / "run" / "pictures", folder / "of-hidden" / "pictures")
    for name, words in (("public", {}), ("private", {"private": True})):
        tz.push(folder / "of-hidden", f"user/of-hidden-{name}", quiet=True, **words)
        say(name, sorted(ask("files", ["models", f"user/of-hidden-{name}", "main"])))
    say("as data", told(lambda: tz.open_dataset("user/model")))
    say("as model", told(lambda: tz.pull("user/model", folder / "x", kind="dataset")))


def bad_days(folder: Path) -> None:
    """Push and pull while the Hub, the network or the person fails."""
    import huggingface_hub

    import terrazzo as tz
    from terrazzo import staging

    staging.SHARD_BYTES = 20_000

    def push(name: str = "user/bad", **words: Any) -> Any:
        return told(
            lambda: tz.push(folder / "pool", name, quiet=True, timeout=words.pop("timeout", 5), **words)
        )

    order("PUT /lfs", kind="drop", after=1000, times=1)
    say("dropped once", [push("user/dropped"), uploads()])
    order("PUT /lfs.*", kind="status", status=403, times=1)  # as a storage whose link has run out
    say("broken", [push(), uploads()])
    order("nothing")
    say("gone on", [push(), uploads()])
    order("POST .*/preupload", status=503, times=1)
    say("503 once", push("user/later"))
    for status, words in (
        (500, {}),
        (409, {"body": {"error": "busy"}}),
        (412, {"body": {"error": "moved on"}}),
    ):
        order("POST .*/commit/", status=status, times=9, **words)
        say(str(status), push(f"user/day-{status}", keep_metadata=True))
    order("POST .*/preupload", status=429, times=9, headers={"Retry-After": "300"})
    say("429", push())
    order("GET /api/whoami", kind="silence", times=9)
    say("silent", push(timeout=0.3))
    order("PUT /lfs", kind="silence", times=9)
    say("silent in an upload", push("user/silent", timeout=0.3))
    ask("forget")
    say("name", push("user/a/b"))
    say("another's", push("other/bad"))
    say("public", push("user/dropped", private=True))
    say("nothing there", told(lambda: tz.pull("user/nothing", folder / "x")))
    say("no revision", told(lambda: tz.pull("user/dropped@v9", folder / "x")))
    say("a weights file", told(lambda: tz.push(folder / "weights.pth", "user/x")))
    say("nothing here", told(lambda: tz.push(folder / "poll", "user/x")))
    os.environ["HF_TOKEN"] = "hf_wrong"
    say("wrong token", push())
    os.environ["HF_TOKEN"] = "hf_token_that_reads"
    say("token that reads", push())
    del os.environ["HF_TOKEN"]
    say("no token", push())
    huggingface_hub.constants.ENDPOINT = "http://127.0.0.1:9"  # nobody answers there
    os.environ["HF_TOKEN"] = "hf_token_of_user"
    say("no network", push(timeout=0.3))
    say("left", sorted(path.name for path in folder.iterdir()))


if __name__ == "__main__":
    for act in (data, model, bad_days):  # the last one leaves the address changed
        walk, os.environ["HF_TOKEN"] = act.__name__, "hf_token_of_user"
        act(Path(sys.argv[1]) / walk)
