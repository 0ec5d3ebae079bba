"""The doctor: a healthy machine is called healthy, and every illness is named with its cure."""

import errno
import fcntl
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_protocol_jobs import SPEC, stage

from spool.health import doctor, environment, heartbeat, locks, queue
from spool.health.doctor import examine
from spool.health.finding import Finding
from spool.health.gpu import Gpu
from spool.protocol import dropbox, durable
from spool.protocol.home import Home, State
from spool.protocol.jobs import now_iso
from spool.protocol.states import Token, Tokens
from spool.protocol.ulid import mint


class NoGpu(Gpu):
    def describe(self) -> dict[str, Any]:
        self.problem = "NVML Shared Library Not Found"
        return {}


class H100(Gpu):
    processes: tuple[dict[str, Any], ...] = ()

    def describe(self) -> dict[str, Any]:
        memory = {"mem_total_bytes": 80 << 30, "mem_free_bytes": 79 << 30}
        return {"name": "NVIDIA H100", "driver": "580.65", "processes": list(self.processes), **memory}


class BusyH100(H100):
    processes = ({"pid": 4_000_001, "mem_bytes": 9 << 30},)


def beat(home: Home, age_s: float = 1.0, **fields: Any) -> None:
    document = {"pid": 77, "started_at": now_iso(), "state": "ready", "current_job": None}
    durable.write_json(home.runner_json, {**document, "heartbeat": time.time() - age_s, **fields})


def add_model(home: Home) -> None:
    folder = home.models / "gemma-3-270m"
    folder.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (folder / name).touch()


def of(home: Home, area: str, gpu: Gpu | None = None) -> list[Finding]:
    return [finding for finding in examine(home, gpu or NoGpu()) if finding.area == area]


def one(home: Home, area: str, gpu: Gpu | None = None) -> Finding:
    (finding,) = of(home, area, gpu)
    return finding


