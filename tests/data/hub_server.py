"""A small Hugging Face Hub on this machine: enough of its protocol to download one data set, at a tag or at main.

Started by test_hub_table.py as a process of its own: `python hub_server.py FOLDER` serves FOLDER/user/name/… and prints
its address. Every request is printed to standard error.
"""

import hashlib
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

COMMITS = {"main": "0123456789abcdef0123456789abcdef01234567", "v1": "1" * 40}
COMMITS |= {commit: commit for commit in COMMITS.values()}


class Hub(BaseHTTPRequestHandler):
    root: Path
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.answer(body)

    def answer(self, body: str = "") -> None:
        path = unquote(urlparse(self.path).path)
        if match := re.fullmatch(r"/datasets/(\w+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            self.file(*match.groups())
        elif match := re.fullmatch(
            r"/api/datasets/(\w+/[\w.-]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path
        ):
            repo, what, revision, below = match.groups()
            if not (self.root / repo).is_dir():
                self.refuse("RepoNotFound")
            elif revision is not None and revision not in COMMITS:
                self.refuse("RevisionNotFound")
            elif what in ("tree", "paths-info"):
                wanted = [below] if what == "tree" and below else []
                if what == "paths-info":
                    wanted = re.findall(r"paths=([^&]+)", body) or json.loads(body or "{}").get("paths", [])
                    wanted = [unquote(one) for one in wanted]
                self.listing(repo, wanted, exact=what == "paths-info")
            else:
                names = [
                    str(p.relative_to(self.root / repo)) for p in (self.root / repo).rglob("*") if p.is_file()
                ]
                self.json(
                    {
                        "id": repo,
                        "sha": COMMITS[revision or "main"],
                        "siblings": [{"rfilename": name} for name in names],
                        "private": False,
                        "disabled": False,
                        "downloads": 0,
                        "likes": 0,
                        "tags": [],
                        "cardData": {"license": "cc-by-nc-4.0"},
                    }
                )
        else:
            self.refuse("EntryNotFound")

    def listing(self, repo: str, wanted: list[str], *, exact: bool) -> None:
        entries = []
        for path in sorted((self.root / repo).rglob("*")):
            name = path.relative_to(self.root / repo).as_posix()
            if wanted and not any(
                name == one or (not exact and name.startswith(one + "/")) for one in wanted
            ):
                continue
            if path.is_dir():
                entries.append({"type": "directory", "path": name, "oid": "0" * 40, "size": 0})
            else:
                oid = hashlib.sha1(path.read_bytes()).hexdigest()
                entries.append({"type": "file", "path": name, "oid": oid, "size": path.stat().st_size})
        if wanted and not entries and not exact:
            self.refuse("EntryNotFound")
        else:
            self.json(entries)

    def file(self, repo: str, revision: str, name: str) -> None:
        path = self.root / repo / name
        if not (self.root / repo).is_dir():
            self.refuse("RepoNotFound")
        elif revision not in COMMITS:
            self.refuse("RevisionNotFound")
        elif not path.is_file():
            self.refuse("EntryNotFound")
        else:
            self.send(
                200, path.read_bytes(), "application/octet-stream", {"X-Repo-Commit": COMMITS[revision]}
            )

    def json(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), "application/json")

    def refuse(self, code: str) -> None:
        self.send(404, json.dumps({"error": code}).encode(), "application/json", {"X-Error-Code": code})

    def send(self, status: int, content: bytes, kind: str, more: dict[str, str] | None = None) -> None:
        start, end = 0, len(content)
        if asked := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(asked[1]), min(end, int(asked[2]) + 1 if asked[2] else end)
            status = 206
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(end - start),
            "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
            **(more or {}),
        }
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[start:end])


if __name__ == "__main__":
    Hub.root = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
