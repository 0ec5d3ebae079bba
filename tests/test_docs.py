"""README and docs are true: every command in a console block is run, or says beside it why not."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {"make test": "it is what runs this", "make demo": "tests/test_demo.py"}


def commands() -> list[str]:
    found = []
    for path in DOCS:
        for comment, block in re.findall(r"(<!--[^>]*-->\n)?```console\n(.*?)```", path.read_text(), re.S):
            if not comment:
                found += [line for line in block.splitlines() if line and line not in ELSEWHERE]
            else:
                assert re.match(
                    r"<!-- (untested: needs (docker|systemd|CUDA)|runs until it is stopped: tests/)", comment
                )
    return found


def home_with_models(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(ROOT / "data" / "models")
    return {**os.environ, "FINETUNER_HOME": str(home)}


def test_there_are_commands() -> None:
    assert len(commands()) >= 4


@pytest.mark.parametrize("command", commands())
def test_each_command_of_the_docs_runs(command: str, tmp_path: Path, embedded_model: Path) -> None:
    done = subprocess.run(
        shlex.split(command), cwd=ROOT, env=home_with_models(tmp_path), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_to_files_lead_somewhere() -> None:
    for path in DOCS:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_make_targets_named_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for path in DOCS:
        assert set(re.findall(r"`make ([a-z]+)`", path.read_text())) <= targets


def nginx_of_the_docs() -> str:
    found = re.search(r"```nginx\n(.*?)```", (ROOT / "docs" / "admin.md").read_text(), re.S)
    assert found
    return found[1]


def test_the_proxy_of_the_docs_fits_the_app() -> None:
    server = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["server"]
    text = nginx_of_the_docs()
    largest = re.search(r"client_max_body_size (\d+)m;", text)
    assert largest
    assert int(largest[1]) > server["maxUploadSize"]
    assert f"proxy_pass http://127.0.0.1:{server['port']};" in text
    for header in ("Host $host", "Upgrade $http_upgrade", "X-Forwarded-For $remote_addr"):
        assert f"proxy_set_header {header};" in text


def test_nginx_takes_the_proxy_of_the_docs(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        assert "CI" not in os.environ, "nginx is missing: .ci/run installs it"
        pytest.skip("nginx is not installed here")
    subject = ["-subj", "/CN=tuner.example.org", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject]
    subprocess.run(command, check=True, capture_output=True)
    text = nginx_of_the_docs().replace("/etc/ssl/tuner.key", str(tmp_path / "key"))
    text = text.replace("/etc/ssl/tuner.pem", str(tmp_path / "pem")).replace("listen 80;", "listen 8639;")
    text = text.replace("listen 443", "listen 8638")
    (tmp_path / "conf").write_text(f"pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}} http {{ {text} }}")
    done = subprocess.run(["nginx", "-t", "-c", str(tmp_path / "conf")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
