"""What is promised about labels, on the server's side: nothing acknowledged is lost, nothing wrong is shown as right.

G2 kills are in test_kills.py; the browser's half in browser/.
"""

import concurrent.futures
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelled import make_project, scene, write_photograph
from labelserved import Client, label_served
from terrazzo.labelling.pictures import Pictures
from terrazzo.project import open_project
from terrazzo.project.leases import TTL
from terrazzo.project.samples import Entry

ROAD = [{"id": 1, "category_id": 1, "source": "manual", "attributes": {}}]


def tile(value: int, hw: tuple[int, int] = (512, 512)) -> np.ndarray:
    return np.full(hw, value, np.uint16)


def annotations(*ids: int) -> list[dict[str, Any]]:
    return [{"id": one, "category_id": one, "source": "manual", "attributes": {}} for one in ids]


# -- G3, G5: what comes again is done once -------------------------------------------------------------------------


def test_an_operation_that_comes_again_is_answered_again_and_not_done_again(tmp_path: Path) -> None:
    with label_served(tmp_path) as client:
        first = client.op(1, {(0, 0): tile(1)}, ROAD, base=0, seq=7).json
        second = client.op(1, {(0, 1): tile(1, (512, 8))}, None, base=1, seq=8).json
        again = client.op(1, {(0, 0): tile(1)}, ROAD, base=0, seq=7).json
        assert again == {**first, "is_replay": True}
        assert client.get("/samples/1").json["revision"] == second["revision"] == 2
        other = client.op(1, {(0, 0): tile(0)}, ROAD, base=2, seq=7)
        assert other.status == 400 and "used the number 7 twice" in other.json["title"]
        assert client.object_map(1)[0].tolist() == [1] * 520


def test_a_page_that_was_away_replays_in_order_after_the_server_was_started_anew(tmp_path: Path) -> None:
    strokes = [{(0, 0): tile(number % 2)} for number in range(6)]
    with label_served(tmp_path) as client:
        for seq in range(3):
            assert client.op(1, strokes[seq], ROAD, base=seq, seq=seq).status == 200
    with label_served(tmp_path) as client:
        answers = [client.op(1, strokes[seq], ROAD, base=seq, seq=seq).json for seq in range(6)]
        assert [one["is_replay"] for one in answers] == [True] * 3 + [False] * 3
        assert [one["revision"] for one in answers] == [1, 2, 3, 4, 5, 6]
        assert (client.object_map(1)[:512, :512] == 1).all()


def test_the_same_operation_from_many_threads_at_once_is_done_once(tmp_path: Path) -> None:
    with label_served(tmp_path) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.op, 1, {(0, 0): tile(1)}, ROAD, base=0, seq=1) for _ in range(16)]
        answers = [one.result().json for one in asked]
        assert {one["revision"] for one in answers} == {1}
        assert sum(not one["is_replay"] for one in answers) == 1
        assert len(client.get("/samples/1/history").json["items"]) == 1


# -- two people ----------------------------------------------------------------------------------------------------


def test_strokes_on_different_tiles_merge_and_on_the_same_one_none_is_lost(tmp_path: Path) -> None:
    with label_served(tmp_path) as client:
        client.op(1, {}, annotations(1, 2), base=0, client="one")
        mine = client.op(1, {(0, 0): tile(1)}, None, base=1, client="one", seq=2).json
        theirs = client.op(1, {(1, 1): tile(2, (18, 8))}, None, base=1, client="two", seq=1).json
        assert theirs["is_merged"] and theirs["revision"] == mine["revision"] + 1
        label = client.object_map(1)
        assert (label[:512, :512] == 1).all() and (label[512:, 512:] == 2).all()
        stale = client.op(1, {(0, 0): tile(2)}, None, base=1, client="two", seq=2)
        assert stale.status == 412
        assert stale.json["current"] == theirs["revision"]
        assert (client.object_map(1) == label).all(), "what stands is not touched"
        assert (client.object_map(1, stale.json["branch"])[:512, :512] == 2).all(), "what was refused is kept"
        replayed = client.op(1, {(0, 0): tile(2)}, None, base=1, client="two", seq=2)
        assert replayed.status == 412 and replayed.json["branch"] == stale.json["branch"]
        kinds = [one["kind"] for one in client.get("/samples/1/history").json["items"]]
        assert kinds == ["branch", "write", "write", "write"]
        restored = client.send("POST", "/samples/1/restore", {"revision": 1, "base_revision": 1})
        assert restored.status == 412 and restored.json["current"] == theirs["revision"]


