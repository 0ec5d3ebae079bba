"""`finetuner schema`: the JSON Schema of a job spec, as committed in docs/job-spec.schema.json."""

import argparse

from spool.cli import terminal
from spool.protocol.home import Home


def run(arguments: argparse.Namespace, home: Home) -> int:
    from spool.protocol.schema import json_schema

    terminal.print_json(json_schema())
    return 0
