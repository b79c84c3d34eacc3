"""Who may do what: tokens, cookies, roles, wrong tokens, reviews in a team; and what the log says of it."""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labelled import make_project, scene
from labelserved import API, OURS, Client, label_served
from terrazzo.errors import MissingPathError, UnknownNameError, UnreadableFileError, UsageError
from terrazzo.labelling.access import Person
from terrazzo.labelling.limits import Limits
from terrazzo.labelling.people import read_people, tokens_for
from terrazzo.labelling.running import access_for

NAMES = {"vera": "viewer", "lars": "labeller", "rita": "reviewer", "ada": "admin", "lena": "labeller"}
TOKENS = {name: f"{name}-{'0123456789abcdef' * 2}" for name in NAMES}
TEAM = {TOKENS[name]: Person(name, role) for name, role in NAMES.items()}  # type: ignore[arg-type]


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Client]:
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene(), author="lars", status="labelled")
    project.write_mask("photos/b.png", scene(), author="rita", status="labelled")
    with label_served(tmp_path, project=project, people=TEAM) as client:
        yield client


def as_(client: Client, name: str) -> Client:
    return replace(client, headers={"Authorization": f"Bearer {TOKENS[name]}"})


# -- tokens --------------------------------------------------------------------------------------------------------


def test_without_a_token_nothing_of_a_project_is_told(team: Client) -> None:
    assert team.ask("GET", "/healthz").json == {"status": "alive"}
    for path in (
        "/",
        "/static/app.js",
    ):  # the page, which asks for the token; a link from elsewhere leads to it
        page = team.ask("GET", path, None, {"Sec-Fetch-Site": "cross-site"})
        assert page.status == 200 and b"street" not in page.body
    for path in (f"{API}/", f"{API}/projects/street/samples", f"{API}/nothing", "/nothing", "/openapi.json"):
        answer = team.ask("GET", path)
        assert answer.status == 401 and answer.headers["WWW-Authenticate"] == "Bearer", path
        assert b"street" not in answer.body.replace(path.encode(), b"")
    assert team.ask("POST", "/", b"{}", OURS).status == 401
    assert team.ask("GET", f"{API}/", None, {"Authorization": "Bearer "}).status == 401
    assert team.ask("GET", f"{API}/", None, {"Authorization": f"Basic {TOKENS['ada']}"}).status == 401


def test_a_token_in_the_address_becomes_a_cookie_and_leaves_the_address(team: Client) -> None:
    answer = team.ask("GET", f"/?token={TOKENS['lars']}")
    assert answer.status == 303 and answer.headers["Location"] == "/"
    name, _, rest = answer.headers["Set-Cookie"].partition("=")
    value, *words = rest.split("; ")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(words) and "Secure" not in words
    assert TOKENS["lars"] not in answer.headers["Set-Cookie"], "the cookie is not the token"
    kept = {"Cookie": f"{name}={value}"}
    home = team.ask("GET", f"{API}/", None, kept).json
    assert (home["user"], home["role"], home["is_single_user"]) == ("lars", "labeller", False)
    assert team.ask("GET", f"{API}/?token={TOKENS['lars']}").status == 401, "only the page takes one so"
    assert team.ask("GET", f"{API}/", None, {"Cookie": f"{name}={value[:-1]}x"}).status == 401
    behind = team.ask("GET", f"/?token={TOKENS['lars']}", None, {"X-Forwarded-Proto": "https"})
    assert "Secure" in behind.headers["Set-Cookie"]


def test_after_many_wrong_tokens_even_a_right_one_waits_but_whoever_is_in_goes_on(tmp_path: Path) -> None:
    make_project(tmp_path).close()
    with label_served(tmp_path, people=TEAM, limits=Limits(wrong_tokens=3)) as client:
        cookie = client.ask("GET", f"/?token={TOKENS['ada']}").headers["Set-Cookie"].partition(";")[0]
        for number in range(3):
            assert client.ask("GET", f"/?token=wrong{number}").status == 401
        for asked in (client, as_(client, "ada")):
            answer = asked.ask("GET", f"/?token={TOKENS['ada']}" if asked is client else f"{API}/")
            assert answer.status == 429 and answer.headers["Retry-After"] == "60"
        assert client.ask("GET", f"{API}/", None, {"Cookie": cookie}).status == 200
        client.shelf.access._wrong.clear()  # a minute later
        assert as_(client, "ada").ask("GET", f"{API}/").status == 200


