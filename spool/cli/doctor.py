"""`finetuner doctor`: what is wrong with this machine and the data home, each finding with its cure."""

import argparse

from spool.cli import terminal
from spool.protocol.home import Home

MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def run(arguments: argparse.Namespace, home: Home) -> int:
    from spool.health.doctor import examine

    findings = examine(home)
    ill = any(finding.level == "fail" for finding in findings)
    if arguments.json:
        terminal.print_json({"ok": not ill, "findings": [finding.to_json() for finding in findings]})
        return int(ill)
    for finding in findings:
        terminal.out(f"{MARKS[finding.level]}  {finding.area:<9} {terminal.one_line(finding.message)}")
        if finding.cure:
            terminal.out(f"{'':<16}-> {terminal.one_line(finding.cure)}")
    return int(ill)
