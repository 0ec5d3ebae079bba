"""The `finetuner` command: its verbs and their options; each verb's work is in the file of its name.

Run as: finetuner VERB ...        (or: python -m spool.cli.main VERB ...)

Exit codes: 0 fine, 1 the thing failed, 2 the input is wrong, 130 stopped with Ctrl-C.
"""

import argparse
import importlib
import os
import sys

from spool.cli import terminal
from spool.protocol.errors import DataError, FinetunerError, ModelError, NotFound, SettingsError, SpecError
from spool.protocol.home import Home

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
JOB = "the job's id or a unique beginning of it, its submission_id, or the dropped file's name"
STATES = ("checking", "queued", "running", "held", "done", "failed", "cancelled", "rejected")


def parser() -> argparse.ArgumentParser:
    """All verbs. --home may stand before or after the verb."""
    main = argparse.ArgumentParser(
        prog="finetuner",
        description="Fine-tune Gemma through the spool of this machine.",
        epilog="`finetuner VERB --help` tells more. Exit codes: 0 fine, 1 the thing failed, 2 the input is wrong.",
        allow_abbrev=False,
    )
    main.add_argument(
        "--home", metavar="DIR", default=None, help="the data home (default: FINETUNER_HOME, else ./data)"
    )
    verbs = main.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, words: str, module: str = "") -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".", allow_abbrev=False)
        sub.add_argument("--home", metavar="DIR", default=argparse.SUPPRESS, help="the data home")
        sub.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
        sub.set_defaults(module=module or name)
        return sub

    submit = verb("submit", "drop a job spec and print the job's id")
    submit.add_argument("spec", metavar="SPEC.json", help="the job spec; - reads it from standard input")
    submit.add_argument(
        "--wait", action="store_true", help="show progress; exit 0 done, 1 failed or cancelled, 2 rejected"
    )
    listing = verb("jobs", "list the queue and the history, oldest first")
    listing.add_argument("--state", metavar="S", choices=STATES, help="only jobs in this state: " + ", ".join(STATES))
    show = verb("show", "show one job")
    show.add_argument("id", metavar="ID", help=JOB)
    wait = verb("wait", "wait until jobs have ended; exit 0 all done, 1 failed or cancelled, 2 rejected, 124 too late")
    wait.add_argument("id", metavar="ID", nargs="+", help=JOB)
    wait.add_argument("--timeout", metavar="SECONDS", type=float, help="wait no longer (default: for ever)")
    for name, words in (
        ("cancel", "stop a job, or take it out of the queue"),
        ("hold", "keep a queued job, or the whole queue, from starting"),
        ("release", "put a held job back into the queue, or let the queue go on"),
        ("top", "move a waiting job to the front"),
        ("up", "move a waiting job one place up"),
        ("down", "move a waiting job one place down"),
    ):
        order = verb(name, words, "control")
        whole = name in ("hold", "release")
        more = "; without it: the whole queue" if whole else ""
        order.add_argument("id", metavar="ID", nargs="?" if whole else None, help=JOB + more)
    priority = verb("priority", "give a waiting job another priority")
    priority.add_argument("id", metavar="ID", help=JOB)
    priority.add_argument("priority", metavar="N", type=int, choices=range(10), help="0 (first) to 9 (last)")
    drain = verb("drain", "finish the running job and start no other, until the runner is restarted or released")
    drain.add_argument("--wait", action="store_true", help="return when nothing runs any more")
    retry = verb("retry", "run an ended job again, as a new job")
    retry.add_argument("id", metavar="ID", help=JOB)
    retry.add_argument("--suggested", action="store_true", help="with the change that `finetuner show ID` suggests")
    delete = verb("delete", "remove the exports and checkpoints of ended jobs; their records stay")
    which = delete.add_mutually_exclusive_group(required=True)
    which.add_argument("id", metavar="ID", nargs="?", help=JOB)
    which.add_argument(
        "--older-than", metavar="DAYS", type=_days, help="of all jobs that ended so long ago and lack the tag keep"
    )
    delete.add_argument("--yes", action="store_true", help="really; without it nothing is deleted")
    note = verb("note", "print or write the note and the tags of a job")
    note.add_argument("id", metavar="ID", help=JOB)
    note.add_argument("text", metavar="TEXT", nargs="?", help='what to write; "" takes it away')
    note.add_argument("--tags", metavar="A,B,C", help='tags, with commas between; "" takes them away')
    logs = verb("logs", "print a job's log")
    logs.add_argument("id", metavar="ID", help=JOB)
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the job has ended")
    check = verb("check", "examine a data file before training on it; needs no runner")
    check_options(check)
    keep = verb("keep", "store a data file as a dataset and print its NAME@VERSION")
    keep.add_argument(
        "file", metavar="FILE", help="CSV, TSV, JSON, JSONL, TXT or Parquet, also gzipped, or a zip archive"
    )
    keep.add_argument("--name", metavar="NAME", help="what the dataset is called (default: as the file)")
    verify = verb("verify", "hold an export against its manifest, every byte of it; needs no runner")
    verify.add_argument("path", metavar="PATH", help="the folder of an export, or a zip of it")
    verb("models", "list the base models that a job can name, with what each needs; needs no runner")
    verb("schema", "print the JSON Schema of a job spec")
    status = verb("status", "say whether the runner works (else exit 1), what waits, and how much disk is left")
    status.add_argument("--metrics", action="store_true", help="in the text format of Prometheus")
    verb("doctor", "examine GPU, driver, versions, disk, permissions, locks and the runner")
    return main


