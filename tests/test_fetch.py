"""Hub models: the real huggingface_hub client against a small local server that speaks its HTTP API."""

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

COMMIT = "a" * 40
CODE = """
import sys
from runner.fetch import FILES, TOKENIZER_FILES, fetch
from spool.protocol.errors import ModelError
try:
    folder, commit = fetch(sys.argv[1], TOKENIZER_FILES if sys.argv[2:] else FILES)
    print("ok", commit, sorted(p.name for p in folder.iterdir()))
except ModelError as error:
    print(error.code, error.message, error.hint)
"""


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    files: dict[str, bytes] = {}  # noqa: RUF012

    def do_HEAD(self) -> None:
        self.do_GET(head=True)

    def do_GET(self, head: bool = False) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/tiny/tree/"):
            tree = [{"type": "file", "path": n, "size": len(d), "oid": oid(d)} for n, d in self.files.items()]
            self.answer(200, json.dumps(tree).encode(), head, {"Content-Type": "application/json"})
        elif path.startswith("/api/models/org/tiny"):
            names = [{"rfilename": name} for name in self.files]
            body = {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": names, "private": False}
            self.answer(200, json.dumps(body).encode(), head, {"Content-Type": "application/json"})
        elif path.startswith(f"/org/tiny/resolve/{COMMIT}/"):
            data = self.files[path.rpartition("/")[2]]
            self.answer(200, data, head, {"ETag": f'"{oid(data)}"', "X-Repo-Commit": COMMIT})
        elif "gated" in path:
            self.answer(403, b"", head, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        else:
            self.answer(404, b"", head, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such repository"})

    def answer(self, status: int, body: bytes, head: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tiny_gemma: Path) -> Iterator[str]:
    Hub.files = {path.name: path.read_bytes() for path in tiny_gemma.iterdir()} | {"pytorch_model.bin": b"never"}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def fetched(endpoint: str, hub_id: str, cache: Path, *more: str) -> str:
    environment = {"PATH": "", "HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", CODE, hub_id, *more]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_hub_model_is_fetched_by_commit_without_pickled_weights(hub: str, tmp_path: Path) -> None:
    told = fetched(hub, "org/tiny", tmp_path)
    assert told.startswith(f"ok {COMMIT}")
    assert "model.safetensors" in told
    assert "pytorch_model.bin" not in told


def test_a_check_fetches_the_tokenizer_alone_and_training_the_rest(hub: str, tmp_path: Path) -> None:
    Hub.files["chat_template.jinja"] = b"{{ bos_token }}"
    told = fetched(hub, "org/tiny", tmp_path, "tokenizer")
    assert told == f"ok {COMMIT} ['chat_template.jinja', 'config.json', 'tokenizer.json', 'tokenizer_config.json']"
    assert "model.safetensors" in fetched(hub, "org/tiny", tmp_path)


def test_a_model_without_safetensors_is_refused_before_anything_is_fetched(hub: str, tmp_path: Path) -> None:
    del Hub.files["model.safetensors"]
    for more in ((), ("tokenizer",)):
        assert fetched(hub, "org/tiny", tmp_path, *more).startswith("no_safetensors org/tiny has no safetensors")
    assert not list(tmp_path.rglob("config.json"))


def test_what_the_hub_refuses_is_said_in_words(hub: str, tmp_path: Path) -> None:
    assert fetched(hub, "org/absent", tmp_path).startswith("model_missing the hub knows no model 'org/absent'")
    assert fetched(hub, "org/gated", tmp_path).startswith("model_gated org/gated is gated")
    assert fetched("http://127.0.0.1:9", "org/tiny", tmp_path).startswith("no_network the hub cannot be reached")
