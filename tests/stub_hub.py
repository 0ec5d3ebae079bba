"""A small server that speaks the hub's HTTP API, for the real huggingface_hub client."""

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote


@dataclass
class Repo:
    """One repository: for each revision its files; what is special about it."""

    revisions: dict[str, dict[str, bytes]]
    card: dict[str, Any] | None = None
    refuses: tuple[int, str] | None = None
    """(HTTP status, X-Error-Code) of every answer."""
    damaged: set[str] = field(default_factory=set)
    """Files that arrive in their full length with their last bytes wrong."""
    gated: bool = False
    """Anybody may ask what it holds, nobody may have it: as the real one, whose terms were not accepted."""
    stalls: dict[str, int] = field(default_factory=dict)
    """Of a file so many bytes come, then nothing more as long as the hub lives."""
    private: bool = False
    commits: list[str] = field(default_factory=list)
    """The message of each commit that was pushed."""

    def commit(self, revision: str) -> str | None:
        """The commit that a branch, tag or commit names."""
        told = "".join(self.commits)
        known = {hashlib.sha1((name + told).encode()).hexdigest(): name for name in self.revisions}
        return revision if revision in known else next((sha for sha, name in known.items() if name == revision), None)

    def files(self, commit: str) -> dict[str, bytes]:
        return next(files for name, files in self.revisions.items() if self.commit(name) == commit)


@dataclass
class Trouble:
    """What goes wrong with a step of a push: an HTTP status, "cut" (the connection ends in the middle of the body) or
    "silence" (no answer as long as the hub lives)."""

    how: int | str
    after: int = 0
    """So many go well before."""
    times: int = 1_000_000
    headers: dict[str, str] = field(default_factory=dict)
    said: str = "no"

    def due(self) -> bool:
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return self.times >= 0


@dataclass
class Hub:
    """What the server holds ("datasets/org/name" -> repository), and which files it was asked for."""

    repos: dict[str, Repo] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    """What was asked for of files that come in parts."""
    endpoint: str = ""
    token: str = ""
    """The one that may push."""
    role: str = "write"
    trouble: dict[str, Trouble] = field(default_factory=dict)
    """By step: whoami, create, info, yaml, preupload, batch, put, complete, verify or commit."""
    asked: list[str] = field(default_factory=list)
    """Each step that was asked for, in order."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by their SHA-256, as they were uploaded; they need no commit to be kept."""
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    part_bytes: int = 1 << 20
    """What is larger is uploaded in parts of this size."""
    put_bytes: int = 0
    """How much was uploaded, all tries together."""
    over: threading.Event = field(default_factory=threading.Event)


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
        hub.over.set()
        server.shutdown()
        server.server_close()


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def entry(name: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(data), "oid": oid(data)}


