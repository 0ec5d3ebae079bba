"""Pushing to the hub: the real huggingface_hub client against tests/stub_hub.py. Exports are small files here."""

import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from conftest import Runner, wait_for
from stub_hub import Hub, Repo, Trouble, serving
from trained import training

from runner import child
from runner.exports import adapter, card, parcel, push
from runner.fetch import Arrival
from runner.job import Attempt, Stopped, StopRequest
from spool.cli import show
from spool.health import failure
from spool.protocol import dropbox, durable, manifest, metrics
from spool.protocol.errors import FinetunerError, Problem, SpecError
from spool.protocol.home import Home
from spool.protocol.parse import parse_spec
from spool.protocol.spec import Push
from spool.protocol.ulid import mint

TOKEN = "sentinel-of-no-usual-shape-4711"
REPO = "team/tickets"
KEY = f"models/{REPO}"
CARD = "---\nlicense: gemma\n---\n\n# tickets\n\nSee `certificate.json`.\n\n## Use\n\nollama create x -f Modelfile\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the client of this process speaks to; it waits between its tries for no time at all."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    with serving() as hub:
        hub.token = TOKEN
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield hub
        huggingface_hub.set_client_factory(_http.default_client_factory)


@pytest.fixture
def attempt(home: Home) -> Attempt:
    job_id = mint()
    home.run(job_id).root.mkdir(parents=True)
    return Attempt(home, job_id, 1, StopRequest(home, job_id))


def export(
    folder: Path, name: str, files: dict[str, bytes], verdict: str | None = "ready", failed: tuple[str, ...] = ()
) -> Path:
    """An export as runner/exports/make.py leaves it."""
    folder.mkdir(parents=True)
    for path, data in {"README.md": CARD.encode(), **files}.items():
        (folder / path).write_bytes(data)
    sha256 = manifest.write(folder, name, {"name": "tickets"})
    if verdict:
        checks = [{"name": each, "passed": False} for each in failed] or [{"name": "loads", "passed": True}]
        proof = {"v": 1, "verdict": verdict, "manifest_sha256": sha256, "checks": checks}
        durable.write_json(folder / manifest.CERTIFICATE, {**proof, "measured": {"equal_tokens": 0.9731}})
    return folder


def merged(tmp_path: Path, **more: Any) -> dict[str, Path]:
    files = {"model.safetensors": os.urandom(3_000_000), "config.json": b"{}"}
    return {"merged": export(tmp_path / "merged", "merged", files, **more)}


def ggufs(tmp_path: Path, *kinds: str) -> dict[str, Path]:
    return {
        f"gguf:{kind}": export(
            tmp_path / kind,
            f"gguf:{kind}",
            {f"x-{kind}.gguf": kind.encode() * 9, "Modelfile": f"FROM ./x-{kind}.gguf".encode(), "NOTICE": b"terms"},
        )
        for kind in kinds
    }


def pushed(folders: dict[str, Path], attempt: Attempt, **more: Any) -> dict[str, Any]:
    return push.push(Push(repo=REPO, **more), "tickets", folders, attempt)


def refused(code: str, call: Callable[[], Any]) -> FinetunerError:
    with pytest.raises(FinetunerError) as caught:
        call()
    assert caught.value.code == code, caught.value.message
    assert caught.value.hint
    return caught.value


def said(attempt: Attempt) -> list[str]:
    return [str(row.get("words") or row.get("phase")) for row in metrics.read(attempt.run.events)]


# ---- what a spec says


def problem(**fields: Any) -> Problem:
    document = {"schema": 1, "kind": "export", "job": "0" * 26, "push": {"repo": REPO}, **fields}
    with pytest.raises(SpecError) as caught:
        parse_spec(json.dumps(document).encode())
    (only,) = caught.value.problems
    return only


