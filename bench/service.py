"""The service on a real systemd: installs it in namespaces of its own, breaks it, and writes down what was seen.

Run as: sudo python -m bench.service [--train]        (needs root, systemd and a cgroup2 mount; about 3 minutes)

Nothing of this machine is changed: its root lies below an overlay that is thrown away. `--train` also trains the
embedded model under the unit, stops it in the middle and lets it go on.
"""

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = (ROOT / ".venv").resolve()
STUB = "/mnt/src/tests/stub_trainer.py"
UNIT = "/etc/systemd/system/finetuner-runner.service"
failed: list[str] = []


class Machine:
    """The machine inside: systemd as PID 1, reached with nsenter."""

    def __init__(self, scratch: Path) -> None:
        cgroup2 = next(line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup2 " in line)
        self.cgroup = Path(cgroup2) / f"finetuner-service-{os.getpid()}"
        self.cgroup.mkdir()
        command = ["unshare", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child"]
        command += [str(ROOT / "bench" / "service_boot.sh"), str(scratch), str(ROOT)]
        self.log = open(scratch.with_suffix(".log"), "wb")  # noqa: SIM115
        inside = self.cgroup / "cgroup.procs"
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, preexec_fn=lambda: inside.write_text(str(os.getpid()))
        )
        self.pid1 = ""
        until(lambda: self._booted(), 30)

    def _booted(self) -> bool:
        if self.process.poll() is not None:
            raise SystemExit(f"systemd did not start: {Path(self.log.name).read_text()[-2000:]}")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.pid1 = children[0] if children else ""
        return bool(self.pid1) and "running" in self.sh("systemctl is-system-running", quiet=True)

    def sh(self, command: str, user: str | None = None, quiet: bool = False) -> str:
        """Runs a command inside; prints both unless quiet. Standard error is part of what it gives."""
        words = ["runuser", "-u", user, "--", "sh", "-c", command] if user else ["sh", "-c", command]
        environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        done = subprocess.run(
            ["nsenter", "-t", self.pid1, "-a", *words],
            env=environment,
            capture_output=True,
            text=True,
            cwd="/",
            start_new_session=True,
        )
        said = (done.stdout + done.stderr).strip()
        if not quiet:
            print(f"{user or 'root'}$ {command}\n{said}\n[exit {done.returncode}]", flush=True)
        return said

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)  # --kill-child takes systemd, and with it everything inside
        self.process.wait()
        until(self._swept, 20)

    def _swept(self) -> bool:
        try:
            for folder, _, _ in os.walk(self.cgroup, topdown=False):
                os.rmdir(folder)
        except OSError:  # the last processes are still ending
            return False
        return not self.cgroup.exists()


