"""Routes of the loop over a real socket: a model attached, its predictions, queues, disagreements, scores, training."""

import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import terrazzo as tz
from labelserved import Client, label_served
from prelabelled import HW, write_model, write_scene_project
from terrazzo.labelling import training
from terrazzo.labelling.access import Person
from terrazzo.project.orders import ORDERS

COUNT = 4


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("loop")
    write_model(folder / "runs" / "first")
    project = write_scene_project(folder, COUNT, labelled=1)
    project.merge_category("obstacle", "bicycle")
    with label_served(folder, project=project) as one:
        attached = one.send("POST", "/models", {"path": "runs/first", "mapping": {"obstacle": 9}})
        assert attached.status == 201
        finished(one, one.send("POST", "/predict", {}).json["job"])
        yield one


def finished(client: Client, job: str) -> dict[str, Any]:
    until = time.monotonic() + 120
    while True:
        told: dict[str, Any] = client.ask("GET", f"/api/v1/jobs/{job}").json
        if told["state"] not in ("waiting", "running"):
            assert told["state"] == "done", told
            return told
        assert time.monotonic() < until
        time.sleep(0.05)


def truth(client: Client, number: int) -> np.ndarray:
    """What the model says, in this project's numbers: obstacle (9) was mapped to bicycle (9)."""
    root = client.shelf.project("street").root
    mask = tz.load(root / "runs" / "first")(root / "photos" / f"{number:04d}.png").mask.astype(int)
    return np.minimum(mask + 1, 9)


def test_a_model_is_told_with_what_its_classes_are_here(client: Client) -> None:
    (one,) = client.get("/models").json["items"]
    assert client.get("").json["models"] == [one]
    assert (one["name"], one["predicted"], one["labelset"]) == ("first", COUNT, f"model:{one['hash']}")
    assert [c["category_id"] for c in one["classes"]] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    assert one["classes"][0] == {"name": "sky", "color": "#60a0dc", "category_id": 1}
    assert "path" not in one


def test_predictions_are_two_blocks(client: Client) -> None:
    for sample in client.get("/samples").json["items"]:
        (item,) = client.get(f"/samples/{sample['id']}/predictions").json["items"]
        body = client.get(f"/samples/{sample['id']}/predictions/{item['labelset']}").body
        (length,) = struct.unpack_from("<I", body)
        mask = np.frombuffer(zlib.decompress(body[4 : 4 + length]), "<u2").reshape(HW)
        confidence = np.frombuffer(zlib.decompress(body[8 + length :]), np.uint8).reshape(HW)
        number = int(sample["name"][7:11])
        assert (mask == truth(client, number)).all() and confidence.max() <= 255
        assert sample["status"] == ("labelled" if number == 0 else "prelabelled")
        if number:
            assert (client.object_map(sample["id"]) > 0).all()


def test_every_order_has_a_next_one_with_its_reason(client: Client) -> None:
    for order in ORDERS:
        first = client.get(f"/queue/next?order={order}").json
        assert first["sample"]["status"] == "prelabelled" and first["why"] and first["order"] == order
        second = client.get(f"/queue/next?order={order}&after={first['sample']['id']}").json
        assert second["sample"]["id"] != first["sample"]["id"]
    listed = client.get("/samples?order=uncertainty").json["items"]
    assert [one["score"] for one in listed if one["why"] and "random" not in one["why"]] == sorted(
        (one["score"] for one in listed if one["why"] and "random" not in one["why"]), reverse=True
    )
    assert client.get("/queue/next?order=name").json["sample"]["status"] == "prelabelled"
    assert client.get("/queue/next?order=uncertanty").status == 404


def test_cells_of_the_confusion_matrix_lead_to_samples(client: Client) -> None:
    told = client.get("/scores").json
    project = client.shelf.project("street")
    label, seen = project.read_mask("photos/0000.png"), truth(client, 0)
    assert told["images"] == 1 and sum(count for *_, count in told["confusion"]) == label.size
    for row, column, count in told["confusion"]:
        assert count == int(((label == row) & (seen == column)).sum())
        (cell,) = client.get(f"/confusion?label={row}&predicted={column}").json["items"]
        assert (cell["name"], cell["pixels"]) == ("photos/0000.png", count)
    assert told["pixels"] == {"samples": 4, "pixels": 4096, "labelled": 1024, "unlabelled": 3072}
    assert (
        len(told["worths"]) == 9 and told["worths"][0]["gain"] is None
    )  # a model without a report of its own