def test_one_repository_holds_one_kind_of_model() -> None:
    told = problem(export=["merged", "gguf:q4_k_m"])
    assert (told.pointer, told.code, told.line) == ("/export", "bad_value", 1)
    assert told.message == "merged, gguf:q4_k_m: a repository on the hub holds one kind of model."
    assert problem(export=["adapter", "gguf:lora"]).pointer == "/export"
    assert problem(export=["gguf:q8_0", "onnx"]).pointer == "/export"
    document = {"schema": 1, "kind": "export", "job": "0" * 26, "push": {"repo": REPO}}
    for fits in (["adapter"], ["merged"], ["onnx"], ["gguf:lora"], ["gguf:q8_0", "gguf:q4_k_m", "gguf:lora"]):
        parsed = parse_spec(json.dumps({**document, "export": fits}).encode())
        assert parsed.to_json()["push"] == {"repo": REPO, "private": True}


@pytest.mark.parametrize(
    "repo", ["tickets", "a/b/c", "team/", "team/-x", "team/a..b", "team/a--b", "te am/x", "team/x\n"]
)
def test_a_repository_has_an_owner_and_a_name(repo: str) -> None:
    told = problem(push={"repo": repo})
    assert (told.pointer, told.code) == ("/push/repo", "bad_value")
    assert told.hint == 'Expected a text such as "my-team/support-gemma".'


def test_the_hubs_own_limits_are_told_before_it_is_asked() -> None:
    for repo in ("team/x.git", "team/" + "x" * 97):
        assert problem(push={"repo": repo}).hint == "At most 96 characters, and not .git at the end."
    assert problem(push={"repo": REPO, "privat": False}).hint == "Did you mean 'private'?"
    assert problem(push={"repo": REPO, "private": "yes"}).pointer == "/push/private"
    assert problem(push={}).code == "missing"


# ---- what is pushed


def test_a_model_goes_into_a_private_repository_in_parts_and_one_commit(
    hub: Hub, attempt: Attempt, tmp_path: Path
) -> None:
    folders = merged(tmp_path)
    (folders["merged"] / "optimizer.pt").write_bytes(b"is in no manifest")
    (folders["merged"] / ".hidden").write_bytes(b"nor this")
    told = pushed(folders, attempt)
    repo = hub.repos[KEY]
    assert repo.private
    assert repo.commits == ["tickets: merged"]
    assert told["commit"] == repo.commit("main")
    assert told["url"] == f"{hub.endpoint}/{REPO}"
    there = repo.revisions["main"]
    known = {"README.md", "config.json", "model.safetensors", "manifest.json", "certificate.json"}
    assert set(told["files"]) == set(there) - {".gitattributes"} == known
    assert all(there[path] == (folders["merged"] / path).read_bytes() for path in known)
    assert hub.asked.count("put") == 3
    assert said(attempt) == [
        f"pushing to {REPO}",
        f"committing to {REPO}",
        f"pushed 5 files, 3.0 MB, to {hub.endpoint}/{REPO}",
    ]


def test_public_only_where_that_was_asked_for(hub: Hub, attempt: Attempt, tmp_path: Path) -> None:
    pushed(merged(tmp_path), attempt, private=False)
    assert not hub.repos[KEY].private
    told = refused("repo_public", lambda: push.check(Push(repo=REPO)))
    assert told.message == f"{REPO} is public on the hub, and the push was to be private."
    refused("repo_public", lambda: pushed(merged(tmp_path / "again"), attempt))
    assert len(hub.repos[KEY].commits) == 1


