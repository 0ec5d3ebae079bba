"""The units, the folders and the installer, as far as no running systemd is needed (bench/service.py starts one)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

UNITS = ROOT / "deploy" / "systemd"
INSTALL = ROOT / "deploy" / "install.sh"
THRESHOLDS = {"runner": 2.5, "web": 1.5}
LINES = {name: (UNITS / f"finetuner-{name}.service").read_text().splitlines() for name in THRESHOLDS}


@pytest.fixture(autouse=True, scope="module")
def systemd() -> None:
    if shutil.which("systemd-analyze") is None:
        assert "CI" not in os.environ, "systemd-analyze is missing: .ci/run installs systemd"
        pytest.skip("systemd is not installed on this machine")


def install(root: Path, *options: str, fails: bool = False) -> str:
    done = subprocess.run(
        [str(INSTALL), "--root", str(root), *options], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and bytes of what the installer wrote beside the code."""
    files = [path for path in root.rglob("*") if path.is_file() and "opt" not in path.parts]
    return {str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes()) for path in files}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", THRESHOLDS)
def test_systemd_understands_every_line(name: str, tmp_path: Path) -> None:
    text = "\n".join(LINES[name]).replace("/opt/gemma-finetuner/.venv/bin/finetuner-runner", "/bin/true")
    unit = tmp_path / f"finetuner-{name}.service"
    unit.write_text(text.replace("/opt/gemma-finetuner/.venv/bin/python", "/bin/true") + "\n")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    told = [line for line in (done.stdout + done.stderr).splitlines() if "finetuner" in line]
    assert done.returncode == 0, told
    assert told == []


@pytest.mark.parametrize("gpu", ["", "195 nvidia\n195 nvidiactl\n507 nvidia-uvm\n508 nvidia-caps\n"])
@pytest.mark.parametrize("name", THRESHOLDS)
def test_the_exposure_is_low_as_it_is_installed(name: str, gpu: str, root: Path) -> None:
    (root / "proc" / "devices").write_text(f"Character devices:\n  1 mem\n{gpu}\nBlock devices:\n259 blkext\n")
    (root / "token").write_text("hf_x")
    install(root, "--token", str(root / "token"))
    limit = str(int(THRESHOLDS[name] * 10))
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={limit}", "--no-pager"]
    unit = f"finetuner-{name}.service"
    done = subprocess.run([*command, f"--root={root}", unit], capture_output=True, text=True)
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.returncode == 0, done.stdout.splitlines()[-1]
    assert ("char-nvidia" in done.stdout) == bool(gpu and name == "runner")


def test_the_runner_stops_kindly_and_comes_back() -> None:
    lines = LINES["runner"]
    for line in ("Type=notify", "NotifyAccess=main", "KillMode=mixed", "OOMPolicy=continue", "Restart=on-failure"):
        assert line in lines
    assert "RestartPreventExitStatus=78" in lines
    assert "StartLimitIntervalSec=0" in lines
    assert int(next(line for line in lines if line.startswith("TimeoutStopSec=")).partition("=")[2]) >= 180
    assert not any(line.startswith("MemoryDenyWriteExecute=") for line in lines)


def test_the_web_app_has_no_gpu_no_network_and_few_folders_to_write() -> None:
    lines = LINES["web"]
    for line in ("PrivateDevices=yes", "IPAddressDeny=any", "IPAddressAllow=localhost", "MemoryDenyWriteExecute=yes"):
        assert line in lines
    assert not any(line.startswith(("DeviceAllow=", "LoadCredential=")) for line in lines)
    words = " ".join(line.partition("=")[2] for line in lines if line.startswith("ReadWritePaths=")).split()
    allowed = {str(Path(word).relative_to("/var/lib/finetuner")) for word in words}
    caches = {"cache/reports", "cache/seen", "cache/tokens", "cache/hub-datasets"}
    assert allowed == {"spool/incoming", "spool/control", "spool/asks", "datasets", "notes", "votes", *caches}
    made = (UNITS / "tmpfiles.conf").read_text()
    for word in words:  # a missing one would keep the unit from starting
        assert re.search(rf"^d {re.escape(word)} ", made, re.M)