def large(name: str, data: bytes) -> dict[str, Any]:
    """What the hub adds for weights, when it is asked for ?blobs=true."""
    known = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return {"lfs": known} if is_large(name) else {}


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".gguf"))


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET(head=True)

    def do_GET(self, head: bool = False) -> None:
        words = unquote(self.path.partition("?")[0]).strip("/").split("/")
        if words == ["api", "whoami-v2"]:
            self.step("whoami", lambda: {"name": "tester", "auth": {"accessToken": {"role": self.hub.role}}})
            return
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
            given = self.headers.get("Authorization")
            if repo.private and given != f"Bearer {self.hub.token}":
                self.refuse(401, f"Invalid credentials: {given}")
            elif not self.troubled("info"):
                self.told(repo, "/".join(words[:2]), rest, head)
        else:
            self.file(repo, rest, head)

    def told(self, repo: Repo, name: str, rest: list[str], head: bool) -> None:
        """/api/datasets/ORG/NAME[/revision/REVISION] and .../tree/COMMIT"""
        folder = "".join(f"{each}/" for each in rest[2:]) if rest[:1] == ["tree"] and repo.commit(rest[1]) else ""
        commit = repo.commit(rest[1] if folder else "/".join(rest[1:]) or "main")
        if commit is None:
            self.answer(404, b"", head, {"X-Error-Code": "RevisionNotFound"})
            return
        files = repo.files(commit)
        body: Any = [entry(n, d) for n, d in files.items() if n.startswith(folder)]
        if rest[:1] != ["tree"]:
            siblings = [{"rfilename": n, "size": len(d), **large(n, d)} for n, d in files.items()]
            body = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": repo.private}
            body |= {"cardData": repo.card} if repo.card else {}
        self.answer(200, json.dumps(body).encode(), head, {"Content-Type": "application/json"})

    def file(self, repo: Repo, rest: list[str], head: bool) -> None:
        """ORG/NAME/resolve/COMMIT/PATH"""
        commit, path = repo.commit(rest[1]) or "", "/".join(rest[2:])
        data = repo.files(commit).get(path)
        if data is None:
            self.answer(404, b"", head, {"X-Error-Code": "EntryNotFound"})
            return
        if repo.gated:
            self.answer(401, b"", head, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
            return
        self.hub.fetched += [] if head else [path]
        known = hashlib.sha256(data).hexdigest() if is_large(path) else oid(data)
        headers = {"ETag": f'"{known}"', "X-Repo-Commit": commit}
        if path in repo.damaged:
            data = data[:-8] + b"damaged!"
        if path in repo.stalls and not head:
            self.stall(data, repo.stalls[path], headers)
            return
        status, asked = 200, self.headers.get("Range")
        if asked and not head:
            self.hub.ranges.append(asked)
            begin = int(asked.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            status, data = 206, data[begin:]
        self.answer(status, data, head, headers)

    def stall(self, data: bytes, after: int, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:after])
        self.hub.over.wait(60)

    def paths(self, repo: Repo, revision: str, names: list[str]) -> None:
        files = repo.files(repo.commit(revision) or "")
        found = [entry(n, files[n]) for n in names if n in files]
        inside = [n for n in names if any(file.startswith(f"{n}/") for file in files)]
        found += [{"type": "directory", "path": n, "oid": oid(n.encode())} for n in inside]
        self.answer(200, json.dumps(found).encode(), False, {"Content-Type": "application/json"})

    # ---- pushing

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        words = unquote(self.path.partition("?")[0]).strip("/").split("/")
        if words[:2] == ["lfs", "complete"]:
            self.step("complete", lambda: self.complete(words[2], json.loads(body)))
        elif words == ["lfs", "verify"]:
            self.step("verify", lambda: self.verify(json.loads(body)))
        elif words == ["api", "repos", "create"]:
            self.step("create", lambda: self.create(json.loads(body)))
        elif words == ["api", "validate-yaml"]:
            self.step("yaml", lambda: self.card(json.loads(body)["content"]))
        elif words[-3:] == ["lfs", "objects", "batch"]:
            self.step("batch", lambda: self.batch(json.loads(body)))
        elif words[4:5] == ["paths-info"]:
            self.paths(self.hub.repos["/".join(words[1:4])], words[5], parse_qs(body.decode()).get("paths", []))
        elif words[4:5] == ["preupload"]:
            self.step("preupload", lambda: self.preupload(self.named(words), json.loads(body)))
        elif words[4:5] == ["commit"]:
            self.step("commit", lambda: self.commit(self.named(words), [json.loads(x) for x in body.splitlines()]))
        else:
            self.answer(404, b"", False, {})

    def do_PUT(self) -> None:
        """/lfs/put/OID[/PART]: a signed address, which needs no token."""
        length = int(self.headers["Content-Length"])
        trouble = self.hub.trouble.get("put")
        if trouble and trouble.how == "cut" and trouble.due():
            self.hub.asked.append("put")
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        self.hub.put_bytes += len(body)
        _, _, oid, *part = self.path.partition("?")[0].strip("/").split("/")
        self.step("put", lambda: self.put(oid, body, part), signed=True)

    def step(self, name: str, answer: Callable[[], Any], signed: bool = False) -> None:
        """Answers, or does what is to go wrong. A refusal says the token back, as no hub should."""
        self.hub.asked.append(name)
        if self.troubled(name):
            return
        given = self.headers.get("Authorization")
        if not signed and name != "complete" and self.hub.token and given != f"Bearer {self.hub.token}":
            self.refuse(401, f"Invalid credentials: {given}")
            return
        found = answer()
        status, body = found if isinstance(found, tuple) else (200, found)
        etag = {"ETag": '"part"'} if signed else {}
        self.answer(status, json.dumps(body).encode(), False, {"Content-Type": "application/json", **etag})

    def troubled(self, name: str) -> bool:
        trouble = self.hub.trouble.get(name)
        if not trouble or (name == "put" and trouble.how == "cut") or not trouble.due():
            return False
        if trouble.how == "silence":
            self.hub.over.wait(60)
        elif trouble.how == "cut":
            self.close_connection = True
        else:
            given = self.headers.get("Authorization")
            self.refuse(int(trouble.how), f"{trouble.said} (asked with {given})", trouble.headers)
        return True

    def refuse(self, status: int, said: str, headers: dict[str, str] | None = None) -> None:
        told = {"Content-Type": "application/json", "X-Error-Message": said, **(headers or {})}
        self.answer(status, json.dumps({"error": said}).encode(), False, told)

    def card(self, text: str) -> Any:
        """As the real one: a base that could not be on the hub makes the whole card invalid."""
        base = re.search("^base_model: (.*)$", text, re.M)
        if base and not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", base[1]):
            said = f'"base_model" with value "{base[1]}" is not valid. Use a model id from https://hf.co/models.'
            return 400, {"errors": [{"message": said}], "warnings": []}
        return {"errors": [], "warnings": []}

    def named(self, words: list[str]) -> Repo:
        return self.hub.repos[f"models/{words[2]}/{words[3]}"]

    def create(self, asked: dict[str, Any]) -> Any:
        name = f"{asked['organization']}/{asked['name']}"
        told = {"url": f"{self.hub.endpoint}/{name}"}
        if f"models/{name}" in self.hub.repos:
            return 409, {**told, "error": "You already created this model repo"}
        self.hub.repos[f"models/{name}"] = Repo({"main": {".gitattributes": b""}})
        self.hub.repos[f"models/{name}"].private = asked.get("visibility") == "private"
        return told

    def preupload(self, repo: Repo, asked: dict[str, Any]) -> Any:
        there = repo.revisions["main"]

        def told(path: str) -> dict[str, Any]:
            mode = "lfs" if is_large(path) else "regular"
            known = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            data = there.get(path)
            if data is None:
                return known
            blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            return {**known, "oid": hashlib.sha256(data).hexdigest() if is_large(path) else blob}

        return {"files": [told(each["path"]) for each in asked["files"]]}

    def batch(self, asked: dict[str, Any]) -> Any:
        return {"transfer": "multipart", "objects": [self.upload(each) for each in asked["objects"]]}

    def upload(self, known: dict[str, Any]) -> dict[str, Any]:
        oid, size, at = known["oid"], known["size"], self.hub.endpoint
        if oid in self.hub.stored:
            return known
        verify = {"href": f"{at}/lfs/verify"}
        signed = "?X-Amz-Signature=0123456789abcdef"
        if size <= self.hub.part_bytes:
            return {**known, "actions": {"upload": {"href": f"{at}/lfs/put/{oid}{signed}"}, "verify": verify}}
        count = -(-size // self.hub.part_bytes)
        parts = {f"{part:05}": f"{at}/lfs/put/{oid}/{part}{signed}" for part in range(1, count + 1)}
        header = {"chunk_size": str(self.hub.part_bytes), **parts}
        return {
            **known,
            "actions": {"upload": {"href": f"{at}/lfs/complete/{oid}", "header": header}, "verify": verify},
        }

    def put(self, oid: str, data: bytes, part: list[str]) -> Any:
        if part:
            self.hub.parts.setdefault(oid, {})[int(part[0])] = data
        else:
            self.hub.stored[oid] = data
        return {}

    def complete(self, oid: str, asked: dict[str, Any]) -> Any:
        parts = self.hub.parts.pop(oid)
        assert [each["partNumber"] for each in asked["parts"]] == sorted(parts)
        self.hub.stored[oid] = b"".join(parts[number] for number in sorted(parts))
        return {}

    def verify(self, asked: dict[str, Any]) -> Any:
        data = self.hub.stored.get(asked["oid"], b"")
        whole = hashlib.sha256(data).hexdigest() == asked["oid"] and len(data) == asked["size"]
        return {} if whole else (400, {"error": "the upload is not what was announced"})

    def commit(self, repo: Repo, lines: list[dict[str, Any]]) -> Any:
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repo.commit("main")):
            return 412, {"error": "A commit has happened since."}
        files = dict(repo.revisions["main"])
        for line in lines[1:]:
            path, value = line["value"]["path"], line["value"]
            if line["key"] == "deletedFile":
                del files[path]
            elif line["key"] == "lfsFile":
                files[path] = self.hub.stored[value["oid"]]
            else:
                files[path] = base64.b64decode(value["content"])
        repo.revisions["main"] = files
        repo.commits.append(header["summary"])
        sha = repo.commit("main")
        return {
            "commitUrl": f"{self.hub.endpoint}/{'/'.join(self.path.split('/')[3:5])}/commit/{sha}",
            "commitOid": sha,
            "success": True,
        }

    # ----

    def answer(self, status: int, body: bytes, head: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