def test_a_second_server_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with label_served(tmp_path) as one:
        assert one.get("/samples").status == 200
        with label_served(tmp_path) as two:
            refused = two.get("/samples")
            assert refused.status == 503 and "served by another process" in refused.json["title"]
            assert two.op(1, {(0, 0): tile(1)}, ROAD, base=0).status == 503
            (listed,) = two.ask("GET", "/api/v1/").json["projects"]
            assert listed["samples"] == 3, "it may be looked at"
        assert one.op(1, {(0, 0): tile(1)}, ROAD, base=0).status == 200


# -- G6: what cannot be read -----------------------------------------------------------------------------------------


def damage(folder: Path, *, what: str) -> None:
    with sqlite3.connect(folder / "street.db") as db:
        db.execute("DROP TRIGGER tiles_last")
        if what == "gone":
            db.execute("DELETE FROM tiles")
        elif what == "flipped":
            ((name, data),) = db.execute("SELECT hash, data FROM tiles LIMIT 1").fetchall()
            db.execute("UPDATE tiles SET data = ? WHERE hash = ?", (data[:-5] + b"wrong", name))
        elif what == "tree":
            db.execute("DROP TRIGGER trees_stay")
            db.execute("UPDATE trees SET tiles = zeroblob(length(tiles))")
        else:
            db.execute("UPDATE documents SET data = x'00'")
    db.close()


@pytest.mark.parametrize("what", ["gone", "flipped", "tree", "document"])
def test_a_label_that_cannot_be_read_is_an_error_and_read_only_never_an_empty_one(
    tmp_path: Path, what: str
) -> None:
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene())
    project.close()
    damage(tmp_path, what=what)
    before = (tmp_path / "street.db").read_bytes()
    with label_served(tmp_path) as client:
        told = client.get("/samples/1/label").json
        assert told["is_read_only"] and told["problem"]["status"] == 423
        assert "cannot be read" in told["problem"]["title"]
        assert client.get("/samples/1/tiles").status == 423
        assert client.op(1, {(0, 0): tile(1)}, ROAD, base=1).status == 423
        assert client.get("/samples/1").json["revision"] == 1, "nothing was written over it"
        assert client.get("/samples").json["total"] == 3
        assert client.op(2, {(0, 0): tile(1)}, ROAD, base=0).status == 200, "others are not touched by it"
        back = client.send("POST", "/samples/1/restore", {"revision": 0, "base_revision": 1})
        assert back.status == 200 and not client.get("/samples/1/label").json["is_read_only"]
    assert before != (tmp_path / "street.db").read_bytes()


def test_a_tile_that_breaks_while_the_server_runs_is_seen(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene())
    with label_served(tmp_path, project=project) as client:
        assert not client.get("/samples/1/label").json["is_read_only"]
        damage(tmp_path, what="flipped")
        assert client.get("/samples/1/tiles").status == 423
        assert client.get("/samples/1/label").json["is_read_only"]
        assert client.op(1, {(0, 0): tile(1)}, None, base=1).status == 423


# -- nobody waits for others' pictures -------------------------------------------------------------------------------