def test_the_gpu_is_read_from_the_machine(root: Path) -> None:
    drop_in = root / "etc/systemd/system/finetuner-runner.service.d/10-gpu.conf"
    install(root)
    assert not drop_in.exists()
    (root / "proc" / "devices").write_text("Character devices:\n195 nvidia-frontend\n510 nvidia-caps\n")
    install(root)
    rules = re.findall("^DeviceAllow=(.*)$", drop_in.read_text(), re.M)
    assert rules == ["char-nvidia-caps rw", "char-nvidia-frontend rw", "char-nvidia-uvm rw"]
    (root / "proc" / "devices").write_text("Character devices:\n1 mem\n")
    install(root)
    assert not drop_in.exists()


def test_again_changes_nothing_and_remembers_what_was_chosen(root: Path) -> None:
    install(root, "--home", "/srv/tuner", "--port", "9001")
    first = tree(root)
    install(root)
    assert tree(root) == first
    unit = (root / "etc/systemd/system/finetuner-web.service").read_text()
    assert "--server.port 9001" in unit
    assert "/srv/tuner/spool/incoming" in unit
    assert "/var/lib/finetuner" not in unit + (root / "etc/tmpfiles.d/finetuner.conf").read_text()
    assert (root / "opt/gemma-finetuner/runner/daemon.py").exists()
    assert (root / "usr/local/bin/finetuner").stat().st_mode & 0o111 == 0o111


def test_an_upgrade_leaves_no_old_code(root: Path) -> None:
    install(root)
    old = root / "opt/gemma-finetuner/runner/gone.py"
    old.write_text("")
    (root / "opt/gemma-finetuner/.venv").mkdir()
    install(root)
    assert not old.exists()
    assert (root / "opt/gemma-finetuner/.venv").exists()


def test_the_token_is_for_root_alone_and_can_be_taken_away(root: Path) -> None:
    (root / "token").write_text("hf_canary")
    install(root, "--token", str(root / "token"))
    kept = root / "etc/finetuner/hf_token"
    assert kept.stat().st_mode & 0o777 == 0o600
    drop_in = root / "etc/systemd/system/finetuner-runner.service.d/20-token.conf"
    assert "LoadCredential=hf_token:/etc/finetuner/hf_token" in drop_in.read_text()
    install(root)
    assert kept.exists()
    holding = [path for path, (_, data) in tree(root).items() if b"hf_canary" in data and path != "token"]
    assert holding == ["etc/finetuner/hf_token"]
    install(root, "--no-token")
    assert not kept.exists()
    assert not drop_in.exists()


