"""`finetuner keep`: a data file into datasets/, as the Data page does it; prints the NAME@VERSION that a job names."""

import argparse
from pathlib import Path

from spool.cli import terminal
from spool.protocol.errors import NotFound
from spool.protocol.home import Home


def run(arguments: argparse.Namespace, home: Home) -> int:
    from spool.data.keeping import keep

    path = Path(arguments.file)
    if not path.is_file():
        raise NotFound(f"there is no file {path}.", "Give the path of a data file.", "unreadable")
    home.create()
    stored = keep.add(home, arguments.name or keep.clean_name(path.name), path.name, path)
    if stored.format is None:
        terminal.say("How its rows are laid out was not recognised: name the columns in the job's data.mapping.")
    if arguments.json:
        terminal.print_json({"reference": stored.reference, **keep.to_json(stored)})
    else:
        terminal.out(stored.reference)
    return 0