def until(condition: Callable[[], object], timeout_s: float) -> float:
    """Seconds until it was true; never less exact than 20 ms."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() > begun + timeout_s:
            return float("inf")
        time.sleep(0.02)
    return time.monotonic() - begun


def expect(what: str, true: object) -> None:
    print(f"{'PASS ' if true else 'FAIL '} {what}", flush=True)
    if not true:
        failed.append(what)


def title(words: str) -> None:
    print(f"\n== {words}", flush=True)


def install(box: Machine) -> None:
    title("install, twice")
    box.sh("mkdir -p /home/alice && echo private > /home/alice/x; echo hf_not_a_real_token_0123456789 > /root/token")
    said = box.sh("/mnt/src/deploy/install.sh --no-packages --no-start --token /root/token")
    if "installed" not in said:
        raise SystemExit("the installer failed")
    box.sh("/mnt/src/deploy/install.sh --no-packages --no-start | tail -2")
    # the packages are this checkout's, under Debian's own Python: what make setup used may lie below /root
    venv = "/opt/gemma-finetuner/.venv"
    box.sh(
        f"mkdir -p {venv}/bin {venv}/lib && cp {VENV}/pyvenv.cfg {venv}/ && mount --bind {VENV}/lib {venv}/lib"
        f" && ln -s /usr/bin/python3.11 {venv}/bin/python"
        f" && for n in finetuner finetuner-runner; do sed '1c#!{venv}/bin/python' {VENV}/bin/$n > {venv}/bin/$n; done"
        f" && chmod 755 {venv}/bin/*",
        quiet=True,
    )
    box.sh("sed -i '2iexport PYTHONPATH=/opt/gemma-finetuner' /usr/local/bin/finetuner", quiet=True)
    for unit in ("runner", "web"):
        drop_in(box, unit, "90-trial", "Environment=PYTHONPATH=/opt/gemma-finetuner")
    models = "/var/lib/finetuner/models"
    box.sh(f"install -d -o finetuner {models} {models}/m && echo '{{}}' > {models}/m/config.json", quiet=True)
    box.sh("useradd -M alice; useradd -M bob; useradd -M mallory; chown alice /home/alice; chmod 700 /home/alice")
    box.sh("usermod -aG finetuner-drop alice; usermod -aG finetuner-drop bob")
    stub(box, True)


def drop_in(box: Machine, unit: str, name: str, text: str) -> None:
    folder = f"/etc/systemd/system/finetuner-{unit}.service.d"
    box.sh(
        f"mkdir -p {folder} && printf '[Service]\\n{text}\\n' > {folder}/{name}.conf && systemctl daemon-reload",
        quiet=True,
    )


def stub(box: Machine, on: bool) -> None:
    """With or without the stub trainer, which needs no torch."""
    python = "/opt/gemma-finetuner/.venv/bin/python"
    words = f"--trainer {python} {STUB} --checker {python} /mnt/src/tests/stub_checker.py"
    command = f"/opt/gemma-finetuner/.venv/bin/finetuner-runner {words if on else ''}"
    drop_in(box, "runner", "91-stub", f"ExecStart=\\nExecStart={command}")


def show(box: Machine, *names: str) -> list[str]:
    words = " ".join(f"-p {name}" for name in names)
    lines = dict(
        line.partition("=")[::2] for line in box.sh(f"systemctl show finetuner-runner {words}", quiet=True).splitlines()
    )
    return [lines[name] for name in names]


def submit(box: Machine, name: str, user: str = "alice", **more: str) -> str:
    fields = "".join(f', "{key}": {value}' for key, value in {"model": '"m"', **more}.items())
    spec = f'{{"schema": 1, "name": "{name}", "dataset": "examples/support_tickets.jsonl"{fields}}}'
    return box.sh(f"echo '{spec}' > /tmp/{name}.json && finetuner submit /tmp/{name}.json", user).splitlines()[0]


def state(box: Machine, job_id: str) -> str:
    found = box.sh(f"ls /var/lib/finetuner/spool/state/*/*-{job_id}.json", quiet=True)
    return found.split("/")[-2] if found.endswith(".json") else ""


def trainers(box: Machine) -> list[str]:
    return [line for line in box.sh("ps -eo pid,args", quiet=True).splitlines() if "--attempt" in line]


def people(box: Machine) -> None:
    title("who may do what")
    box.sh("systemctl start finetuner-runner finetuner-web")
    box.sh("systemctl --no-pager status finetuner-runner finetuner-web | head -40")
    box.sh("for unit in finetuner-runner finetuner-web; do systemd-analyze --no-pager security $unit | tail -1; done")
    box.sh("find /var/lib/finetuner -maxdepth 2 -printf '%M %u:%g %p\\n' | sort -k3")
    done = submit(box, "ok")
    expect("a job that alice submits is done", until(lambda: state(box, done) == "done", 20) < 20)
    box.sh("finetuner jobs", "alice")
    box.sh(f"finetuner show {done}", "alice")
    box.sh("finetuner check /opt/gemma-finetuner/examples/support_tickets.jsonl | tail -3", "alice")
    expect("who is not in the group sees nothing", "denied" in box.sh("ls /var/lib/finetuner", "mallory"))
    for folder in ("runs", "spool/state/queued", "spool/rejected", "datasets", "models", "cache/tokens", "."):
        said = box.sh(f"touch /var/lib/finetuner/{folder}/x", "alice", quiet=True)
        expect(f"alice cannot write into {folder}/", "denied" in said)
    box.sh("systemctl stop finetuner-runner")
    box.sh("echo mine > /var/lib/finetuner/spool/incoming/a.txt", "alice")
    said = box.sh("cd /var/lib/finetuner/spool/incoming && (rm -f a.txt; mv a.txt b; echo x >> a.txt)", "bob")
    expect("bob can neither remove, rename nor change alice's drop", said.count("\n") == 2)
    box.sh("rm /var/lib/finetuner/spool/incoming/a.txt", "alice", quiet=True)
    box.sh("systemctl start finetuner-runner")


def sandbox(box: Machine) -> None:
    title("from inside the web app's sandbox (its unit, with bench/service_probe.py in its place)")
    run = box.sh("ls /var/lib/finetuner/runs | head -1", quiet=True)
    python = "/opt/gemma-finetuner/.venv/bin/python"
    box.sh(
        "sed -e 's|^ExecStart=.*|ExecStart="
        + f"{python} -P /mnt/src/bench/service_probe.py {run}|' -e '/^ExecStartPost/d'"
        " -e 's/^Type=.*/Type=oneshot/' -e '/^Restart/d'"
        " -e '/^Environment=FINE/a Environment=PYTHONPATH=/opt/gemma-finetuner'"
        " /etc/systemd/system/finetuner-web.service > /etc/systemd/system/probe.service && systemctl daemon-reload",
        quiet=True,
    )
    server = 'import socket;s=socket.create_server(("",7777))\nwhile 1: s.accept()[0].close()'
    box.sh(f"systemd-run --quiet --unit=listener python3 -c '{server}'", quiet=True)
    time.sleep(0.5)
    said = box.sh("python3 -c 'import socket;print(socket.create_connection((\"10.99.0.1\",7777)))' | cut -c1-30")
    expect("outside of the sandbox the address answers", "socket" in said)
    box.sh("systemctl start probe")
    said = box.sh("journalctl -u probe -o cat --no-pager | grep -E '^(ok|WRONG) '")
    expect("the sandbox allows and refuses what it should", "WRONG" not in said and said.count("\n") > 20)
    said = box.sh(
        "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8501/;"
        " curl -s http://127.0.0.1:8501/_stcore/script-health-check"
    )
    expect("the web app answers", said.startswith("200"))


def stops(box: Machine) -> None:
    title("stop, kill and hang")
    job = submit(box, "slow")
    until(lambda: trainers(box), 20)
    until(lambda: "checkpoint-3" in box.sh(f"ls /var/lib/finetuner/runs/{job}/checkpoints", quiet=True), 20)
    box.sh("systemctl status --no-pager finetuner-runner | grep Status")
    begun = time.monotonic()
    box.sh("systemctl stop finetuner-runner")
    print(f"stopped in {time.monotonic() - begun:.2f} s")
    expect("the job is back in the queue, no trainer lives", state(box, job) == "queued" and not trainers(box))
    box.sh(f"tail -n 7 /var/lib/finetuner/runs/{job}/attempts/0001.json")
    expect("it ended cleanly", show(box, "Result", "ExecMainStatus") == ["success", "0"])
    begun = time.monotonic()
    box.sh("systemctl start finetuner-runner")
    until(lambda: trainers(box), 20)
    print(f"start to a trainer at work: {time.monotonic() - begun:.2f} s")
    times = []
    for _ in range(10):
        pid, trainer = show(box, "MainPID")[0], trainers(box)
        begun = time.monotonic()
        box.sh(f"kill -9 {pid}", quiet=True)
        until(lambda old=trainer: set(trainers(box)) - set(old), 30)  # type: ignore[misc]
        times.append(time.monotonic() - begun)
        if times[-1] > 20:
            raise SystemExit("the runner did not come back")
        found = trainers(box)
        expect(f"one trainer lives: {len(found)}", len(found) == 1)
    times.sort()
    print(
        "kill -9 of the runner to a trainer at work again, 10 times: "
        f"median {times[5]:.2f} s, longest {times[-1]:.2f} s"
    )
    expect("at most 5 s", times[-1] <= 5)
    box.sh("systemctl show finetuner-runner -p NRestarts -p ActiveState")
    drop_in(box, "runner", "92-dog", "WatchdogSec=4\\nTimeoutAbortSec=2")
    box.sh("systemctl restart finetuner-runner", quiet=True)
    before = show(box, "NRestarts", "MainPID")
    until(lambda: trainers(box), 20)
    time.sleep(9)
    expect("a watchdog of 4 s is fed (9 s, same process)", show(box, "NRestarts", "MainPID") == before)
    old = trainers(box)
    box.sh(f"kill -STOP {before[1]}", quiet=True)
    took = until(lambda: set(trainers(box)) - set(old), 60)
    print(f"a frozen runner: restarted, and a trainer at work, after {took:.1f} s")
    expect("the watchdog restarts a frozen runner", took < 60 and show(box, "NRestarts") != before[:1])
    box.sh("rm /etc/systemd/system/finetuner-runner.service.d/92-dog.conf; systemctl daemon-reload", quiet=True)
    box.sh(f"finetuner cancel {job}", "alice")
    expect("the job is cancelled", until(lambda: state(box, job) == "cancelled", 20) < 20)


def faults(box: Machine) -> None:
    title("a fault that halts, a wrong configuration, a second runner")
    box.sh("systemctl restart finetuner-runner", quiet=True)
    box.sh("chmod 0 /var/lib/finetuner/spool/incoming")
    until(lambda: "halted" in show(box, "StatusText")[0], 20)
    box.sh(
        "systemctl show finetuner-runner -p StatusText -p ActiveState -p NRestarts; finetuner doctor | grep -i runner"
    )
    expect(
        "halted, it stays up and says why",
        show(box, "ActiveState")[0] == "active" and "halted" in show(box, "StatusText")[0],
    )
    box.sh("chmod 3775 /var/lib/finetuner/spool/incoming")
    expect("the fault gone, it goes on", until(lambda: "ready" in show(box, "StatusText")[0], 20) < 20)
    said = box.sh(
        "FINETUNER_HOME=/var/lib/finetuner PYTHONPATH=/opt/gemma-finetuner"
        " /opt/gemma-finetuner/.venv/bin/finetuner-runner; echo exit $?",
        "finetuner",
    )
    expect("a second runner leaves with 75", "exit 75" in said.splitlines())
    box.sh(
        "systemctl stop finetuner-runner; echo '{\"scan\": 1}' > /var/lib/finetuner/settings.json;"
        " systemctl start finetuner-runner"
    )
    time.sleep(3)
    got = show(box, "ActiveState", "ExecMainStatus", "NRestarts")
    expect(f"a wrong configuration is not tried again: {got}", got == ["failed", "78", "0"])
    box.sh("rm /var/lib/finetuner/settings.json; systemctl start finetuner-runner", quiet=True)


def secrets(box: Machine) -> None:
    title("the token")
    # a trainer that says in its log what it was given
    box.sh(
        "printf '#!/bin/sh\\necho given:$HF_TOKEN:$NOTIFY_SOCKET:\\nsleep 2\\n' > /usr/local/bin/teller;"
        " chmod 755 /usr/local/bin/teller",
        quiet=True,
    )
    words = (
        "--trainer /usr/local/bin/teller --checker /opt/gemma-finetuner/.venv/bin/python /mnt/src/tests/stub_checker.py"
    )
    command = f"/opt/gemma-finetuner/.venv/bin/finetuner-runner {words}"
    drop_in(box, "runner", "91-stub", f"ExecStart=\\nExecStart={command}")
    box.sh("systemctl restart finetuner-runner", quiet=True)
    job = submit(box, "token")
    log = f"/var/lib/finetuner/runs/{job}/train.log"
    until(lambda: "given" in box.sh(f"cat {log}", quiet=True), 20)
    said = box.sh(f"grep -m1 given {log}")
    expect("the child has it, and no line to systemd", "given:hf_not_a_real_token_0123456789::" in said)
    box.sh(f"finetuner cancel {job}; rm {log}", quiet=True)
    until(lambda: state(box, job) in ("cancelled", "failed"), 30)
    box.sh("rm -f /root/token", quiet=True)
    found = box.sh(
        "grep -rl hf_not_a_rea[l] /var/lib/finetuner /etc /opt/gemma-finetuner --exclude-dir=.venv; "
        "journalctl --no-pager -o cat | grep -c hf_not_a_rea[l]; cat /proc/*/cmdline | grep -ac hf_not_a_rea[l]"
    )
    expect("it stands in its own file alone", found.splitlines() == ["/etc/finetuner/hf_token", "0", "0"])
    stub(box, True)


def train(box: Machine) -> None:
    title("the embedded model under the unit: stopped in the middle, it goes on")
    stub(box, False)
    box.sh(
        "rmdir /var/lib/finetuner/models/m 2>/dev/null; mkdir -p /var/lib/finetuner/models/gemma-3-270m && "
        f"mount --bind {(ROOT / 'data').resolve()}/models/gemma-3-270m /var/lib/finetuner/models/gemma-3-270m; "
        f"systemctl restart finetuner-runner",
        quiet=True,
    )
    job = submit(box, "real", model='"gemma-3-270m"', train='{"max_steps": 8, "save_steps": 3, "effective_batch": 2}')
    folder = f"/var/lib/finetuner/runs/{job}"
    step = lambda: box.sh(f"ls {folder}/checkpoints/checkpoint-3", quiet=True)  # noqa: E731
    print(f"first checkpoint after {until(lambda: 'COMPLETE' in step(), 300):.0f} s")
    begun = time.monotonic()
    box.sh("systemctl stop finetuner-runner")
    print(f"stopped in {time.monotonic() - begun:.1f} s, the job is {state(box, job)}")
    expect("it is back in the queue", state(box, job) == "queued")
    box.sh("systemctl start finetuner-runner")
    took = until(lambda: state(box, job) in ("done", "failed"), 400)
    box.sh(
        f"finetuner show {job}; cat {folder}/attempts/000*.json | grep -E 'outcome|step|why';"
        f" tail -n 3 {folder}/train.log",
        "alice",
    )
    expect(f"it is done after {took:.0f} s more", state(box, job) == "done")
    box.sh("journalctl -u finetuner-runner -o cat --no-pager | tail -12")
    box.sh(f"find /var/lib/finetuner -newer {folder}/spec.json -maxdepth 2 -type d | sort; ls -A {folder}")


def goodbye(box: Machine) -> None:
    title("uninstall")
    box.sh(
        "umount -l /var/lib/finetuner/models/gemma-3-270m /opt/gemma-finetuner/.venv/lib 2>/dev/null",
        quiet=True,
    )
    box.sh("cp /mnt/src/deploy/install.sh /root/; /mnt/src/deploy/install.sh --uninstall")
    said = box.sh(
        "ls /etc/systemd/system | grep finetuner; ls -d /opt/gemma-finetuner /etc/finetuner /usr/local/bin/finetuner;"
        " ls /var/lib/finetuner"
    )
    expect("all is gone but the data", said.count("No such file") == 3 and "spool" in said)
    box.sh("/mnt/src/deploy/install.sh --uninstall --purge")
    expect("purged", "No such file" in box.sh("ls /var/lib/finetuner; getent passwd finetuner finetuner-web"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.service")
    parser.add_argument("--train", action="store_true", help="train the embedded model too (minutes)")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("systemd-analyze"):
        print("bench.service: needs root and systemd", file=sys.stderr)
        return 2
    systemd = subprocess.run(["systemctl", "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, Linux {platform.release()}, {systemd}")
    print(f"command: python -m bench.service {' '.join(sys.argv[1:])}")
    print("cgroup2 here holds no memory controller where version 1 holds it: MemoryMax is then set and not enforced.")
    scratch = Path(tempfile.mkdtemp(prefix="service-"))
    box = Machine(scratch)
    try:
        for part in (install, people, sandbox, stops, faults, secrets, *([train] if arguments.train else []), goodbye):
            part(box)
    finally:
        box.end()
        scratch.rmdir()
    print(f"\n{len(failed)} failed" + "".join(f"\n  {what}" for what in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
