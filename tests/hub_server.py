"""A small Hugging Face Hub on this machine: its protocol, as far as the unmodified clients speak it, and its bad days.

`python hub_server.py FOLDER` prints its address and serves FOLDER/user/name/… as data sets with two states, main and
the tag v1; more repositories are made by pushing. Two people have tokens (`TOKENS`). What is stored is in memory. As on
the Hub, large files go through LFS (one piece, or several above `PART`), are served from another origin, and a
repository that one may not see is not there.

POST /_order {"path": regular expression, "kind": …} plans a fault, GET /_log lists the requests since POST /_forget.
"""

# ruff: noqa: RET502, RET503 (an answer is given and left in one line)

import base64
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlparse

from hub_store import LARGE, Blob, Fault, Repo, Store

TOKENS = {"hf_token_of_user": "user", "hf_token_of_other": "other"}
READ_ONLY = {"hf_token_that_reads": "user"}
PART = 1 << 20  # bytes of a piece of a multi-part upload
ID = r"([\w.-]+/[\w.-]+)"


class Hub(BaseHTTPRequestHandler):
    store: Store
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do(self) -> None:
        self.url = urlparse(self.path)
        self.route = unquote(self.url.path)
        self.received = self.answered = 0
        started = time.monotonic()
        fault = self._fault()
        if fault is not None and fault.kind == "silence":
            time.sleep(3600)  # its thread ends with the process
        if fault is not None and fault.kind == "drop":
            self.received = len(self.rfile.read(fault.after))
            self.close_connection = True
            self.connection.close()
        else:
            self.body = self._read()
            self.cut = fault.after if fault is not None and fault.kind == "cut" else None
            if fault is not None and fault.kind == "status":
                self.json(fault.body, fault.status, fault.headers)
            else:
                self.answer()
        if not self.route.startswith("/_"):
            entry = {"method": self.command, "path": self.route, "status": self.answered}
            entry |= {"received": self.received, "seconds": round(time.monotonic() - started, 3)}
            entry |= {"range": self.headers.get("Range"), "agent": self.headers.get("User-Agent")}
            with self.store.lock:
                self.store.log.append(entry)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do

    def _fault(self) -> Fault | None:
        with self.store.lock:
            for fault in self.store.faults:
                if fault.times and re.search(fault.path, f"{self.command} {self.route}"):
                    fault.times -= 1
                    return fault
        return None

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(pieces)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.received = len(body)
        return body

    # who may do what ---------------------------------------------------------------------------------------

    @property
    def token(self) -> str | None:
        words = self.headers.get("Authorization", "").split()
        return words[1] if len(words) == 2 else None

    @property
    def person(self) -> str | None:
        return (TOKENS | READ_ONLY).get(self.token or "")

    def may_write(self, repo: str) -> bool:
        return TOKENS.get(self.token or "") == repo.split("/")[0]

    def answer(self) -> None:
        if self.route.startswith("/_"):
            return self.command_from_tests()
        if self.token is not None and self.person is None:
            return self.refuse(401, "Invalid credentials in Authorization header")
        for pattern, act in self.routes().items():
            method, _, path = pattern.partition(" ")
            if self.command in method.split("|") and (match := re.fullmatch(path, self.route)):
                return act(self, *match.groups())
        return self.refuse(404, "Not found", "EntryNotFound")

    @staticmethod
    def routes() -> dict[str, Callable[..., None]]:
        api = r"/api/(models|datasets)/" + ID
        return {
            r"GET /api/whoami-v2": Hub.whoami,
            r"POST /api/validate-yaml": Hub.validate,
            r"POST /api/repos/create": Hub.create,
            rf"GET {api}/refs": Hub.refs,
            rf"POST {api}/branch/(.+)": Hub.branch,
            rf"POST {api}/tag/(.+)": Hub.tag,
            rf"POST {api}/preupload/([^/]+)": Hub.preupload,
            rf"POST {api}/commit/([^/]+)": Hub.commit,
            rf"GET {api}/tree/([^/]+)(?:/(.*))?": Hub.tree,
            rf"POST {api}/paths-info/([^/]+)": Hub.paths_info,
            rf"GET|HEAD {api}(?:/revision/([^/]+))?": Hub.info,
            rf"POST /(datasets/)?{ID}\.git/info/lfs/objects/batch": Hub.batch,
            r"PUT /lfs/(.+)/(\w{64})": Hub.put,
            r"PUT /lfs/(.+)/(\w{64})/(\d+)": Hub.put_part,
            r"POST /lfs/(.+)/(\w{64})/complete": Hub.complete,
            r"POST /lfs/(.+)/(\w{64})/verify": Hub.verify,
            rf"GET|HEAD /(datasets/)?{ID}/resolve/([^/]+)/(.+)": Hub.resolve,
            r"GET|HEAD /cdn/(.+)/(\w{64})": Hub.cdn,
        }

    def command_from_tests(self) -> None:
        with self.store.lock:
            if self.route == "/_order":
                self.store.faults.append(Fault(**json.loads(self.body)))
            elif self.route == "/_forget":
                self.store.log.clear()
                self.store.faults.clear()
            elif self.route == "/_files":  # of a state: {path: sha256}
                kind, repo, revision = json.loads(self.body)
                found = self.store.repos[kind, repo]
                tree = found.commits[str(found.resolve(revision))]
                return self.json({path: [blob.sha256, len(blob.content)] for path, blob in tree.items()})
            return self.json(self.store.log)

    # repositories --------------------------------------------------------------------------------------------

    def repo(self, kind: str, name: str) -> Repo | None:
        """The repository, if there is one that this person may see; else the answer is given."""
        found = self.store.repos.get((kind, name))
        if found is None or (found.private and self.person != name.split("/")[0]):
            self.refuse(404 if self.person else 401, "Repository not found", "RepoNotFound")
            return None
        return found

    def state(self, kind: str, name: str, revision: str | None) -> tuple[Repo, str, dict[str, Blob]] | None:
        found = self.repo(kind, name)
        if found is None:
            return None
        commit = found.resolve(unquote(revision) if revision else None)
        if commit is None:
            self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return None
        return found, commit, found.commits[commit]

    def whoami(self) -> None:
        if self.person is None:
            return self.refuse(401, "Invalid username or password.")
        role = "read" if self.token in READ_ONLY else "write"
        who = {"type": "user", "name": self.person, "orgs": [], "auth": {"accessToken": {"role": role}}}
        return self.json(who)

    def validate(self) -> None:
        import yaml

        match = re.match(r"---\n(.*?)\n---\n", json.loads(self.body)["content"], re.DOTALL)
        try:
            value = yaml.safe_load(match[1]) if match else {}
        except yaml.YAMLError as error:
            return self.json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        empty = [] if value else [{"message": "empty or missing yaml metadata in repo card"}]
        return self.json({"errors": [], "warnings": empty})

    def create(self) -> None:
        asked = json.loads(self.body)
        if self.person is None:
            return self.refuse(401, "Invalid username or password.")
        name = f"{asked.get('organization') or self.person}/{asked['name']}"
        kind = asked.get("type", "model") + "s"
        prefix = "" if kind == "models" else f"{kind}/"
        url = f"http://127.0.0.1:{self.store.port}/{prefix}{name}"
        if not self.may_write(name):
            space = name.split("/")[0]
            words = f'You don\'t have the rights to create a {kind[:-1]} under the namespace "{space}"'
            return self.json({"error": words, "url": url}, 403)
        if (kind, name) in self.store.repos:
            return self.json({"error": f"You already created this {kind[:-1]} repo: {name}", "url": url}, 409)
        attributes = Blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", False)
        commit = hashlib.sha1(name.encode()).hexdigest()
        is_private = asked.get("private") or asked.get("visibility") == "private"
        self.store.repos[kind, name] = Repo(
            bool(is_private), {commit: {".gitattributes": attributes}}, {"main": commit}
        )
        return self.json({"url": url, "name": name, "id": name})

    def info(self, kind: str, name: str, revision: str | None) -> None:
        if (found := self.state(kind, name, revision)) is None:
            return
        repo, commit, tree = found
        value = {
            "id": name,
            "_id": "1",
            "sha": commit,
            "private": repo.private,
            "disabled": False,
            "gated": False,
        }
        value |= {
            "siblings": [{"rfilename": path} for path in sorted(tree)],
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }
        value |= {"lastModified": "2026-11-20T12:00:00.000Z", "createdAt": "2026-11-20T12:00:00.000Z"}
        self.json(value | {"cardData": self.card(tree)})

    @staticmethod
    def card(tree: dict[str, Blob]) -> Any:
        import yaml

        text = tree["README.md"].content.decode() if "README.md" in tree else ""
        match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        return yaml.safe_load(match[1]) if match else None

    def refs(self, kind: str, name: str) -> None:
        if (repo := self.repo(kind, name)) is not None:
            branches = [
                {"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": commit}
                for ref, commit in repo.refs.items()
            ]
            self.json({"branches": branches, "tags": [], "converts": []})

    def branch(self, kind: str, name: str, branch: str) -> None:
        repo = self.repo(kind, name)
        if repo is None:
            return
        if not self.may_write(name):
            return self.refuse(403, "Forbidden: pass a token that may write")
        if branch in repo.refs:
            return self.refuse(409, "Reference already exists")
        repo.refs[branch] = repo.refs["main"]
        self.json({}, 201)

    def tag(self, kind: str, name: str, revision: str) -> None:
        repo = self.repo(kind, name)
        if repo is not None:
            repo.refs[json.loads(self.body)["tag"]] = str(repo.resolve(revision))
            self.json({}, 201)

    # uploads -------------------------------------------------------------------------------------------------

    def preupload(self, kind: str, name: str, revision: str) -> None:
        found = self.writable(kind, name, revision)
        if found is None:
            return
        tree, answer = found[2], []
        for file in json.loads(self.body)["files"]:
            mode = "lfs" if file["path"].endswith(LARGE) or file["size"] > 10 << 20 else "regular"
            there = tree.get(file["path"])
            oid = None if there is None else there.sha256 if there.is_large else there.oid
            answer.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.json({"files": answer})

    def writable(
        self, kind: str, name: str, revision: str | None
    ) -> tuple[Repo, str, dict[str, Blob]] | None:
        found = self.state(kind, name, revision)
        if found is not None and not self.may_write(name):
            self.refuse(403, "Authorization error: this token may not write here")
            return None
        return found

    def batch(self, prefix: str | None, name: str) -> None:
        if self.writable("datasets" if prefix else "models", name, None) is None:
            return
        place = f"{prefix or 'models/'}{name}"
        here = f"http://127.0.0.1:{self.store.port}/lfs/{place}"
        objects = []
        for asked in json.loads(self.body)["objects"]:
            oid, size = asked["oid"], asked["size"]
            entry: dict[str, Any] = {"oid": oid, "size": size}
            if (place, oid) not in self.store.large:
                upload: dict[str, Any] = {"href": f"{here}/{oid}"}
                if size > PART:
                    pieces = {f"{n + 1:05d}": f"{here}/{oid}/{n + 1}" for n in range(-(-size // PART))}
                    upload = {"href": f"{here}/{oid}/complete", "header": {"chunk_size": str(PART), **pieces}}
                entry["actions"] = {"upload": upload, "verify": {"href": f"{here}/{oid}/verify"}}
            objects.append(entry)
        self.json({"transfer": "basic", "objects": objects})

    def put(self, place: str, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.refuse(400, "The content is not what was announced")
        self.store.large[place, oid] = self.body
        self.send(200, b"", "text/plain")

    def put_part(self, place: str, oid: str, number: str) -> None:
        self.store.parts[oid, int(number)] = self.body
        self.send(200, b"", "text/plain", {"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})

    def complete(self, place: str, oid: str) -> None:
        numbers = [part["partNumber"] for part in json.loads(self.body)["parts"]]
        self.body = b"".join(self.store.parts.pop((oid, number)) for number in numbers)
        self.put(place, oid)

    def verify(self, place: str, oid: str) -> None:
        is_there = len(self.store.large.get((place, oid), b"")) == json.loads(self.body)["size"]
        self.json({}) if is_there else self.refuse(404, "Not found")

    def commit(self, kind: str, name: str, revision: str) -> None:
        found = self.writable(kind, name, revision)
        if found is None:
            return
        repo, head, tree = found
        tree = dict(tree)
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header" and value.get("parentCommit", head) != head:
                return self.refuse(412, "A commit has happened since. Please refresh and try again.")
            if entry["key"] == "file":
                tree[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            if entry["key"] == "lfsFile":
                content = self.store.large.get((f"{kind}/{name}", value["oid"]))
                if content is None:
                    return self.refuse(400, f"LFS object {value['oid']} was not uploaded")
                tree[value["path"]] = Blob(content, True)
            if entry["key"] == "deletedFile":
                del tree[value["path"]]
        commit = hashlib.sha1(self.body + head.encode()).hexdigest()
        repo.commits[commit] = tree
        repo.refs[unquote(revision)] = commit
        url = f"http://127.0.0.1:{self.store.port}/{name}/commit/{commit}"
        self.json({"success": True, "commitUrl": url, "commitOid": commit, "hookOutput": ""})

    # downloads -----------------------------------------------------------------------------------------------

    def tree(self, kind: str, name: str, revision: str, below: str | None) -> None:
        if (found := self.state(kind, name, revision)) is None:
            return
        start = f"{below}/" if below else ""
        names = [path for path in sorted(found[2]) if path.startswith(start)]
        if below and not names:
            return self.refuse(404, f"{below} does not exist", "EntryNotFound")
        is_deep = parse_qs(self.url.query).get("recursive", ["false"])[0].lower() == "true"
        folders = sorted({path[:i] for path in names for i in range(len(start), len(path)) if path[i] == "/"})
        entries = [{"type": "directory", "path": folder, "oid": "0" * 40, "size": 0} for folder in folders]
        entries += [self.entry(path, found[2][path]) for path in names]
        self.json([one for one in entries if is_deep or "/" not in one["path"][len(start) :]])

    @staticmethod
    def entry(path: str, blob: Blob) -> dict[str, Any]:
        value: dict[str, Any] = {"type": "file", "path": path, "oid": blob.oid, "size": len(blob.content)}
        if blob.is_large:
            value["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 130}
        return value

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        if (found := self.state(kind, name, revision)) is None:
            return
        text = self.body.decode()
        asked = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
        tree = found[2]
        entries = [self.entry(path, tree[path]) for path in asked if path in tree]
        folders = [one for one in asked if any(path.startswith(f"{one}/") for path in tree)]
        entries += [{"type": "directory", "path": one, "oid": "0" * 40, "size": 0} for one in folders]
        self.json(entries)

    def resolve(self, prefix: str | None, name: str, revision: str, path: str) -> None:
        if (found := self.state("datasets" if prefix else "models", name, revision)) is None:
            return
        blob = found[2].get(path)
        commit = {"X-Repo-Commit": found[1]}
        if blob is None:
            self.refuse(404, "Entry not found", "EntryNotFound", commit)
        elif blob.is_large:  # kept elsewhere, where nobody asks for a token
            place = f"{prefix or 'models/'}{name}"
            self.store.large[place, blob.sha256] = blob.content
            there = f"http://localhost:{self.store.port}/cdn/{place}/{blob.sha256}?name={quote(path)}"
            linked = {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content))}
            self.send(302, b"", "text/plain", {**commit, **linked, "Location": there})
        else:
            self.content(blob.content, blob.etag, commit)

    def cdn(self, place: str, oid: str) -> None:
        self.content(self.store.large[place, oid], oid, {})

    def content(self, content: bytes, etag: str, more: dict[str, str]) -> None:
        headers = {
            "ETag": f'"{etag}"',
            "Accept-Ranges": "bytes",
            "Last-Modified": formatdate(0, usegmt=True),
            **more,
        }
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self.send(200, content, "application/octet-stream", headers)
        start, end = int(asked[1]), min(len(content), int(asked[2]) + 1 if asked[2] else len(content))
        if start >= len(content):
            return self.send(416, b"", "text/plain", {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        return self.send(206, content[start:end], "application/octet-stream", headers)

    # answers -------------------------------------------------------------------------------------------------

    def json(self, value: Any, status: int = 200, more: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), "application/json", more)

    def refuse(self, status: int, words: str, code: str = "", more: dict[str, str] | None = None) -> None:
        headers = {"X-Error-Message": words, **({"X-Error-Code": code} if code else {}), **(more or {})}
        self.json({"error": words}, status, headers)

    def send(self, status: int, content: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        self.answered = status
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(more or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: self.cut])
            self.close_connection = self.close_connection or self.cut is not None


if __name__ == "__main__":
    Hub.store = Store()
    for person in Path(sys.argv[1]).iterdir():
        for one in person.iterdir():
            Hub.store.add_folder(one)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.store.port = server.server_address[1]
    print(f"http://127.0.0.1:{Hub.store.port}", flush=True)
    server.serve_forever()