def test_uninstall_leaves_the_data_and_purge_does_not(root: Path) -> None:
    install(root)
    job = root / "var/lib/finetuner/spool/state/done/x.json"
    job.parent.mkdir(parents=True, exist_ok=True)
    job.write_text("{}")
    install(root, "--uninstall")
    left = [
        path for path in tree(root) if not path.startswith(("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"))
    ]
    assert [path for path in left if ".pwd.lock" not in path] == ["var/lib/finetuner/spool/state/done/x.json"]
    assert not (root / "opt/gemma-finetuner").exists()
    install(root, "--uninstall")
    install(root, "--uninstall", "--purge")
    assert not (root / "var/lib/finetuner").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--home", "relative"], "absolute folder"),
        (["--home", "/srv/../etc"], "without . and .."),
        (["--home", "/srv/a b"], "letters, digits"),
        (["--home", "/home/me/data"], "cannot see /home"),
        (["--prefix", "/opt"], "below /"),
        (["--home", "/opt/gemma-finetuner/data"], "upgrade replaces"),
        (["--port", "80a"], "1 to 65535"),
        (["--port", "70000"], "1 to 65535"),
        (["--token", "/nowhere/token"], "no such file"),
        (["--purge"], "--uninstall only"),
        (["--colour"], "no option --colour"),
        (["--home"], "needs a value"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(options: list[str], words: str, root: Path) -> None:
    said = install(root, *options, fails=True)
    assert words in said
    assert len(said.splitlines()) == 1
    assert tree(root) == {}


def test_who_is_not_root_is_told_so() -> None:
    if os.geteuid() != 0:
        done = subprocess.run([str(INSTALL)], capture_output=True, text=True)
    else:  # in the same words for a user who is not
        script = shutil.copy(INSTALL, "/tmp/finetuner-install-test.sh")
        os.chmod(script, 0o755)
        done = subprocess.run(["bash", script], capture_output=True, text=True, user=65534, group=65534, cwd="/")
        os.unlink(script)
    assert done.returncode == 2
    assert "needs root" in done.stderr


def test_folders_have_the_modes_that_the_drop_box_needs(root: Path) -> None:
    lines = [line.split() for line in (UNITS / "tmpfiles.conf").read_text().splitlines() if line.startswith("d ")]
    modes = {path.removeprefix("/var/lib/finetuner").strip("/"): (mode, group) for _, path, mode, _, group, _ in lines}
    for folder in ("spool/incoming", "spool/control", "spool/asks"):
        assert modes[folder] == ("3775", "finetuner-drop")  # setgid; sticky: nobody removes another's drop
    writable = {path for path, (mode, group) in modes.items() if group == "finetuner-drop" and int(mode, 8) & 0o020}
    assert writable == {"spool/incoming", "spool/control", "spool/asks"}
    assert modes[""] == ("0750", "finetuner-drop")
    assert all(owner == "finetuner" for _, _, _, owner, _, _ in lines)  # who owns a sticky folder may take from it
    if os.geteuid() == 0:
        install(root)
        incoming = (root / "var/lib/finetuner/spool/incoming").stat()
        assert incoming.st_mode & 0o7777 == 0o3775


def test_the_sign_in_is_a_credential_of_the_web_app_alone(root: Path) -> None:
    (root / "mine.toml").write_text('[auth]\nredirect_uri = "https://tuner.example.org/oauth2callback"\n')
    install(root, "--sign-in", str(root / "mine.toml"))
    kept = root / "etc/finetuner/sign-in.toml"
    drop_in = root / "etc/systemd/system/finetuner-web.service.d/20-sign-in.conf"
    assert kept.stat().st_mode & 0o777 == 0o600
    lines = drop_in.read_text().splitlines()
    assert "LoadCredential=sign-in.toml:/etc/finetuner/sign-in.toml" in lines
    assert "Environment=STREAMLIT_SECRETS_FILES=%d/sign-in.toml" in lines
    assert lines[-3:-1] == ["InaccessiblePaths=", "InaccessiblePaths=-/etc/finetuner"]
    assert lines[-1] == 'Environment="STREAMLIT_SERVER_ALLOWED_HOSTS=localhost 127.0.0.1 [::1] tuner.example.org"'
    assert "RestartPreventExitStatus=78" in LINES["web"]
    install(root)  # an upgrade keeps it
    assert kept.exists()
    install(root, "--no-sign-in")
    assert not kept.exists()
    assert not drop_in.exists()
    assert "no such file" in install(root, "--sign-in", str(root / "nowhere"), fails=True)


def test_a_wrong_sign_in_is_told_before_anything_is_changed(root: Path) -> None:
    install(root)
    (root / "opt/gemma-finetuner/.venv").symlink_to(ROOT / ".venv")
    before = tree(root)
    wrong = root / "wrong.toml"
    wrong.write_text('[auth]\nclient_id = "x1"\n')
    said = install(root, "--sign-in", str(wrong), fails=True)
    assert "cookie_secret is missing" in said
    assert "nothing was changed" in said
    wrong.unlink()
    assert tree(root) == before


def test_the_greeting_ends_with_a_web_app_that_does_not_start() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    command = [sys.executable, str(ROOT / "deploy" / "greet.py"), "--port", "9", "--pid", str(ended.pid)]
    subprocess.run(command, check=True, timeout=10)


def test_the_exposure_stays_low_with_a_sign_in(root: Path) -> None:
    (root / "mine.toml").write_text("[auth]\n")
    install(root, "--sign-in", str(root / "mine.toml"))
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", f"--root={root}"]
    done = subprocess.run([*command, "finetuner-web.service"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout.splitlines()[-1]
