"""What the labelling server refuses: other names and sites, forged requests, ways out of the root, names, queries.

Bodies that it does not take in are in test_bodies.py.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from labelled import make_project, write_photograph
from labelserved import API, BYTES, OURS, Client, label_served, refused
from terrazzo.labelling.drops import harmless


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with label_served(tmp_path_factory.mktemp("refusals"), names=("desk.example",)) as one:
        yield one


# -- who asks, and from where --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", f"{API}/", f"{API}/projects/street", "/static/app.js", "/healthz"])
def test_a_name_that_is_not_ours_is_refused_even_on_loopback(client: Client, path: str) -> None:
    for name in (
        "evil.example",
        "evil.example:80",
        "desk.example.evil.example",
        "",
        "[::1",
        "localhost.evil",
    ):
        refused(client.ask("GET", path, None, {"Host": name}), 421, "unknown-host")
    for name in ("localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:8001", "desk.example:8001"):
        assert client.ask("GET", f"{API}/", None, {"Host": name}).status == 200


def test_a_page_of_another_site_may_neither_look_nor_change(client: Client) -> None:
    there = f"http://127.0.0.1:{client.port}"
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{client.port + 1}", "http://127.0.0.1"):
        refused(client.ask("GET", f"{API}/", None, {"Origin": origin}), 403, "other-origin")
        made = client.ask("POST", f"{API}/projects", b'{"name": "a"}', {**OURS, "Origin": origin})
        refused(made, 403, "other-origin")
    for site in ("cross-site", "same-site"):
        refused(client.ask("GET", f"{API}/", None, {"Sec-Fetch-Site": site}), 403, "other-origin")
        made = client.ask("POST", f"{API}/projects", b'{"name": "a"}', {**OURS, "Sec-Fetch-Site": site})
        refused(made, 403, "forgery")
    same = {"Origin": there, "Sec-Fetch-Site": "same-origin"}
    assert client.ask("GET", f"{API}/", None, same).status == 200
    told = client.ask("OPTIONS", f"{API}/projects", None, {"Origin": "http://evil.example"})
    assert "Access-Control-Allow-Origin" not in told.headers and told.status == 403
    assert "Access-Control-Allow-Origin" not in client.ask("GET", f"{API}/", None, same).headers


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Forwarded-Proto", "Via"])
def test_a_proxy_before_a_server_that_asks_for_no_token_is_refused(client: Client, header: str) -> None:
    told = refused(client.ask("GET", f"{API}/", None, {header: "192.0.2.7"}), 403, "proxy")
    assert told["command"] == "terrazzo label PROJECT --people people.json"


MUTATIONS = [
    ("POST", "/projects"),
    ("POST", "/projects/street/categories"),
    ("PATCH", "/projects/street/categories/1"),
    ("DELETE", "/projects/street/categories/1"),
    ("POST", "/projects/street/categories/1/merge"),
    ("POST", "/projects/street/images?name=a.png"),
    ("POST", "/projects/street/folders"),
    ("POST", "/projects/street/samples/split"),
    ("PATCH", "/projects/street/samples/1"),
    ("POST", "/projects/street/samples/1/ops"),
    ("POST", "/projects/street/samples/1/restore"),
    ("POST", "/projects/street/samples/1/lease"),
    ("PUT", "/projects/street/samples/1/lease"),
    ("DELETE", "/projects/street/samples/1/lease?client_id=a"),
    ("POST", "/projects/street/samples/1/issues"),
    ("POST", "/projects/street/issues/1/comments"),
    ("PATCH", "/projects/street/issues/1"),
    ("POST", "/projects/street/releases"),
    ("POST", "/projects/street/releases/v1/withdraw"),
    ("POST", "/projects/street/imports"),
    ("DELETE", "/jobs/1"),
]


@pytest.mark.parametrize(("method", "path"), MUTATIONS)
def test_what_changes_something_cannot_be_forged(client: Client, method: str, path: str) -> None:
    without = {"Content-Type": "application/json"}
    refused(client.ask(method, API + path, b"{}", without), 403, "forgery")
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
    ):
        refused(
            client.ask(method, API + path, b"{}", {"X-Terrazzo": "1", "Content-Type": kind}),
            415,
            "unsupported-media-type",
        )
    bare = client.ask("GET", API + path)
    assert bare.status in (200, 400, 404, 405), "asking changes nothing"


def test_every_mutation_there_is_stands_in_the_list(client: Client) -> None:
    app = _application(client)
    listed = {(method, path.partition("?")[0].count("/")) for method, path in MUTATIONS}
    for route in app.routes:
        for method in getattr(route, "methods", set()) - {"GET", "HEAD", "OPTIONS"}:
            path = route.path.removeprefix(API)  # type: ignore[attr-defined]
            assert (method, path.count("/")) in listed or "assist" in path or _is_loop(path), (method, path)


def _is_loop(path: str) -> bool:
    return any(word in path for word in ("models", "predict", "train", "scores", "queue", "disagreements"))


def _application(client: Client) -> Any:
    from terrazzo.labelling.app import create_app

    return create_app(client.shelf).app  # type: ignore[attr-defined]


# -- ways out of the root ------------------------------------------------------------------------------------------

OUTSIDE = ["..", "../..", "photos/../../", "/etc", "/", "C:\\Windows", "c:/x", "\\\\host\\share", "a\0b", "..\\..",
           "/tmp/../etc"]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_folder_outside_the_root_is_refused(client: Client, path: str) -> None:
    for what in ({"path": path}, {"path": path, "format": "labelme", "dry_run": True}):
        route = "/folders" if len(what) == 1 else "/imports"
        told = client.send("POST", route, what)
        assert told.status == 400, told.body
        assert "/root" not in told.json["detail"]
    assert client.get("/samples").json["total"] == 3


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "..%2fstreet", "street%2f..%2fstreet", "street.db", "%00", "street%00"]
)
def test_a_project_is_a_name_and_never_a_path(client: Client, name: str) -> None:
    assert client.ask("GET", f"{API}/projects/{name}").status in (400, 404)
    assert client.ask("GET", f"{API}/projects/{name}/samples").status in (400, 404)


def test_links_that_lead_out_of_the_root_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    secret = write_photograph(outside / "secret.png", 1, hw=(8, 8))
    home = tmp_path / "home"
    home.mkdir()
    make_project(home).close()
    (home / "way").symlink_to(outside)
    (home / "photos" / "link.png").symlink_to(secret)
    with label_served(home) as client:
        assert client.send("POST", "/folders", {"path": "way"}).status == 400
        told = client.send("POST", "/folders", {"path": "photos"})
        assert told.status == 422 and "leads out" in told.json["detail"]
        (home / "photos" / "a.png").unlink()
        (home / "photos" / "a.png").symlink_to(secret)  # after it was added
        assert client.get("/samples/1").json["image_state"] == "missing"
        for what in ("image", "thumb", "image?level=1"):
            answer = client.get(f"/samples/1/{what}")
            assert answer.status == 409 and answer.body.find(secret.read_bytes()[:40]) < 0
        (home / "images").symlink_to(outside)
        dropped = client.ask("POST", f"{API}/projects/street/images?name=a.png", secret.read_bytes(), BYTES)
        assert dropped.status == 400 and sorted(os.listdir(outside)) == ["secret.png"]


# -- names ---------------------------------------------------------------------------------------------------------

HOSTILE = [
    ("a.png", "a.png"),
    ("../../etc/passwd", "passwd.png"),
    ("..\\..\\boot.ini", "boot.ini.png"),
    ("C:\\x\\y.PNG", "y.png"),
    (".bashrc", "bashrc.png"),
    ("...", "image.png"),
    ("", "image.png"),
    ("con.png", "image-con.png"),
    ("COM1", "image-COM1.png"),
    ("-rf.png", "image-rf.png"),
    ("<img src=x onerror=alert(1)>.png", "_img src=x onerror=alert(1)_.png"),
    ("a\0b\n\x1b[31m.png", "ab_31m.png"),
    ("photo\u202egnp.exe", "photognp.exe.png"),
    ("a" * 300 + ".png", "a" * 100 + ".png"),
    ("Straße 1.jpeg", "Straße 1.jpeg.png"),
    ("a.png. . .", "a.png.png"),
]


@pytest.mark.parametrize(("called", "name"), HOSTILE)
def test_a_name_that_a_client_gives_becomes_one_that_harms_nobody(called: str, name: str) -> None:
    made = harmless(called, ".png")
    assert made == name
    assert "/" not in made and "\\" not in made and made.isprintable() and not made.startswith((".", "-"))


def test_text_of_people_is_kept_as_text(client: Client) -> None:
    evil = "<img src=x onerror=alert(1)>"
    made = client.send("POST", "/categories", {"name": evil})
    assert made.status == 201 and made.json["name"] == evil
    assert made.headers["Content-Type"] == "application/json"
    for name in ("", "   ", "a\nb", "a\x1b[2J", "x" * 201, "\u202eevil"):
        assert client.send("POST", "/categories", {"name": name}).status == 400
    for color in ("red", "#12345", "#1234567", "#12345g", "url(x)", "#fff;background:url(x)"):
        assert client.send("POST", "/categories", {"name": "sky", "color": color}).status == 400
    for text in ("", " ", "x" * 10_001):
        assert client.send("POST", "/samples/1/issues", {"x": 1, "y": 1, "text": text}).status == 400
    for name in ("../v1", "a/b", "", "-v", "v 1", "v\n1", "x" * 101):
        assert client.send("POST", "/releases", {"name": name}).status == 400
    for name in ("../p", "a/b", "", ".hidden", "con", "x" * 101, "a\0"):
        made = client.ask("POST", f"{API}/projects", json.dumps({"name": name}).encode(), OURS)
        assert made.status == 400, name


# -- numbers and queries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", ["0", "-1", "99", "1e3", "x", "1 or 1=1", "9" * 30, "1;drop table samples"]
)
def test_a_sample_that_there_is_none_of_is_not_found(client: Client, number: str) -> None:
    for what in ("", "/label", "/tiles", "/image", "/thumb", "/history", "/issues", "/predictions"):
        answer = client.get(f"/samples/{quote(number)}{what}")
        assert answer.status in (400, 404), (what, answer.status, answer.body)
    assert client.get("/samples").json["total"] == 3


SENSELESS = ["limit=0", "limit=9999999", "limit=x", "level=-1", "level=99", "order=%00", "cursor=%5B1%5D",
             "cursor=[[],[]]", "cursor=[1e999,1]", "category=x", "status=%27", "revision=99", "revision=-1",
             f"revision={'9' * 30}"]  # fmt: skip


@pytest.mark.parametrize("query", SENSELESS)
def test_queries_that_make_no_sense_are_told(client: Client, query: str) -> None:
    what = {"level": "/samples/1/image", "revision": "/samples/1/label"}.get(
        query.partition("=")[0], "/samples"
    )
    answer = client.get(f"{what}?{quote(query, safe='=%')}")
    assert answer.status in (400, 404), (answer.status, answer.body)
