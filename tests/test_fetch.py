"""Hub models: the real huggingface_hub client against a small local server that speaks its HTTP API."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
    free = next((float(word[5:]) for word in sys.argv[2:] if word.startswith("free=")), 0.0)
    which = TOKENIZER_FILES if "tokenizer" in sys.argv else FILES
    folder, commit = fetch(sys.argv[1], which, revision=revision, min_free_gb=free)
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
            "models/google/gemma-3-1b-it": Repo({"main": files}, gated=True),
            "models/org/refused": Repo({"main": files}, refuses=(403, "")),
            "models/org/tired": Repo({"main": files}, refuses=(503, "")),
            "models/org/asked": Repo({"main": files}, refuses=(429, "")),
            "models/org/teapot": Repo({"main": files}, refuses=(418, "")),
        }
        yield hub


def files(hub: Hub) -> dict[str, bytes]:
    return hub.repos["models/org/tiny"].revisions["main"]


def begun(endpoint: str, hub_id: str, cache: Path, *more: str) -> subprocess.Popen[str]:
    environment = {"PATH": "", "HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", CODE, hub_id, *more]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def fetched(endpoint: str, hub_id: str, cache: Path, *more: str) -> str:
    with begun(endpoint, hub_id, cache, *more) as process:
        try:
            told, complained = process.communicate(timeout=90)
        finally:
            process.kill()
    assert process.returncode == 0, complained
    return told.strip()


def sizes(cache: Path) -> list[int]:
    """Of what has been begun."""
    return [path.stat().st_size for path in cache.rglob("*.begun")]


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


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


def test_a_gated_model_says_where_to_accept_its_terms_and_what_to_take_instead(hub: Hub, tmp_path: Path) -> None:
    for more in ((), ("tokenizer",)):
        told = fetched(hub.endpoint, "google/gemma-3-1b-it", tmp_path, *more)
        assert told.startswith("model_gated google/gemma-3-1b-it is gated")
        assert "1. Sign in at https://huggingface.co/google/gemma-3-1b-it and accept its terms." in told
        assert "3. Set it as HF_TOKEN for the runner" in told
        assert told.endswith("Or take unsloth/gemma-3-1b-it, a copy that asks for no account.")


def test_a_download_that_was_killed_goes_on_where_it_was(hub: Hub, tmp_path: Path) -> None:
    weights = bytes(range(256)) * 4096 * 6
    repo = hub.repos["models/org/tiny"]
    files(hub)["model.safetensors"] = weights
    repo.stalls = {"model.safetensors": len(weights) // 2}
    running = begun(hub.endpoint, "org/tiny", tmp_path)
    try:
        wait_until(lambda: sizes(tmp_path) == [len(weights) // 2])
    finally:
        running.kill()
        running.wait(30)
    repo.stalls, hub.ranges = {}, []
    assert fetched(hub.endpoint, "org/tiny", tmp_path).startswith("ok")
    assert hub.ranges == [f"bytes={len(weights) // 2}-"]
    assert next(tmp_path.rglob("model.safetensors")).read_bytes() == weights
    assert sizes(tmp_path) == []


def test_a_model_that_does_not_fit_is_not_begun(hub: Hub, tmp_path: Path) -> None:
    """What is to be fetched and what must stay free count together; what lies there already does not."""
    assert fetched(hub.endpoint, "org/tiny", tmp_path, "tokenizer").startswith("ok")
    hub.fetched = []
    free_gb = shutil.disk_usage(tmp_path).free / 1e9
    told = fetched(hub.endpoint, "org/tiny", tmp_path, f"free={free_gb * 2}")
    assert told.startswith("disk_full org/tiny does not fit on the disk: ")
    assert "(limits.min_free_gb)" in told
    assert not hub.fetched
    assert fetched(hub.endpoint, "org/tiny", tmp_path, f"free={free_gb / 2}").startswith("ok")
    assert fetched(hub.endpoint, "org/tiny", tmp_path, f"free={free_gb * 2}").startswith("ok")


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


def test_every_attempt_of_a_job_has_the_commit_of_the_first_though_the_repository_moved_on(
    hub: Hub, tmp_path: Path
) -> None:
    code = """
import json, sys
from pathlib import Path
from runner import bases, fetch
from runner.job import Attempt, StopRequest
from spool.protocol.home import Home
fetch.Arrival.look = lambda self, arrived_bytes: self.told("1.0 of 2.0 GB")
home = Home(Path(sys.argv[1])).create()
run = home.run("01K00000010123456789ABCDEF")
run.root.mkdir(exist_ok=True)
base = bases.find("org/tiny", Attempt(home, run.root.name, 1, StopRequest(home, run.root.name)))
events = [json.loads(line) for line in run.events.read_bytes().splitlines()]
print(json.dumps([base.revision, json.loads(run.base.read_bytes()), base.folder.name, [e["phase"] for e in events]]))
"""
    environment = {"PATH": "", "HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, str(tmp_path / "home")]

    def attempt() -> list[object]:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    revision, record, folder, phases = attempt()
    assert (revision, record, folder) == (COMMIT, {"revision": COMMIT}, COMMIT)
    assert isinstance(phases, list)
    assert (phases[0], phases[-1]) == ("fetching org/tiny", "fetching org/tiny, 1.0 of 2.0 GB")
    repo = hub.repos["models/org/tiny"]
    repo.commits.append("another")
    assert repo.commit("main") != COMMIT
    assert attempt()[:3] == [COMMIT, {"revision": COMMIT}, COMMIT]