def test_a_disagreement_is_decided_and_leaves_the_list(client: Client) -> None:
    project = client.shelf.project("street")
    labelset = project.models.all()[0].labelset
    offer = project.predictions.get("photos/0000.png", labelset)
    sure = np.full(HW, 255, np.uint8)
    project.predictions.add("photos/0000.png", offer.mask, sure, model=labelset[6:])
    other = np.where(offer.mask == 1, 2, 1).astype(np.uint16)
    project.write_mask("photos/0000.png", other, status="labelled", tool="brush")
    finished(client, client.send("POST", "/scores", {}).json["job"])
    items = client.get("/disagreements").json["items"]
    assert items and all(one["pixels"] >= 16 and one["confidence"] == 1.0 for one in items)
    weights = [one["pixels"] * one["confidence"] for one in items]
    assert weights == sorted(weights, reverse=True)
    heaviest = items[0]
    assert offer.mask[heaviest["y"], heaviest["x"]] == heaviest["predicted"]
    assert other[heaviest["y"], heaviest["x"]] == heaviest["label"]
    words = {name: heaviest[name] for name in ("sample", "x", "y")}
    assert client.send("POST", "/disagreements", {**words, "verdict": "model"}).json == {"verdict": "model"}
    assert client.get("/disagreements").json["items"] == items[1:]
    assert len(client.get("/disagreements?decided=true").json["items"]) == len(items)
    assert client.send("POST", "/disagreements", {**words, "verdict": "both"}).status == 404
    assert (
        client.send("POST", "/disagreements", {**words, "x": 31, "y": 31, "verdict": "model"}).status == 400
    )


def test_who_made_a_label(client: Client) -> None:
    first, second = client.get("/samples").json["items"][:2]
    assert client.get(f"/samples/{first['id']}/origin").json["is_touched"]
    told = client.get(f"/samples/{second['id']}/origin").json
    assert (told["is_touched"], told["changed"]) == (False, 0.0) and list(told["sources"]) == [
        client.get("/models").json["items"][0]["labelset"]
    ]


def test_a_plan_changes_nothing(client: Client, tmp_path: Path) -> None:
    model = write_model(tmp_path / "other", seed=3)
    before = client.get("").json
    told = client.send("POST", "/models", {"path": str(model), "dry_run": True}).json
    assert told["missing"] == ["obstacle"] and told["name"] == "other"
    assert told["classes"][0] == {"name": "sky", "category_id": 1, "similar": None}
    assert client.get("").json == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"path": "runs/nowhere"}, 400), ({"path": ""}, 400), ({"path": "a\0b"}, 400), ({}, 400),
        ({"path": "user/name"}, 400), ({"path": "photos"}, 400), ({"path": "runs/first", "mapping": [1]}, 400),
        ({"path": "runs/first", "mapping": {"sky": 77}}, 400), ({"path": "runs/first", "add": ["skye"]}, 404),
    ],
)  # fmt: skip
def test_what_is_no_model_is_told(client: Client, body: dict[str, Any], status: int) -> None:
    answer = client.send("POST", "/models", body)
    assert answer.status == status, answer.json
    assert len(client.get("/models").json["items"]) == 1


def test_a_training_is_a_job_and_its_run_is_attached(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = client.shelf.folder

    def train(project: Any, **words: Any) -> dict[str, Any]:
        words["on_stand"](training.Stand(5, 10, 0.5, 0.25, 5, 0.1))
        words["progress"](0.5, "step 5 of 10")
        asked.update(words)
        run = write_model(folder / "runs" / "street-v1", seed=5)
        return {"run": str(run), "release": "v1", "miou": 0.25, "is_cancelled": False, "has_model": True}

    asked: dict[str, Any] = {}
    monkeypatch.setattr(training, "train", train)
    body = {
        "overrides": ["train.steps=10"],
        "minutes": 2,
        "start": client.get("/models").json["items"][0]["hash"],
    }
    told = finished(client, client.send("POST", "/train", body).json["job"])
    assert told["result"]["run"] == "street-v1" and told["kind"] == "train"
    names = [one["name"] for one in client.get("/models").json["items"]]
    assert (
        names == ["street-v1", "first"]
        and told["result"]["model"] == client.get("/models").json["items"][0]["hash"]
    )
    assert asked["overrides"] == ["train.steps=10"] and asked["minutes"] == 2 and asked["author"] == "ann"
    assert told["id"] in [one["id"] for one in client.get("/jobs").json["items"]]
    assert client.send("DELETE", f"/models/{told['result']['model']}").status == 204
    assert client.send("DELETE", "/models/0123456789").status == 404
    for wrong in (
        {"recipe": "evil.py"},
        {"overrides": ["model.pretrained=x"]},
        {"minutes": -1},
        {"start": "nobody"},
    ):
        assert client.send("POST", "/train", wrong).status in (400, 404)
    assert client.get("/train").json["release"] == "v1"


def test_who_may_draw_may_not_attach_or_train(tmp_path: Path) -> None:
    project = write_scene_project(tmp_path, 1)
    people = {"a" * 32: Person("ben", "labeller"), "b" * 32: Person("eve", "viewer")}
    with label_served(tmp_path, project=project, people=people) as client:
        client.headers = {"Authorization": f"Bearer {'a' * 32}"}
        for path, body in (("/models", {"path": "x"}), ("/train", {}), ("/predict", {})):
            assert client.send("POST", path, body).status == 403
        assert client.send("POST", "/scores", {}).status == 400  # no model yet
        client.headers = {"Authorization": f"Bearer {'b' * 32}"}
        assert client.send("POST", "/scores", {}).status == 403
        assert (
            client.get("/scores").json["model"] is None
            and client.get("/queue/next").json["sample"]["id"] == 1
        )
