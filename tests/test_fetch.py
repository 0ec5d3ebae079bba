"""Hub models: the real huggingface_hub client against a small local server that speaks its HTTP API."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from stub_hub import Hub, Repo, serving

COMMIT = Repo({"main": {}}).commit("main")
CODE = """
import sys
from runner.fetch import FILES, TOKENIZER_FILES, fetch
from spool.protocol.errors import ModelError
try:
    revision = next((word for word in sys.argv[2:] if len(word) == 40), None)
    folder, commit = fetch(sys.argv[1], TOKENIZER_FILES if "tokenizer" in sys.argv else FILES, revision=revision)
    print("ok", commit, sorted(p.name for p in folder.iterdir()))
except ModelError as error:
    print(error.code, error.message, error.hint)
"""


@pytest.fixture
def hub(tiny_gemma: Path) -> Iterator[Hub]:
    files = {path.name: path.read_bytes() for path in tiny_gemma.iterdir()} | {"pytorch_model.bin": b"never"}
    with serving() as hub:
        hub.repos = {
            "models/org/tiny": Repo({"main": files}),
            "models/org/gated": Repo({"main": files}, refuses=(403, "GatedRepo")),
            "models/org/refused": Repo({"main": files}, refuses=(403, "")),
            "models/org/tired": Repo({"main": files}, refuses=(503, "")),
            "models/org/asked": Repo({"main": files}, refuses=(429, "")),
            "models/org/teapot": Repo({"main": files}, refuses=(418, "")),
        }
        yield hub


def files(hub: Hub) -> dict[str, bytes]:
    return hub.repos["models/org/tiny"].revisions["main"]


def fetched(endpoint: str, hub_id: str, cache: Path, *more: str) -> str:
    environment = {"PATH": "", "HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", CODE, hub_id, *more]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_hub_model_is_fetched_by_commit_without_pickled_weights(hub: Hub, tmp_path: Path) -> None:
    told = fetched(hub.endpoint, "org/tiny", tmp_path)
    assert told.startswith(f"ok {COMMIT}")
    assert "model.safetensors" in told
    assert "pytorch_model.bin" not in told


def test_a_check_fetches_the_tokenizer_alone_and_training_the_rest(hub: Hub, tmp_path: Path) -> None:
    files(hub)["chat_template.jinja"] = b"{{ bos_token }}"
    told = fetched(hub.endpoint, "org/tiny", tmp_path, "tokenizer")
    assert told == f"ok {COMMIT} ['chat_template.jinja', 'config.json', 'tokenizer.json', 'tokenizer_config.json']"
    assert "model.safetensors" in fetched(hub.endpoint, "org/tiny", tmp_path)


def test_a_model_without_safetensors_is_refused_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    del files(hub)["model.safetensors"]
    for more in ((), ("tokenizer",)):
        assert fetched(hub.endpoint, "org/tiny", tmp_path, *more).startswith(
            "no_safetensors org/tiny has no safetensors"
        )
    assert not list(tmp_path.rglob("config.json"))


def test_what_the_hub_refuses_is_said_in_words(hub: Hub, tmp_path: Path) -> None:
    assert fetched(hub.endpoint, "org/absent", tmp_path).startswith("model_missing the hub knows no model 'org/absent'")
    assert fetched(hub.endpoint, "org/gated", tmp_path).startswith("model_gated org/gated is gated")
    assert fetched("http://127.0.0.1:9", "org/tiny", tmp_path).startswith("no_network the hub cannot be reached")


def test_each_refusal_has_its_code_and_only_some_pass_by_themselves(hub: Hub, tmp_path: Path) -> None:
    for name, code in (("refused", "token_rejected"), ("tired", "hub_busy"), ("asked", "hub_busy")):
        assert fetched(hub.endpoint, f"org/{name}", tmp_path).startswith(f"{code} the hub")
    assert fetched(hub.endpoint, "org/teapot", tmp_path).startswith("hub_error the hub answered")


def test_weights_that_arrive_damaged_are_not_used_and_fetched_again(hub: Hub, tmp_path: Path) -> None:
    repo = hub.repos["models/org/tiny"]
    repo.damaged = {"model.safetensors"}
    told = fetched(hub.endpoint, "org/tiny", tmp_path)
    assert told.startswith("hub_busy model.safetensors of org/tiny arrived damaged")
    assert not list(tmp_path.rglob("model.safetensors"))
    repo.damaged = set()
    assert fetched(hub.endpoint, "org/tiny", tmp_path).startswith("ok")
    whole = next(tmp_path.rglob("model.safetensors"))
    assert whole.read_bytes() == files(hub)["model.safetensors"]
    whole.resolve().write_bytes(b"cut")
    assert fetched(hub.endpoint, "org/tiny", tmp_path).startswith("hub_busy")


def test_a_second_attempt_uses_the_commit_of_the_first_and_needs_no_hub(hub: Hub, tmp_path: Path) -> None:
    assert fetched(hub.endpoint, "org/tiny", tmp_path, COMMIT).startswith(f"ok {COMMIT}")
    assert fetched("http://127.0.0.1:9", "org/tiny", tmp_path, COMMIT).startswith(f"ok {COMMIT}")


def test_a_full_disk_is_not_called_a_lost_network() -> None:
    import errno

    from runner.fetch import _in_words

    full = OSError(errno.ENOSPC, "No space left on device")
    lost = FileNotFoundError("cannot find the file locally")
    lost.__cause__ = full
    assert [_in_words("org/tiny", error).code for error in (full, lost)] == ["disk_full", "disk_full"]


def test_a_long_download_says_how_far_it_is_now_and_then() -> None:
    from runner.fetch import Arrival

    now, said = [0.0], []
    arrival = Arrival(said.append, clock=lambda: now[0])
    arrival.expect(8_600_000_000)
    for second in range(0, 101):
        now[0] = float(second)
        arrival.look(86_000_000 * second)
    assert said[:3] == ["0.4 of 8.6 GB", "0.9 of 8.6 GB", "1.3 of 8.6 GB"]
    assert len(said) == 20


def test_the_hub_client_tells_of_its_bytes(hub: Hub, tmp_path: Path) -> None:
    """Each look is let through here: what is said ends with the size of all files."""
    code = CODE.replace("folder, commit = fetch(", "fetch_module.Arrival.look = look\n    folder, commit = fetch(")
    code = "import runner.fetch as fetch_module\ndef look(self, n): print('bytes', int(n), self.total_bytes)\n" + code
    environment = {"PATH": "", "HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", code, "org/tiny"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=True)
    told = [line.split() for line in done.stdout.splitlines() if line.startswith("bytes")]
    assert told, done.stdout
    assert told[-1][1] == told[-1][2]