def test_strokes_do_not_stand_behind_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_go, begun = threading.Event(), []

    def slowly(pictures: Pictures, one: Entry) -> tuple[bytes, str]:
        begun.append(one.id)
        assert may_go.wait(60)
        return b"picture", "image/jpeg"

    monkeypatch.setattr(Pictures, "thumb", slowly)
    with label_served(tmp_path) as client, concurrent.futures.ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(client.get, f"/samples/{1 + number % 3}/thumb") for number in range(60)]
        while not begun:
            time.sleep(0.001)
        try:
            for seq in range(5):
                begun_at = time.monotonic()
                assert client.op(1, {(0, 0): tile(seq % 2)}, ROAD, base=seq, seq=seq).status == 200
                assert time.monotonic() - begun_at < 3
        finally:
            may_go.set()
        assert {one.result().body for one in asked} == {b"picture"} and len(begun) == 60


# -- the image under a label ---------------------------------------------------------------------------------------


def test_an_image_that_is_gone_or_another_one_is_told_and_its_label_stays(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene())
    image = tmp_path / "photos" / "a.png"
    kept = image.read_bytes()
    with label_served(tmp_path, project=project) as client:
        assert client.get("/samples/1").json["image_state"] == "there"
        assert client.get("/samples/1/image?level=1").status == 200
        image.unlink()
        assert client.get("/samples/1").json["image_state"] == "missing"
        gone = client.get("/samples/1/image?level=1")
        assert gone.status == 422 and "is gone" in gone.json["title"], (
            "a picture that was kept is not shown either"
        )
        write_photograph(image, 99)
        assert client.get("/samples/1").json["image_state"] == "changed"
        changed = client.get("/samples/1/thumb")
        assert changed.status == 422 and "has changed since it was labelled" in changed.json["title"]
        table = np.zeros(1 << 16, np.uint16)
        for one in client.get("/samples/1/label").json["annotations"]:
            table[one["id"]] = one["category_id"]
        assert (table[client.object_map(1)] == scene()).all()
        assert (
            client.send("PATCH", "/samples/1", {"status": "labelled"}).json["warnings"][0]
            == "its image is changed"
        )
        image.write_bytes(kept)
        assert client.get("/samples/1").json["image_state"] == "there"
        assert client.get("/samples/1/image?level=1").status == 200


# -- G8: classes that are in use -------------------------------------------------------------------------------------


def test_a_class_that_an_open_page_still_draws_with_is_migrated_or_refused(tmp_path: Path) -> None:
    with label_served(tmp_path) as client:
        client.op(1, {(0, 0): tile(1)}, ROAD, base=0, seq=1)
        assert client.send("DELETE", "/categories/1").status == 400, "labels have it"
        client.send("POST", "/categories/1/merge", {"into": 3})
        late = client.op(1, {(0, 1): tile(1, (512, 8))}, ROAD, base=1, seq=2)
        assert late.status == 200, "drawn with the class that was merged meanwhile"
        label = client.get("/samples/1/label").json
        assert {one["category_id"] for one in label["annotations"]} == {3}
        assert (client.object_map(1)[:512] == 1).all(), "both strokes are there"
        client.send("POST", "/categories", {"name": "pole"})
        client.send("DELETE", "/categories/4")
        pole = client.op(1, {(1, 0): tile(2, (18, 512))}, [*label["annotations"], {"id": 2, "category_id": 4}],
                         base=label["revision"], seq=3)  # fmt: skip
        assert pole.status == 422 and "was deleted" in pole.json["detail"]
        client.send("PATCH", "/categories/3", {"name": "ground"})
        assert client.op(1, {(1, 0): tile(1, (18, 512))}, None, base=label["revision"], seq=4).status == 200


# -- G9: no room ---------------------------------------------------------------------------------------------------


def test_a_full_disk_is_507_and_loses_nothing(tmp_path: Path) -> None:
    dice = np.random.default_rng(0)
    noise = dice.integers(0, 2, (512, 512), dtype=np.uint16)
    with label_served(tmp_path) as client:
        assert client.op(1, {(0, 0): tile(1)}, ROAD, base=0, seq=1).status == 200
        db = client.shelf.project("street").store._db
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
        full = client.op(1, {(0, 0): noise}, None, base=1, seq=2)
        assert full.status == 507 and "disk is full" in full.json["title"] and "intact" in full.json["hint"]
        assert client.get("/samples/1").json["revision"] == 1
        assert (client.object_map(1)[:512, :512] == 1).all()
        db.execute("PRAGMA max_page_count = 1000000")
        assert client.op(1, {(0, 0): noise}, None, base=1, seq=2).json["is_replay"] is False
        assert (client.object_map(1)[:512, :512] == noise).all()