def check_options(check: argparse.ArgumentParser) -> None:
    """What `finetuner check` can be told: the same as a job spec's `data`."""
    check.add_argument(
        "file",
        metavar="FILE",
        help="CSV, TSV, JSON, JSONL, TXT or Parquet, also gzipped, a zip archive, a folder, "
        "a stored dataset's name, or hf:ORG/NAME",
    )
    check.add_argument("--format", default="auto", help="how a row is laid out (default: recognised by its columns)")
    check.add_argument(
        "--mapping",
        metavar="ROLE=COLUMN",
        action="append",
        default=[],
        help="which column plays a role; may be repeated",
    )
    check.add_argument(
        "--model", metavar="M", help="count tokens as this model does: a name under models/, or a folder"
    )
    check.add_argument("--max-length", metavar="TOKENS", type=int, help="the limit that rows are cut to")
    check.add_argument("--encoding", default="auto", help="how bytes become letters (default: found)")
    check.add_argument("--delimiter", default="auto", help="what parts the cells of a CSV file (default: found)")
    check.add_argument("--no-header", action="store_true", help="the first line of a CSV file is a row")
    check.add_argument("--rejects", metavar="OUT.jsonl", help="write the rows that cannot be used, with the reasons")


def _days(text: str) -> float:
    days = float(text)
    if not 0 <= days <= 36_500:
        raise ValueError(text)
    return days


def main(argv: list[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    arguments = parser().parse_args(argv)
    try:
        code = run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader (head, less) has seen enough; Python must not complain while it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        terminal.say("")
        return INTERRUPTED


def run(arguments: argparse.Namespace) -> int:
    try:
        module = importlib.import_module(f"spool.cli.{arguments.module}")
        return int(module.run(arguments, Home.at(arguments.home)))
    except BrokenPipeError:
        raise
    except FinetunerError as error:
        wrong = isinstance(error, SpecError | NotFound | DataError | ModelError | SettingsError)
        return failed(arguments, error, WRONG_INPUT if wrong else FAILED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        hint = "Is it yours to read and write? `finetuner doctor` looks at the permissions."
        return failed(arguments, FinetunerError(f"{where}{error.strerror or error}", hint, "os_error"), FAILED)
    except Exception as error:
        if os.environ.get("FINETUNER_DEBUG"):
            raise
        hint = "That is a bug in finetuner. FINETUNER_DEBUG=1 shows where; please report it."
        return failed(arguments, FinetunerError(f"{type(error).__name__}: {error}", hint, "bug"), FAILED)


def failed(arguments: argparse.Namespace, error: FinetunerError, code: int) -> int:
    terminal.complain(error.message, error.hint)
    if arguments.json:
        terminal.print_json({"error": error.to_json()})
    return code


if __name__ == "__main__":
    sys.exit(main())