def test_several_ggufs_lie_side_by_side_and_verify(hub: Hub, attempt: Attempt, tmp_path: Path) -> None:
    folders = ggufs(tmp_path, "q4_k_m", "q8_0")
    told = pushed(folders, attempt)
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    for path, data in hub.repos[KEY].revisions["main"].items():
        (fetched / path).write_bytes(data)
    (fetched / ".gitattributes").unlink()
    assert {path.name for path in fetched.iterdir()} == {
        *("x-q4_k_m.gguf", "Modelfile", "manifest-q4_k_m.json", "certificate-q4_k_m.json"),
        *("x-q8_0.gguf", "Modelfile-q8_0", "manifest-q8_0.json", "certificate-q8_0.json"),
        *("README.md", "NOTICE", "manifest.json"),
    }
    assert sorted(told["files"]) == sorted(path.name for path in fetched.iterdir())
    assert (fetched / "Modelfile-q8_0").read_bytes() == b"FROM ./x-q8_0.gguf"
    readme = (fetched / "README.md").read_text()
    assert readme.startswith("---\nlicense: gemma\n---\n\n# tickets\n\nSee `certificate-*.json`.\n\n## Files\n")
    assert "| `x-q8_0.gguf` | 0.00 GB | 97.3% of its tokens | `Modelfile-q8_0` |\n\n## Use\n" in readme
    found = manifest.verify(fetched)
    assert (found.kind, found.faults, found.files) == ("gguf", [], 10)
    (fetched / "x-q8_0.gguf").write_bytes(b"other")
    assert [fault.file for fault in manifest.verify(fetched).faults] == ["x-q8_0.gguf"]


def test_a_push_replaces_the_last_one_and_leaves_what_others_put_there(
    hub: Hub, attempt: Attempt, tmp_path: Path
) -> None:
    """An adapter left beside merged weights would be laid over them a second time by transformers."""
    files = {"adapter_model.safetensors": b"lora", "adapter_config.json": b"{}"}
    pushed({"adapter": export(tmp_path / "adapter", "adapter", files)}, attempt)
    hub.repos[KEY].revisions["main"]["logo.png"] = b"ours"
    pushed(merged(tmp_path), attempt)
    there = set(hub.repos[KEY].revisions["main"]) - {".gitattributes", "logo.png"}
    assert there == {"README.md", "config.json", "model.safetensors", *manifest.BESIDE}
    assert hub.repos[KEY].commits == ["tickets: adapter", "tickets: merged"]


def test_somebody_elses_model_is_not_overwritten(hub: Hub, attempt: Attempt, tmp_path: Path) -> None:
    hub.repos[KEY] = Repo({"main": {"model.safetensors": b"theirs", "manifest.json": b"[]"}}, private=True)
    refused("repo_taken", lambda: push.check(Push(repo=REPO)))
    told = refused("repo_taken", lambda: pushed(merged(tmp_path), attempt))
    assert told.message == f"{REPO} holds a model that was not pushed from here (model.safetensors)."
    assert "put" not in hub.asked


def test_the_same_again_makes_no_commit(hub: Hub, attempt: Attempt, tmp_path: Path) -> None:
    folders = merged(tmp_path)
    first = pushed(folders, attempt)
    sent = hub.put_bytes
    assert pushed(folders, attempt) == first
    assert (hub.put_bytes, len(hub.repos[KEY].commits)) == (sent, 1)


@pytest.mark.parametrize(
    ("verdict", "failed", "why"),
    [
        ("suspect", ("template", "bos"), "its certificate failed template, bos"),
        (None, (), "it has no certificate of its own"),
    ],
)
def test_a_suspect_export_is_not_pushed(
    verdict: str | None, failed: tuple[str, ...], why: str, hub: Hub, attempt: Attempt, tmp_path: Path
) -> None:
    told = refused("not_proven", lambda: pushed(merged(tmp_path, verdict=verdict, failed=failed), attempt))
    assert told.message == f"merged is suspect and nothing was pushed: {why}."
    assert hub.asked == []


def test_a_certificate_of_another_export_proves_nothing(tmp_path: Path) -> None:
    (folder,) = merged(tmp_path).values()
    manifest.write(folder, "merged", {"name": "another"})
    refused("not_proven", lambda: parcel.pack({"merged": folder}))


def test_a_file_that_was_changed_is_not_pushed(hub: Hub, attempt: Attempt, tmp_path: Path) -> None:
    folders = merged(tmp_path)
    (folders["merged"] / "model.safetensors").write_bytes(os.urandom(3_000_000))
    told = refused("export_changed", lambda: pushed(folders, attempt))
    assert "model.safetensors" in told.message
    assert "commit" not in hub.asked
    assert hub.put_bytes == 0