@pytest.fixture
def make_old(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets everything on disk look older than the doctor's patience."""

    def make() -> None:
        monkeypatch.setattr(queue, "PATIENCE_S", -1.0)

    return make


def test_a_healthy_home(home: Home) -> None:
    ids = stage(home)
    (home.incoming / f"{ids['incoming']}.json").unlink()
    add_model(home)
    with open(home.runner_lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        beat(home)
        findings = examine(home, NoGpu())
    # what this machine is like is not the test's
    machines = ("packages", "disk", "python", "clock", "memory", "inotify", "version")
    own = [finding for finding in findings if finding.area not in machines]
    assert [finding for finding in own if finding.level != "ok"] == []
    assert {"gpu", "home", "locks", "runner", "model", "queue"} <= {finding.area for finding in own}
    assert "training will run on the CPU" in one(home, "gpu").message


def test_what_is_wrong_has_a_cure(home: Home) -> None:
    stage(home)
    beat(home, age_s=300)
    for finding in examine(home, NoGpu()):
        assert finding.message.endswith(".")
        assert bool(finding.cure) == (finding.level != "ok"), finding
        assert set(finding.to_json()) == {"area", "level", "message", "cure"}


def test_no_home_yet(tmp_path: Path) -> None:
    home = Home(tmp_path / "none" / "deeper")
    assert one(home, "home").level == "warn"
    assert one(home, "runner").level == "warn"
    assert of(home, "disk")
    assert not home.root.exists()


def test_python(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert one(home, "python").level == "ok"
    monkeypatch.setattr(sys, "version_info", (3, 13, 1, "final", 0))
    assert one(home, "python").level == "fail"


RUNNERS: list[tuple[dict[str, Any] | None, str, str]] = [
    (None, "warn", "no runner was ever started"),
    ({}, "ok", "alive (pid 77"),
    ({"current_job": "01M81ZAFFVD06P58V95ESN865K"}, "ok", "runs 01M81ZAFFVD06P58V95ESN865K"),
    ({"age_s": 19.0}, "ok", "alive"),
    ({"age_s": 21.0}, "fail", "it died or hangs"),
    ({"age_s": 7200.0}, "fail", "2 hours ago"),
    ({"state": "stopped"}, "warn", "was stopped"),
    ({"halted": {"code": "enospc", "reason": "No space left"}, "state": "halted"}, "fail", "No space left"),
    ({"waiting_for": "a trainer of an earlier runner still lives"}, "warn", "still lives"),
    ({"heartbeat": "rubbish"}, "warn", "no runner"),
]


@pytest.mark.parametrize(("fields", "level", "words"), RUNNERS)
def test_runner(home: Home, fields: dict[str, Any] | None, level: str, words: str) -> None:
    if fields is not None:
        beat(home, **fields)
    finding = one(home, "runner")
    assert finding.level == level
    assert words in finding.message
    assert level == "ok" or finding.cure


def test_jobs_that_wait_for_a_stopped_runner(home: Home) -> None:
    beat(home, state="stopped")
    dropbox.submit(home, SPEC)
    finding = one(home, "runner")
    assert (finding.level, "1 job(s) wait" in finding.message) == ("fail", True)
    assert "make up" in finding.cure


def test_heartbeat_tells_alive_from_dead(home: Home) -> None:
    assert not heartbeat.read(home).alive
    home.runner_json.write_text("{")
    assert not heartbeat.read(home).alive
    beat(home, age_s=-5)  # the clock was set back a little
    assert heartbeat.read(home).alive
    beat(home, age_s=-3600)  # set back by much: a living runner will have written again in 5 s
    assert not heartbeat.read(home).alive
    beat(home)
    assert not heartbeat.read(home, now=time.time() + 3600).alive


def test_gpu(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "torch_build", lambda: "gpu")
    finding = one(home, "gpu")
    assert (finding.level, "training will run on the CPU" in finding.message) == ("warn", True)
    assert "nvidia-smi" in finding.cure
    assert one(home, "gpu", H100()).message == "NVIDIA H100, driver 580.65, 79.0 of 80.0 GiB free."
    fine, busy = of(home, "gpu", BusyH100())
    assert (fine.level, busy.level) == ("ok", "warn")
    assert "hold 9.7 GB of the card: pid 4000001, which cannot be seen from here 9.7 GB" in busy.message
    beat(home, current_job=mint())
    assert one(home, "gpu", BusyH100()).level == "ok"  # it may be the job's own process
    monkeypatch.setattr(environment, "torch_build", lambda: "cpu")
    assert "CPU build" in of(home, "gpu", H100())[1].message


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", "cpu"),
        ("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\n", "gpu"),
        ("cuda = '12.8'\n", "gpu"),
        ("cuda = None\n", "cpu"),
    ],
)
def test_torch_build_is_read_without_importing_torch(tmp_path: Path, text: str, build: str) -> None:
    (tmp_path / "version.py").write_text(text)
    assert environment.torch_build(tmp_path) == build
    assert environment.torch_build(tmp_path / "none") is None


def lock(root: Path, versions: dict[str, str]) -> Path:
    lines = [f"{name}=={version} \\\n    --hash=sha256:0000" for name, version in versions.items()]
    (root / "requirements-cpu.lock").write_text("# made by a script\n" + "\n".join(lines) + "\n")
    (root / "pyproject.toml").write_text('[project]\ndependencies = [\n    "torch==2.13.0",\n]\n')
    return root


def test_packages_against_the_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    have: dict[str, str | None] = dict.fromkeys(environment.TRAINING + environment.OTHERS, "1.0")
    have["torch"] = "2.13.0+cpu"
    monkeypatch.setattr(environment, "installed", have.get)
    pinned = {name.replace("_", "-"): "1.0" for name in have if name != "torch"}
    root = lock(tmp_path, pinned)
    assert environment.pins("cpu", root)["torch"] == "2.13.0"
    (finding,) = environment.packages("cpu", root)
    assert finding.level == "ok"

    have |= {"trl": "1.14", "unsloth_zoo": None, "streamlit": None, "torch": "2.11.0+cu130"}
    findings = {finding.message.split()[0]: finding for finding in environment.packages("cpu", root)}
    assert {name: finding.level for name, finding in findings.items()} == {
        "torch": "warn",
        "trl": "warn",
        "unsloth_zoo": "fail",
        "streamlit": "fail",
    }
    assert "pinned is 1.0" in findings["trl"].message
    assert "make setup" in findings["trl"].cure


def test_without_a_lock_file(tmp_path: Path) -> None:
    (finding,) = environment.packages("cpu", tmp_path)
    assert (finding.level, "no lock file" in finding.message) == ("warn", True)


def test_this_repository_pins_what_matters() -> None:
    for build in ("cpu", "gpu"):
        pins = environment.pins(build)  # type: ignore[arg-type]
        names = {name.replace("_", "-") for name in environment.TRAINING + environment.OTHERS}
        assert names <= set(pins), names - set(pins)


def test_torchvision_beside_a_cpu_torch(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "torch_build", lambda: "cpu")
    really = environment.installed
    monkeypatch.setattr(environment, "installed", lambda name: "0.28" if name == "torchvision" else really(name))
    traps = [finding for finding in of(home, "packages") if "torchvision" in finding.message]
    assert [finding.level for finding in traps] == ["fail"]
    assert "uninstall -y torchvision" in traps[0].cure
    monkeypatch.setattr(environment, "torch_build", lambda: "gpu")
    assert not [finding for finding in of(home, "packages") if "torchvision" in finding.message]


def test_permissions(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.access

    def access(path: Any, mode: int, **_: Any) -> bool:
        return Path(path) != home.incoming and really(path, mode)

    monkeypatch.setattr(os, "access", access)
    finding = one(home, "home")
    assert (finding.level, "submitted" in finding.message) == ("fail", True)
    assert str(home.incoming) in finding.cure
    monkeypatch.undo()
    home.state(State.QUEUED).chmod(0o777)
    finding = one(home, "home")
    assert (finding.level, "everybody" in finding.message) == ("warn", True)


def test_locks(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert one(home, "locks").level == "ok"
    monkeypatch.setattr(locks.settings, "is_network_mount", lambda _: True)
    assert one(home, "locks").level == "warn"

    def refuse(*_: Any) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    finding = one(home, "locks")
    assert (finding.level, "Function not implemented" in finding.message) == ("fail", True)
    assert os.listdir(home.tmp) == []


def test_settings_that_stop_the_runner(home: Home) -> None:
    home.settings.write_text('{"grace_s": "long"}')
    finding = one(home, "settings")
    assert (finding.level, "grace_s" in finding.message) == ("fail", True)


def test_settings_that_only_the_runner_may_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.settings.write_text("{}")
    read_bytes, closed = Path.read_bytes, [home.settings]

    def denied(path: Path) -> bytes:
        if path in closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    monkeypatch.setattr(os, "access", lambda path, _: path not in closed)
    assert one(home, "settings").level == "fail"
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    found = of(home, "settings")[0]
    assert (found.level, "by you" in found.message) == ("warn", True)


def test_settings_that_are_not_in_force_yet(home: Home) -> None:
    home.settings.write_text("{}")
    beat(home, started_at="2026-01-01T00:00:00.000Z")
    assert "not in force yet" in one(home, "settings").message
    beat(home, started_at="2999-01-01T00:00:00.000Z")
    assert of(home, "settings") == []


def test_model(home: Home) -> None:
    assert one(home, "model").cure == "`make setup` makes it; for a service, `deploy/install.sh`."
    add_model(home)
    assert one(home, "model").level == "ok"
    (home.models / "gemma-3-270m" / "tokenizer.json").unlink()
    assert "lacks tokenizer.json" in one(home, "model").message


def test_a_token_without_its_run(home: Home) -> None:
    lost = mint()
    Tokens(home).create(State.QUEUED, Token(5, 1, lost), {})
    finding = one(home, "queue")
    assert (finding.level, lost in finding.message) == ("fail", True)


def test_a_job_with_two_tokens(home: Home) -> None:
    ids = stage(home)
    token = Tokens(home).list(State.QUEUED)[0]
    Tokens(home).create(State.DONE, token, {})
    finding = one(home, "queue")
    assert (finding.level, ids["queued"] in finding.message) == ("fail", True)


def test_strays_and_runs_without_a_token(home: Home, make_old: Callable[[], None]) -> None:
    stage(home)
    orphan = mint()
    home.run(orphan).root.mkdir()
    (home.state(State.QUEUED) / "my copy.json").touch()
    assert one(home, "queue").level == "ok"  # young: they may be on their way
    make_old()
    messages = [finding.message for finding in of(home, "queue")]
    assert len(messages) == 2
    assert "my copy.json" in messages[0]
    assert orphan in messages[1]


def test_what_is_stuck_in_the_drop_box(
    home: Home, make_old: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.incoming / "secret.json").touch()
    (home.incoming / ".x.json.swp").touch()
    (home.incoming / "stuck.json").touch()
    really = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "secret" not in str(path) and really(path, mode))
    make_old()
    assert ["cannot be read" in finding.message for finding in of(home, "incoming")] == [True]  # no runner: they wait
    beat(home)
    messages = [finding.message for finding in of(home, "incoming")]
    assert "cannot be read" in messages[0]
    assert "is not taken" in messages[1]


def test_one_check_that_fails_does_not_stop_the_others(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Home) -> list[Finding]:
        raise PermissionError(13, "Permission denied", "/x")

    monkeypatch.setattr(doctor.queue, "examine", refuse)
    finding = one(home, "queue")
    assert (finding.level, "/x cannot be examined" in finding.message) == ("warn", True)
    assert of(home, "model")


def test_the_doctor_changes_nothing(home: Home) -> None:
    stage(home)

    def tree() -> list[tuple[str, float]]:
        return sorted((str(p), p.stat().st_mtime) for p in home.root.rglob("*") if p.is_file())

    before = tree()
    examine(home, NoGpu())
    assert tree() == before


def test_what_is_no_order_is_told_since_nobody_will_carry_it_out(home: Home) -> None:
    wrong = ["cancel-nonsense", f"retry-{mint()}", f"cancel-{mint()}.json", f"priority-{mint()}", f"hold3-{mint()}"]
    right = ["hold", "drain", "look", f"cancel-{mint()}", f"priority0-{mint()}", f"delete-{mint()}"]
    for name in (*wrong, *right):
        (home.control / name).touch()
    assert one(home, "queue").level == "ok"  # young
    for name in (*wrong, *right):
        os.utime(home.control / name, (1, 1))
    finding = one(home, "queue")
    assert finding.level == "warn"
    assert "no orders" in finding.message
    assert all(name in finding.message for name in wrong[:2])
    assert not any(name in finding.message.replace(",", " ").split() for name in right)
