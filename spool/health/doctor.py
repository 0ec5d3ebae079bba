"""The doctor: examines this machine and a data home; every finding comes with its cure."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spool.health import accelerator, alive, disk, environment, extras, folders, heartbeat, locks, machine, queue
from spool.health.disk import Disk
from spool.health.finding import Finding
from spool.health.gpu import Gpu
from spool.protocol import settings
from spool.protocol.errors import SettingsError
from spool.protocol.home import Home

DEFAULT_MODEL = "gemma-3-270m"


@dataclass(frozen=True)
class Report:
    findings: list[Finding]
    disk: Disk | None
    """None where it could not be measured; a finding says why."""

    @property
    def ok(self) -> bool:
        return not any(finding.level == "fail" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        findings = [finding.to_json() for finding in self.findings]
        return {"ok": self.ok, "findings": findings, "disk": self.disk.to_json() if self.disk else None}


def examine(home: Home, gpu: Gpu | None = None) -> list[Finding]:
    """The findings alone."""
    return report(home, gpu).findings


def report(home: Home, gpu: Gpu | None = None) -> Report:
    """Everything worth saying about this machine and the data home; changes nothing, takes 3 s at most."""
    beat = heartbeat.read(home)
    options, findings = _settings(home)
    files = locks.scan(home)
    runner_pid = locks.runner_pid(home, files)
    measured: list[Disk] = []

    def look_at_the_disk() -> list[Finding]:
        measured.append(disk.measure(home, options))
        return disk.examine(home, measured[0], options, beat.alive)

    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("environment", environment.examine),
        ("extras", extras.examine),
        ("gpu", lambda: accelerator.examine(home, gpu or Gpu(), options, beat)),
        ("home", lambda: folders.examine(home)),
        ("disk", look_at_the_disk),
        ("locks", lambda: locks.examine(home, beat, files)),
        ("runner", lambda: alive.examine(home, beat, runner_pid)),
        ("model", lambda: _model(home)),
        ("queue", lambda: queue.examine(home)),
        ("incoming", lambda: queue.incoming(home, beat)),
        ("machine", lambda: machine.examine(home, beat, runner_pid, files)),
    ]
    for area, check in checks:
        try:
            findings += check()
        except OSError as error:
            message = f"{error.filename or home.root} cannot be examined: {error.strerror or error}."
            findings.append(Finding(area, "warn", message, "Run doctor as the user that the runner runs as."))
    return Report(findings, measured[0] if measured else None)


def _settings(home: Home) -> tuple[settings.Settings, list[Finding]]:
    try:
        return settings.load(home), []
    except SettingsError as error:
        if (
            home.settings.exists()
            and not os.access(home.settings, os.R_OK)
            and home.states.stat().st_uid != os.geteuid()
        ):
            message = f"{home.settings} cannot be read by you: what is said here goes by the defaults."
            return settings.Settings(), [Finding("settings", "warn", message, "Run doctor as the runner's user.")]
        message = f"{error.message} The runner will not start."
        return settings.Settings(), [Finding("settings", "fail", message, error.hint)]


def _model(home: Home) -> list[Finding]:
    folder = home.models / DEFAULT_MODEL
    missing = [name for name in ("model.safetensors", "config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not missing:
        return [Finding("model", "ok", f"the embedded model {DEFAULT_MODEL} is there.")]
    what = "is not there" if not folder.exists() else f"lacks {', '.join(missing)}"
    cure = "`make setup` makes it; for a service, `deploy/install.sh`."
    return [Finding("model", "warn", f"the embedded model {DEFAULT_MODEL} {what}.", cure)]