def test_a_file_that_is_gone_is_not_called_a_lost_network(hub: Hub, attempt: Attempt, tmp_path: Path) -> None:
    folders = merged(tmp_path)
    (folders["merged"] / "config.json").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        pushed(folders, attempt)
    assert failure.explain_exception(caught.value)["code"] == "file_missing"


# ---- before anything is made


@pytest.mark.parametrize(
    ("token", "code", "words"),
    [
        (None, "no_token", "there is no token for the hub: nothing can be pushed to team/tickets."),
        ("wrong-wrong-wrong", "token_rejected", "the hub does not accept the token (401)."),
        ("hf_two words", "token_rejected", "HF_TOKEN holds what no token has, such as a blank."),
    ],
)
def test_a_token_that_will_not_do_is_told_before_anything_is_made(
    token: str | None, code: str, words: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    told = refused(code, lambda: push.check(Push(repo=REPO)))
    assert told.message == words
    assert "HF_TOKEN for the runner" in told.hint
    assert set(hub.asked) <= {"whoami"}


@pytest.mark.training
def test_nothing_is_looked_for_before_the_token(
    attempt: Attempt, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN")
    spec = {"schema": 1, "kind": "export", "job": "0" * 26, "export": ["gguf:q4_k_m"], "push": {"repo": REPO}}
    durable.write_json(attempt.run.spec, parse_spec(json.dumps(spec).encode()).to_json())
    refused("no_token", lambda: child.perform(attempt))
    assert said(attempt) == ["starting"]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused("job_missing", lambda: child.perform(attempt))


def test_a_token_that_may_only_read_is_told_before_anything_is_made(hub: Hub) -> None:
    hub.role = "read"
    told = refused("token_rejected", lambda: push.check(Push(repo=REPO)))
    assert told.message == "the hub's token of tester may only read."


def test_a_hub_that_is_away_does_not_keep_exports_from_being_made(hub: Hub) -> None:
    hub.trouble["whoami"] = Trouble(503)
    push.check(Push(repo=REPO))
    hub.trouble = {}
    push.check(Push(repo=REPO))
    assert REPO not in hub.repos


def test_without_a_hub_by_wish_it_says_so(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused("hub_error", lambda: push.check(Push(repo=REPO))).message


# ---- what goes wrong

BUSY, LOST, REFUSED = "hub_busy", "no_network", "token_rejected"
STEPS = ("create", "yaml", "preupload", "batch", "put", "verify", "complete", "commit")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("how", "code"),
    [(401, REFUSED), (403, REFUSED), (409, BUSY), (429, BUSY), (500, BUSY), (418, "hub_error"), ("cut", LOST)],
)
def test_each_answer_at_each_step_has_its_code(
    step: str, how: int | str, code: str, hub: Hub, attempt: Attempt, tmp_path: Path
) -> None:
    hub.trouble[step] = Trouble(how)
    if step == "create" and how == 409:  # it is there already, as in the next moment it is
        hub.trouble[step].times = 0
        hub.repos[KEY] = Repo({"main": {}}, private=True)
        pushed(merged(tmp_path), attempt)
        return
    refused(code, lambda: pushed(merged(tmp_path), attempt))
    assert KEY not in hub.repos or hub.repos[KEY].commits == []
    hub.trouble = {}
    pushed(merged(tmp_path / "again"), attempt)


def test_a_card_names_its_base_where_the_hub_has_it(hub: Hub, attempt: Attempt, tmp_path: Path) -> None:
    for reference, revision in (("/srv/models/gemma", None), ("google/gemma-3-270m", "4711")):
        facts = {"name": "tickets", "base": {"reference": reference, "revision": revision}}
        card.write(tmp_path, "adapter", facts, None, None)  # type: ignore[arg-type]
        readme = (tmp_path / "README.md").read_bytes()
        pushed({"adapter": export(tmp_path / mint(), "adapter", {"README.md": readme})}, attempt)
        there = hub.repos[KEY].revisions["main"]["README.md"].decode()
        assert (f"base_model: {reference}\n" in there) == bool(revision)
    wrong = export(tmp_path / "wrong", "adapter", {"README.md": b"---\nbase_model: /srv/models/x\n---\n"})
    told = refused("hub_error", lambda: pushed({"adapter": wrong}, attempt))
    assert "base_model" in told.message


def test_an_adapter_names_a_base_of_the_hub_for_whoever_fetches_it(tmp_path: Path) -> None:
    class Model:
        def save_pretrained(self, folder: str, safe_serialization: bool) -> None:
            written = {"r": 16, "base_model_name_or_path": "/var/lib/finetuner/cache/hub/x", "revision": None}
            (Path(folder) / "adapter_config.json").write_text(json.dumps(written))

    class Encoder:
        template, bos_id, stop_ids, pad_id = "", 2, (1,), 0

    for revision, named in (("4711", "google/gemma-3-270m"), (None, "/var/lib/finetuner/cache/hub/x")):
        facts = {"name": "tickets", "base": {"reference": "google/gemma-3-270m", "revision": revision}}
        folder = adapter.save(tmp_path, Model(), tmp_path, Encoder(), facts, lambda: None)  # type: ignore[arg-type]
        told = json.loads((folder / "adapter_config.json").read_text())
        assert told == {"r": 16, "base_model_name_or_path": named, "revision": revision}
        assert manifest.verify(folder).faults == []


def test_what_the_hub_says_is_passed_on(hub: Hub, attempt: Attempt, tmp_path: Path) -> None:
    hub.trouble["commit"] = Trouble(403, said="Private storage limit reached.")
    told = refused("token_rejected", lambda: pushed(merged(tmp_path), attempt))
    begins = f"the hub does not let this token write to {REPO} (403): Private storage limit reached. (asked with "
    assert told.message.startswith(begins)
    assert TOKEN not in told.message


@pytest.mark.parametrize("step", ["preupload", "batch", "put", "verify", "complete"])
def test_one_bad_answer_on_the_way_is_nobodys_business(step: str, hub: Hub, attempt: Attempt, tmp_path: Path) -> None:
    hub.trouble[step] = Trouble(500, times=1)
    pushed(merged(tmp_path), attempt)
    assert len(hub.repos[KEY].commits) == 1


def test_a_hub_that_wants_to_be_left_alone_is_not_waited_for(
    hub: Hub, attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", slept.append)
    for headers in ({"Retry-After": "3600"}, {"RateLimit": '"api";r=0;t=3600'}):
        hub.trouble["batch"] = Trouble(429, headers=headers)
        told = refused("hub_busy", lambda: pushed({**merged(tmp_path / mint())}, attempt))
        assert told.message == "the hub is busy (429) and asks to come back in 3600 s."
    assert slept == []
    hub.trouble["batch"] = Trouble(429, times=1, headers={"Retry-After": "7"})
    pushed(merged(tmp_path), attempt)
    assert slept == [8.0]


def test_another_change_of_the_account_is_not_asked_for_without_end(hub: Hub, attempt: Attempt, tmp_path: Path) -> None:
    hub.trouble["create"] = Trouble(409, said="Cannot create repo: another conflicting operation is in progress")
    refused("hub_busy", lambda: pushed(merged(tmp_path), attempt))
    assert hub.asked.count("create") == 1


@pytest.mark.parametrize("step", ["create", "put", "commit"])
def test_a_hub_that_never_answers_is_left(
    step: str, hub: Hub, attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "TIMEOUT_S", 0.2)
    hub.trouble[step] = Trouble("silence")
    told = refused("no_network", lambda: pushed(merged(tmp_path), attempt))
    assert told.message == f"the hub does not answer: {REPO} was not pushed."


def test_no_hub_at_all(hub: Hub, attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    told = refused("no_network", lambda: pushed(merged(tmp_path), attempt))
    assert told.message == f"the hub cannot be reached: {REPO} was not pushed."
    push.check(Push(repo=REPO))


def test_a_commit_between_our_look_and_our_commit_is_not_undone(
    hub: Hub, attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos[KEY] = Repo({"main": {}}, private=True)
    look = push._ours

    def theirs_comes(*given: Any) -> set[str]:
        found = look(*given)
        hub.repos[KEY].commits.append("theirs")
        return found

    monkeypatch.setattr(push, "_ours", theirs_comes)
    assert "changed by somebody else" in refused("hub_busy", lambda: pushed(merged(tmp_path), attempt)).message
    assert hub.repos[KEY].commits == ["theirs"]


# ---- going on, and how far it is


def test_a_second_attempt_sends_only_what_is_missing(hub: Hub, attempt: Attempt, tmp_path: Path) -> None:
    names = [f"model-{n}-of-3.safetensors" for n in (1, 2, 3)]
    folders = {"merged": export(tmp_path / "merged", "merged", {name: os.urandom(1_000_000) for name in names})}
    hub.trouble["put"] = Trouble("cut", after=2)
    refused("no_network", lambda: pushed(folders, attempt))
    assert (len(hub.stored), hub.put_bytes) == (2, 2_000_000)
    hub.trouble = {}
    pushed(folders, attempt)
    assert hub.put_bytes == 3_000_000, "each file was sent once in all"
    assert len(hub.repos[KEY].commits) == 1


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub: Hub, attempt: Attempt, tmp_path: Path) -> None:
    folders = merged(tmp_path)
    told = pushed(folders, attempt)
    hub.asked.clear()
    assert pushed(folders, attempt)["commit"] == told["commit"]
    assert "put" not in hub.asked
    assert "commit" not in hub.asked


def test_a_long_upload_says_how_far_it_is_and_can_be_stopped(
    hub: Hub, attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def eager(self: Arrival, arrived_bytes: float) -> None:
        if arrived_bytes >= self.said_bytes + min(1_000_000, self.total_bytes):
            self.said_bytes = arrived_bytes
            self.told(f"{arrived_bytes / 1e6:.1f} of {self.total_bytes / 1e6:.1f} MB")

    monkeypatch.setattr(Arrival, "look", eager)
    pushed(merged(tmp_path), attempt)
    lines = [line for line in said(attempt) if line.startswith("pushing ") and REPO not in line]
    assert [line.rpartition(", ")[2] for line in lines] == ["1.0 of 3.0 MB", "2.1 of 3.0 MB"]
    assert attempt.run.pulse.exists()
    (attempt.home.control / f"cancel-{attempt.job_id}").touch()
    with pytest.raises(Stopped):
        pushed(merged(tmp_path / "again"), attempt)
    assert len(hub.repos[KEY].commits) == 1


# ---- the token


def test_the_token_stands_nowhere_whatever_goes_wrong(
    hub: Hub,
    attempt: Attempt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The stub says the token back in each refusal. All that the job's process writes and prints is searched."""
    handler = signal.getsignal(signal.SIGTERM)
    folders = {"merged": export(attempt.home.root / "exports" / "merged", "merged", {"m.safetensors": b"w" * 99})}
    hub.repos[KEY] = Repo({"main": {}}, private=True)
    monkeypatch.setattr(push, "TIMEOUT_S", 0.1)
    ended: list[str] = []
    broken = {"no": lambda *_: json.loads("{"), "bug": lambda *_: {}[f"Bearer {TOKEN}"]}
    troubles = [(step, how) for step in ("whoami", "info", *STEPS) for how in (401, 409, 500, "cut")]
    for step, how in [*troubles, ("put", "silence"), ("no", 0), ("bug", 0), ("", 0)]:
        hub.trouble = {step: Trouble(how)}
        with monkeypatch.context() as patch:
            if step in broken:
                patch.setattr(push, "_ours", broken[step])
            patch.setattr(child, "perform", lambda told: push.check(Push(repo=REPO)) or pushed(folders, told))
            assert child._attempt(attempt) == 0
        ended.append(durable.read_json(attempt.run.result).get("error", {}).get("code", "done"))
        kept = attempt.home.root / f"{len(ended)}.json"
        kept.write_bytes(attempt.run.result.read_bytes())
    signal.signal(signal.SIGTERM, handler)
    assert set(ended) == {"token_rejected", "hub_busy", "no_network", "unexpected", "done"}
    out, err = capfd.readouterr()
    assert "(secret)" in out, "the hub did say it back"
    found = [path for path in attempt.home.root.rglob("*") if path.is_file() and TOKEN in path.read_text("latin-1")]
    assert found == []
    assert TOKEN not in out + err
    assert TOKEN not in caplog.text
    assert TOKEN.encode() not in b"".join(hub.repos[KEY].revisions["main"].values())
    assert TOKEN not in Path("/proc/self/cmdline").read_text()


# ---- the whole way


@pytest.fixture
def shop(home: Home, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Makes the spec of a push whose export is there, for a real runner that has the token as a service has it."""
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "hf_token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    base = home.models / "tiny"
    base.mkdir(parents=True)
    (base / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)

    def spec(**files: bytes) -> dict[str, Any]:
        job = training(home, base, name="tickets")
        trained = {"schema": 1, "model": "tiny", "dataset": "gone.jsonl"}
        durable.write_json(home.run(job).spec, parse_spec(json.dumps(trained).encode()).to_json())
        named = {f"{name}.safetensors": data for name, data in files.items()}
        export(home.run(job).exports / "merged", "merged", named)
        return {"schema": 1, "kind": "export", "job": job, "export": ["merged"], "push": {"repo": REPO}}

    return spec


@pytest.mark.training
def test_a_dropped_job_pushes_with_the_services_credential(
    home: Home, hub: Hub, make_runner: Callable[..., Runner], shop: Callable[..., dict[str, Any]]
) -> None:
    """Real runner and real child; the export is there, so that nothing has to be made."""
    asked = shop(model=os.urandom(2_500_000))
    hub.trouble = {"commit": Trouble(403, times=1), "put": Trouble(500, times=1)}
    runner = make_runner(home)
    first, second, elsewhere = (
        dropbox.submit(home, {**asked, "push": {"repo": repo}}) for repo in (REPO, REPO, "team/other")
    )
    assert runner.wait(second, "done", "rejected", "failed").error["errors"][0]["code"] == "duplicate_export"
    assert runner.wait(first, "done", "failed").error["code"] == "token_rejected"
    assert runner.wait(elsewhere, "done", "failed").state == "done"
    told = runner.job(elsewhere)
    runner.stop()
    assert told.name == "merged of tickets to team/other"
    assert told.result["pushed"]["url"] == f"{hub.endpoint}/team/other"
    assert told.result["pushed"]["commit"] == hub.repos["models/team/other"].commit("main")
    assert hub.put_bytes == 2_500_000 + hub.part_bytes, "what the first job had uploaded was not sent again"
    out = io.StringIO()
    with redirect_stdout(out):
        show.text(home, told)
    assert f"pushed to   {hub.endpoint}/team/other" in out.getvalue()
    files = [path for path in home.root.rglob("*") if path.is_file()]
    assert len(files) > 20
    for secret in (TOKEN.encode(), b"0123456789abcdef"):  # the token, and what signs an upload's address
        assert [path for path in files if secret in path.read_bytes()] == []


@pytest.mark.training
def test_a_push_that_is_interrupted_goes_on_with_what_is_missing(
    home: Home, hub: Hub, make_runner: Callable[..., Runner], shop: Callable[..., dict[str, Any]]
) -> None:
    """The runner is stopped while the hub is silent in the middle of the second file."""
    hub.trouble["put"] = Trouble("silence", after=1)
    runner = make_runner(home)
    job = dropbox.submit(home, shop(a=os.urandom(900_000), b=os.urandom(900_000)))
    wait_for(lambda: hub.asked.count("put") == 2)
    begun = time.monotonic()
    runner.stop()
    assert time.monotonic() - begun < 10
    assert hub.repos[KEY].commits == []
    hub.trouble = {}
    runner.start()
    assert runner.wait(job, "done", "failed").state == "done"
    assert hub.asked.count("put") == 3, "the first file was sent once"
    assert len(hub.stored) == 2
