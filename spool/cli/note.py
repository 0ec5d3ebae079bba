"""`finetuner note`: prints what people wrote on a job, or writes it anew."""

import argparse
import getpass

from spool.cli import terminal, which, words
from spool.protocol import notes
from spool.protocol.home import Home


def run(arguments: argparse.Namespace, home: Home) -> int:
    job_id = which.resolve(home, arguments.id)
    note = notes.read(home, job_id)
    if arguments.text is not None or arguments.tags is not None:
        text = note.text if arguments.text is None else arguments.text
        tags = note.tags if arguments.tags is None else arguments.tags.split(",")
        note = notes.write(home, job_id, text, tags, getpass.getuser())
    if arguments.json:
        terminal.print_json({"id": job_id, **note.to_json()})
        return 0
    for line in note.text.splitlines():
        terminal.out(terminal.one_line(line))
    when = f"{words.local_time(note.at)}, by {note.by or '?'}" if note.at else None
    terminal.fields([("tags", ", ".join(note.tags) or None), ("written", when)])
    return 0
