"""`finetuner verify PATH`: an export against its manifest, every byte of it. Needs no data home and no runner."""

import argparse
from dataclasses import asdict
from pathlib import Path

from spool.cli import terminal
from spool.health.disk import size
from spool.protocol import manifest
from spool.protocol.home import Home


def run(arguments: argparse.Namespace, home: Home) -> int:
    found = manifest.verify(Path(arguments.path))
    if arguments.json:
        terminal.print_json({**asdict(found), "path": str(found.path), "ok": not found.faults})
        return 1 if found.faults else 0
    for fault in found.faults:
        terminal.say(f"{fault}.")
    whose = found.lineage.get("name") or found.lineage.get("job") or "?"
    if found.faults:
        said = f"{len(found.faults)} of {found.files} files are not as they were exported"
        terminal.complain(f"{found.path}: {said}.", "Export it again, or fetch it again.")
        return 1
    terminal.out(f"{found.kind} of {whose}: {found.files} files, {size(found.bytes)}, as they were exported.")
    if found.verdict == "ready":
        terminal.out("Its certificate says: it answers like the adapter that it was made from.")
    elif found.verdict:
        terminal.out(f"Its certificate says: suspect ({', '.join(found.failed)}).")
    return 0
