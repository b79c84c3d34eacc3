"""Routes of releases: made, compared, taken away, withdrawn; and of labels of others that are brought in."""

import io
import os
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from labelled import make_project, scene
from labelserved import THINGS, label_served
from terrazzo import exchange


def test_a_release_is_made_compared_taken_away_twice_the_same_and_withdrawn(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene(), status="labelled")
    with label_served(tmp_path, project=project) as client:
        made = client.send("POST", "/releases", {"name": "v1", "description": "first"})
        assert made.status == 201 and made.json["samples"] == 3 and len(made.json["id"]) == 64
        tile = {(0, 0): np.full((512, 512), 1, np.uint16)}
        head = client.get("/samples/2/label").json["revision"]
        assert client.op(2, tile, THINGS[:1], base=head).status == 200
        assert client.get("/releases/v1").json["id"] == made.json["id"]
        client.send("POST", "/releases", {"name": "v2"})
        diff = client.get("/releases/v2/diff?from=v1").json
        roads = int((scene() == 1).sum())
        assert diff["changed"] == ["photos/b.png"] and diff["pixels"]["road"] == [roads, roads + 512 * 512]
        parcels = [client.get("/releases/v1/export?format=folder").body for _ in range(2)]
        assert parcels[0] == parcels[1]
        with zipfile.ZipFile(io.BytesIO(parcels[0])) as parcel:
            assert parcel.testzip() is None
            assert all(one.date_time == (1980, 1, 1, 0, 0, 0) for one in parcel.infolist())
            names = sorted(parcel.namelist())
            assert names == ["v1/dataset.json", "v1/train/images/photos/a.png", "v1/train/masks/photos/a.png"]
            mask = np.asarray(Image.open(io.BytesIO(parcel.read(names[2]))))
        assert (mask == scene()).all()
        for form in client.get("").json["formats"]:
            first_time, second_time = (client.get(f"/releases/v1/export?format={form}") for _ in range(2))
            assert first_time.status == 200 and first_time.body == second_time.body, form
        assert client.get("/releases/v1/export?format=nothing").status == 404
        assert client.get("/releases/v1/export").status == 400
        client.send("POST", "/releases/v1/withdraw", {"reason": "faces"})
        listed = {one["name"]: one["withdrawn_at"] for one in client.get("/releases").json["items"]}
        assert listed["v1"] and listed["v2"] is None
        refused = client.get("/releases/v1/export?format=folder")
        assert refused.status == 409 and "faces" in refused.json["detail"]
        assert not list(tmp_path.glob(".export-*")), "what was made for a parcel is gone"


def test_labels_of_others_are_planned_and_brought_in(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene(), status="labelled")
    project.releases.create("v1")
    exchange.give(project.releases["v1"], "folder", tmp_path / "given")
    with label_served(tmp_path, project=project) as client:
        for is_dry, images in ((True, 3), (False, 4)):
            told = client.send("POST", "/imports", {"format": "data-set", "path": "given", "dry_run": is_dry})
            assert told.status == 202
            job = client.finished(told.json["job"])
            assert job["state"] == "done", job
            assert len(job["result"]["labels"]) == 1
            assert client.get("/samples").json["total"] == images
        outside = client.send("POST", "/imports", {"format": "coco", "path": "../else", "dry_run": True})
        assert outside.status == 400 and "outside" in outside.json["title"]


def test_what_a_killed_server_left_of_an_export_is_cleared_a_day_later(tmp_path: Path) -> None:
    make_project(tmp_path).close()
    for name, age in ((".export-old", 2 * 24 * 3600), (".export-new", 60)):
        (tmp_path / name / "v1").mkdir(parents=True)
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    with label_served(tmp_path):
        assert [one.name for one in tmp_path.glob(".export-*")] == [".export-new"]