def test_tokens_are_made_kept_for_their_owner_alone_and_shown_once(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    tokens, new = tokens_for(file, {"ann": "labeller", "ben": "admin"})
    assert tokens == new and all(len(one) >= 43 for one in tokens.values()) and len(set(tokens.values())) == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert tokens_for(file, {"ann": "reviewer", "ben": "admin"}) == (tokens, {})
    left, new = tokens_for(file, {"ben": "admin", "eve": "viewer"})
    assert left["ben"] == tokens["ben"] and set(new) == {"eve"}
    assert "ann" not in json.loads(file.read_text()), "whoever leaves loses their token"
    assert tokens_for(file, {"ann": "labeller"})[1]["ann"] != tokens["ann"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_a_file_of_tokens_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    tokens_for(file, {"ann": "labeller"})
    file.chmod(0o640)
    with pytest.raises(UsageError, match="Others can read the tokens") as caught:
        tokens_for(file, {"ann": "labeller"})
    assert caught.value.found == "mode 640" and caught.value.command == f"chmod 600 {file}"


EQUAL = json.dumps({"ann": "t" * 30, "ben": "t" * 30})


@pytest.mark.parametrize(
    "text", ['{"ann": "short"}', '{"ann": "x", "ben": "x"}', "[]", "no json", '{"ann": 5}', EQUAL]
)
def test_tokens_that_can_be_guessed_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises((UsageError, UnreadableFileError)):
        tokens_for(file, {"ann": "labeller"})
    assert file.read_text() == text


def test_the_list_of_people_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    file = tmp_path / "people.json"
    with pytest.raises(MissingPathError):
        read_people(file)
    for text, error in (
        ('{"ann": "boss"}', UnknownNameError),
        ("{}", UsageError),
        ('{" ": "admin"}', UsageError),
        ('["ann"]', UsageError),
        ("{", UnreadableFileError),
    ):
        file.write_text(text)
        with pytest.raises(error):
            read_people(file)
    file.write_text('{"ann": "labeller", "Åsa": "reviewer"}')
    assert read_people(file) == {"ann": "labeller", "Åsa": "reviewer"}


def test_beyond_this_machine_everybody_has_a_token(tmp_path: Path) -> None:
    access, links = access_for("0.0.0.0", 8001, token_file=tmp_path / "t.json", people=None)
    assert access.local is None and len(links) == 1 and list(access.people) == list(links.values())
    assert [one.role for one in access.people.values()] == ["admin"]
    access, links = access_for("127.0.0.1", 8001, token_file=None, people=None)
    assert access.local is not None and access.local.role == "admin" and links == {}


# -- roles ---------------------------------------------------------------------------------------------------------

LADDER = ("viewer", "labeller", "reviewer", "admin")
NEEDS = [
    ("labeller", "PATCH", "/samples/3", {"status": "in_progress"}),
    ("labeller", "POST", "/samples/3/ops", {"client_id": "a", "seq": 0, "base_revision": 0}),
    ("labeller", "POST", "/samples/3/restore", {"revision": 0, "base_revision": 0}),
    ("labeller", "POST", "/samples/3/lease", {"client_id": "a"}),
    ("labeller", "PUT", "/samples/3/lease", {"client_id": "a"}),
    ("labeller", "DELETE", "/samples/3/lease?client_id=a", None),
    ("labeller", "POST", "/samples/3/issues", {"x": 0, "y": 0, "text": "?"}),
    ("labeller", "POST", "/issues/1/comments", {"text": "!"}),
    ("labeller", "PATCH", "/issues/1", {"resolved": True}),
    ("labeller", "POST", "/categories", {"name": "sky"}),
    ("labeller", "PATCH", "/categories/1", {"name": "street"}),
    ("labeller", "POST", "/samples/split", {"ids": [3], "split": "val"}),
    ("reviewer", "PATCH", "/samples/1", {"status": "reviewed"}),
    ("reviewer", "PATCH", "/samples/1", {"status": "rejected", "reason": "no"}),
    ("reviewer", "POST", "/releases", {"name": "v1"}),
    ("reviewer", "GET", "/audit", None),
    ("admin", "DELETE", "/categories/3", None),
    ("admin", "POST", "/categories/1/merge", {"into": 2, "dry_run": True}),
    ("admin", "POST", "/folders", {"path": "photos"}),
    ("admin", "POST", "/imports", {"format": "labelme", "path": "photos", "dry_run": True}),
    ("admin", "POST", "/releases/v1/withdraw", {}),
]  # fmt: skip


def test_nobody_does_what_is_another_role_s(team: Client) -> None:
    for role, method, path, value in NEEDS:
        for name in ("vera", "lars", "rita", "ada"):
            answer = (
                as_(team, name).send(method, path, value) if method != "GET" else as_(team, name).get(path)
            )
            may = LADDER.index(NAMES[name]) >= LADDER.index(role)
            assert (answer.status != 403) is may, (path, name, answer.status, answer.body)
            if not may:
                assert answer.json["expected"] == role and answer.json["found"] == f"{name}, {NAMES[name]}"


def test_a_viewer_looks_at_everything_and_only_an_admin_makes_projects(team: Client) -> None:
    vera = as_(team, "vera")
    of_one = ("", "/label", "/tiles", "/image", "/thumb", "/history", "/issues")
    for path in ("", "/samples", "/releases", "/categories", *(f"/samples/1{what}" for what in of_one)):
        assert vera.get(path).status == 200, path
    for name, status in (("vera", 403), ("rita", 403), ("ada", 201)):
        made = as_(team, name).ask("POST", f"{API}/projects", b'{"name": "new"}', OURS)
        assert made.status == status


# -- reviews -------------------------------------------------------------------------------------------------------


def test_nobody_reviews_what_they_drew_themselves(team: Client) -> None:
    rita, ada = as_(team, "rita"), as_(team, "ada")
    own = rita.send("PATCH", "/samples/2", {"status": "reviewed"})
    assert own.status == 409 and own.json["found"] == "labelled and judged by rita"
    assert rita.send("PATCH", "/samples/2", {"status": "rejected", "reason": "no"}).status == 409
    assert ada.send("PATCH", "/samples/2", {"status": "reviewed"}).json["status"] == "reviewed"
    assert rita.send("PATCH", "/samples/1", {"status": "reviewed"}).json["status"] == "reviewed"
    whole = {"revision": 0, "base_revision": 1}
    assert rita.send("POST", "/samples/1/restore", whole).json["revision"] == 2
    assert rita.get("/samples/1").json["status"] == "in_progress", "what is changed is not reviewed any more"


def test_what_is_rejected_goes_back_to_whoever_drew_it(team: Client) -> None:
    as_(team, "rita").send("PATCH", "/samples/1", {"status": "rejected", "reason": "the car"})
    lars, lena = as_(team, "lars"), as_(team, "lena")
    assert lars.get("/queue/next").json["sample"]["id"] == 1
    assert lars.get("/queue/next").json["why"] == "the car"
    assert lena.get("/queue/next").json["sample"]["id"] == 3
    lena.send("POST", "/samples/3/lease", {"client_id": "lena"})
    assert lena.get("/queue/next").json["sample"]["id"] == 1, "better late than never"


def test_whoever_is_alone_may_review_their_own(tmp_path: Path) -> None:
    alone = {"0" * 32: Person("ann", "admin"), "1" * 32: Person("vera", "viewer")}
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene(), author="ann", status="labelled")
    with label_served(tmp_path, project=project, people=alone) as client:
        ann = replace(client, headers={"Authorization": f"Bearer {'0' * 32}"})
        assert ann.ask("GET", f"{API}/").json["is_single_user"]
        assert ann.send("PATCH", "/samples/1", {"status": "reviewed"}).json["status"] == "reviewed"


# -- the log -------------------------------------------------------------------------------------------------------


def test_roles_statuses_and_releases_stand_in_the_log_with_who_did_it(tmp_path: Path) -> None:
    make_project(tmp_path).close()
    with label_served(tmp_path, people=TEAM) as client:
        as_(client, "lars").send("PATCH", "/samples/1", {"status": "labelled"})
        as_(client, "rita").send("POST", "/releases", {"name": "v1"})
        as_(client, "ada").send("POST", "/releases/v1/withdraw", {"reason": "faces"})
        deeds = as_(client, "rita").get("/audit").json["items"]
        assert [(one["action"], one["author"]) for one in deeds[:3]] == [
            ("release withdrawn", "ada"),
            ("release", "rita"),
            ("status", "lars"),
        ]
        roles = {one["detail"]["name"]: one["detail"]["new"] for one in deeds if one["action"] == "role"}
        assert roles == NAMES
    changed = {token: one for token, one in TEAM.items() if one.name != "vera"}
    changed[TOKENS["lars"]] = Person("lars", "reviewer")
    with label_served(tmp_path, people=changed) as client:
        deeds = as_(client, "rita").get("/audit").json["items"]
        assert [one["detail"] for one in deeds[:2]] == [
            {"name": "vera", "old": "viewer", "new": None},
            {"name": "lars", "old": "labeller", "new": "reviewer"},
        ]
        assert len([one for one in deeds if one["action"] == "role"]) == len(NAMES) + 2
