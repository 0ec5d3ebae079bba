"""A small server that speaks the hub's HTTP API, for the real huggingface_hub client."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote


@dataclass
class Repo:
    """One repository: for each revision its files; what is special about it."""

    revisions: dict[str, dict[str, bytes]]
    card: dict[str, Any] | None = None
    refuses: tuple[int, str] | None = None
    """(HTTP status, X-Error-Code) of every answer."""
    damaged: set[str] = field(default_factory=set)
    """Files that arrive in their full length with their last bytes wrong."""

    def commit(self, revision: str) -> str | None:
        """The commit that a branch, tag or commit names."""
        known = {hashlib.sha1(name.encode()).hexdigest(): name for name in self.revisions}
        return revision if revision in known else next((sha for sha, name in known.items() if name == revision), None)

    def files(self, commit: str) -> dict[str, bytes]:
        return next(files for name, files in self.revisions.items() if self.commit(name) == commit)


@dataclass
class Hub:
    """What the server holds ("datasets/org/name" -> repository), and which files it was asked for."""

    repos: dict[str, Repo] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    endpoint: str = ""


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that lives as long as the block; its connections are refused afterwards."""
    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def large(name: str, data: bytes) -> dict[str, Any]:
    """What the hub adds for weights, when it is asked for ?blobs=true."""
    known = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return {"lfs": known} if name.endswith(".safetensors") else {}


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET(head=True)

    def do_GET(self, head: bool = False) -> None:
        words = unquote(self.path.partition("?")[0]).strip("/").split("/")
        api = words[:1] == ["api"]
        words = words[1:] if api else words
        kind = words.pop(0) if words[0] in ("models", "datasets") else "models"
        repo, rest = self.hub.repos.get(f"{kind}/{'/'.join(words[:2])}"), words[2:]
        if repo is None:
            self.answer(404, b"", head, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such repository"})
        elif repo.refuses:
            status, code = repo.refuses
            self.answer(status, b"", head, {"X-Error-Code": code} if code else {})
        elif api:
            self.told(repo, "/".join(words[:2]), rest, head)
        else:
            self.file(repo, rest, head)

    def told(self, repo: Repo, name: str, rest: list[str], head: bool) -> None:
        """/api/datasets/ORG/NAME[/revision/REVISION] and .../tree/COMMIT"""
        commit = repo.commit("/".join(rest[1:]) or "main")
        if commit is None:
            self.answer(404, b"", head, {"X-Error-Code": "RevisionNotFound"})
            return
        files = repo.files(commit)
        body: Any = [{"type": "file", "path": n, "size": len(d), "oid": oid(d)} for n, d in files.items()]
        if rest[:1] != ["tree"]:
            siblings = [{"rfilename": n, "size": len(d), **large(n, d)} for n, d in files.items()]
            body = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": False}
            body |= {"cardData": repo.card} if repo.card else {}
        self.answer(200, json.dumps(body).encode(), head, {"Content-Type": "application/json"})

    def file(self, repo: Repo, rest: list[str], head: bool) -> None:
        """ORG/NAME/resolve/COMMIT/PATH"""
        data, path = repo.files(rest[1])["/".join(rest[2:])], "/".join(rest[2:])
        self.hub.fetched += [] if head else [path]
        if path in repo.damaged:
            data = data[:-8] + b"damaged!"
        self.answer(200, data, head, {"ETag": f'"{oid(repo.files(rest[1])[path])}"', "X-Repo-Commit": rest[1]})

    def answer(self, status: int, body: bytes, head: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