# -- G10: releases -------------------------------------------------------------------------------------------------


def test_a_release_that_cannot_be_made_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene(), status="labelled")
    with label_served(tmp_path, project=project) as client:
        assert client.get("/releases").json["items"] == []
        with monkeypatch.context() as patch:
            patch.setattr("terrazzo.project.audit.note", _no_room)  # the last thing of its transaction
            assert client.send("POST", "/releases", {"name": "v1"}).status == 507
        assert client.get("/releases").json["items"] == []
        made = client.send("POST", "/releases", {"name": "v1"}).json
        head = client.get("/samples/1/label").json["revision"]
        client.op(1, {(0, 0): tile(0)}, None, base=head)
        assert client.get("/releases/v1").json["id"] == made["id"]
        assert client.get("/releases/v1").json["pixels"]["road"] == int((scene() == 1).sum())


def _no_room(*arguments: object, **words: object) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


# -- clocks --------------------------------------------------------------------------------------------------------


def test_leases_end_by_the_clock_that_nobody_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    with label_served(tmp_path) as client:
        project = client.shelf.project("street")
        monkeypatch.setattr(project.leases, "clock", lambda: now[0])
        monkeypatch.setattr(project.listing, "_clock", lambda: now[0])
        client.send("POST", "/samples/1/lease", {"client_id": "one"})
        monkeypatch.setattr("time.time", lambda: 0.0)  # the wall clock is set back by decades
        assert client.send("POST", "/samples/1/lease", {"client_id": "two"}).status == 409
        now[0] += TTL - 1
        assert client.send("PUT", "/samples/1/lease", {"client_id": "one"}).status == 200
        now[0] += TTL - 1
        assert client.get("/samples/1").json["lease"]["client"] == "one"
        now[0] += 2
        assert client.get("/samples/1").json["lease"] is None
        assert client.send("POST", "/samples/1/lease", {"client_id": "two"}).status == 200
        now[0] -= 5000  # the machine was started again
        assert client.get("/samples/1").json["lease"] is None, "a lease longer than any is given for is none"
        assert client.send("POST", "/samples/1/lease", {"client_id": "one"}).status == 200


# -- a project that cannot be written --------------------------------------------------------------------------------


def test_a_project_that_may_not_be_written_is_shown_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene())
    project.close()
    may = lambda path, mode: mode != 2  # noqa: E731 - W_OK; whoever runs tests as root may write everything
    monkeypatch.setattr("terrazzo.labelling.shelf.os.access", may)
    with label_served(tmp_path) as client:
        told = client.get("").json
        assert told["is_read_only"]
        assert client.get("/samples/1/label").json["is_read_only"]
        assert client.get("/samples/1/image").status == 200
        refused = client.op(1, {(0, 0): tile(1)}, ROAD, base=1)
        assert refused.status == 423 and "read-only" in refused.json["title"]
    with open_project(tmp_path / "street.db") as again:
        assert (again.read_mask("photos/a.png") == scene()).all()


def test_raw_images_are_never_touched(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "photos").iterdir()}
    with label_served(tmp_path, project=project) as client:
        walk_through(client)
    assert {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "photos").iterdir()
    } == files


def walk_through(client: Client) -> None:
    client.op(1, {(0, 0): tile(1)}, ROAD, base=0)
    client.send("PATCH", "/samples/1", {"status": "labelled"})
    for what in ("image", "image?level=1", "thumb"):
        assert client.get(f"/samples/1/{what}").status == 200
    client.send("POST", "/releases", {"name": "v1"})
    assert client.get("/releases/v1/export?format=segments").status == 200
