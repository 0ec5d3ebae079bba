"""`finetuner doctor`: what is wrong with this machine and the data home, each finding with its cure."""

import argparse
from typing import TYPE_CHECKING

from spool.cli import terminal
from spool.protocol.home import Home

if TYPE_CHECKING:
    from spool.health.disk import Disk

MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def run(arguments: argparse.Namespace, home: Home) -> int:
    from spool.health.doctor import report

    found = report(home)
    if arguments.json:
        terminal.print_json(found.to_json())
        return int(not found.ok)
    for finding in found.findings:
        terminal.out(f"{MARKS[finding.level]}  {finding.area:<9} {terminal.one_line(finding.message)}")
        if finding.cure:
            terminal.out(f"{'':<16}-> {terminal.one_line(finding.cure)}")
    if found.disk:
        _print_uses(found.disk)
    return int(not found.ok)


def _print_uses(disk: "Disk") -> None:
    used = {name: count for name, count in disk.uses.items() if count}
    if not used:
        return
    from spool.health.disk import size

    terminal.out(f"\nWhat uses the disk{'' if disk.complete else ' (at least: there was no time to count all)'}:")
    for name, count in used.items():
        terminal.out(f"  {size(count):>12}  {name.replace('_', ' ')}")
