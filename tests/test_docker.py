"""What stands in for building the image where no Docker engine is: hadolint, and that all it names is there."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from conftest import ROOT

TEXT = (ROOT / "Dockerfile").read_text()


def test_hadolint_finds_nothing() -> None:
    binary = shutil.which("hadolint") or str(Path(sys.executable).parent / "hadolint")
    done = subprocess.run([binary, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_copied_file_exists() -> None:
    for line in re.findall(r"^COPY --chown=finetuner (.+)$", TEXT, re.M):
        *sources, _ = line.split()
        assert all([*ROOT.glob(source)] if "*" in source else (ROOT / source).exists() for source in sources), line


def test_it_runs_as_nobody_special_and_names_real_modules() -> None:
    assert TEXT.index("USER 10001") < TEXT.index("AS runner")
    assert "USER root" not in TEXT
    for module in re.findall(r"python -m ([\w.]+)", TEXT):
        assert importlib.util.find_spec(module), module
    assert len(re.findall("HEALTHCHECK", TEXT)) == 2


def test_the_health_check_of_the_runner_tells_alive_from_dead(tmp_path: Path) -> None:
    code = re.search(r'CMD \["python", "-c", "(import sys.*?)"\]', TEXT)
    assert code is not None
    done = subprocess.run(
        [sys.executable, "-c", code[1]], cwd=ROOT, env={"FINETUNER_HOME": str(tmp_path), "PATH": ""}, check=False
    )
    assert done.returncode == 1


def test_compose_builds_the_targets_that_exist() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    for service in services.values():
        assert f"AS {service['build']['target']}\n" in TEXT
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"]
        assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])
    assert int(services["runner"]["stop_grace_period"].removesuffix("s")) >= 180
    assert services["web"]["ports"] == ["127.0.0.1:8501:8501"]
