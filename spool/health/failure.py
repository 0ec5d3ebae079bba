"""The failure doctor: from an exception, or from how a process ended, to what went wrong in words and what to do.

{"code": for programs, "message": what happened, "hint": the one recommended cure, "evidence": the line it was seen
from, without secrets, or ""}. Pure and without torch: types are known by their names, messages by their texts.
"""

import os
import re
import signal
from pathlib import Path
from typing import Any

from spool.health.failure_rules import RULES, Rule
from spool.protocol.errors import FinetunerError
from spool.protocol.redact import redact

EVIDENCE_CHARS = 300
TAIL_BYTES = 128 * 1024

PASSING = frozenset({"no_network", "hub_busy"})

BACK_OFF_S: tuple[float, ...] = (60, 300, 900, 1800, 3600, 7200)
"""How long a job waits after its first, second ... attempt that failed for something that passes; then it fails."""

MEMORY_KILL_HINT = (
    "Retry with fewer rows at once (train.batch_size), or free memory on the machine (`finetuner doctor` shows it)."
)
CRASH_HINT = "Its log holds the last words. Other jobs go on."
STALL_HINT = "Retry; if it stalls again, the log holds where each thread stood."
NOT_FORESEEN_HINT = "The log holds the details."

KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Nothing sends these to itself: such an end came from outside."""


def is_passing(code: str) -> bool:
    """Whether waiting alone may cure it, so that a job is tried again by itself after BACK_OFF_S."""
    return code in PASSING


def explain_exception(
    error: BaseException, code: str = "unexpected", broke_off: str = "", memory_hint: str | None = None
) -> dict[str, Any]:
    """What went wrong, from an exception and what it was raised from; the outermost that is recognised counts.

    Args:
        code, broke_off: the code of what is not recognised, and what its message begins with.
        memory_hint: the cure for memory where it is not a smaller batch.
    """
    if isinstance(error, FinetunerError):
        return _told(error.code, error.message, error.hint, _cause_of(error))
    for each in _chain(error):
        found = _recognise(_text(each))
        if found:
            return _explained(*found, memory_hint)
    line = _text(error).splitlines()[0]
    return _told(code, f"{broke_off}{_one_line(line)}", NOT_FORESEEN_HINT, line)


def explain_end(
    returncode: int | None,
    for_memory: bool = False,
    stalled: bool = False,
    log: Path | None = None,
    since_bytes: int = 0,
    what: str = "the job",
) -> dict[str, Any]:
    """What went wrong with a process that left no result.

    Args:
        returncode: as subprocess has it (a signal as a negative number); None where nobody saw the end.
        for_memory: the kernel's oom_kill counters rose, and it died by SIGKILL.
        stalled: the daemon ended it because it gave no sign of life.
        log, since_bytes: where its last words are, and where in the file this attempt began.
    """
    fatal = fatal_texts(log, since_bytes) if log else []
    if stalled:
        message = f"{what} gave no sign of life any more and was ended."
        return _told("stalled", message, STALL_HINT, _where_it_stood(log, since_bytes) if log else "")
    if for_memory:
        message = f"the machine ran out of memory, and the kernel killed {what}."
        return _told("out_of_memory", message, MEMORY_KILL_HINT, "SIGKILL, and the kernel's oom_kill counter rose")
    if returncode is None:
        return _told("runner_ended", f"the runner ended before {what} did.", "It is begun again by itself.", "")
    if -returncode in KILLS:
        name = signal.Signals(-returncode).name
        return _told("killed", f"{what} was ended from outside ({name}).", "It is begun again by itself.", name)
    for text in reversed(fatal):
        found = _recognise(text)
        if found:
            return _explained(*found)
    return _told("crashed", f"{what} {_how(returncode)}.", CRASH_HINT, fatal[-1].splitlines()[0] if fatal else "")


def fatal_texts(log: Path, since_bytes: int = 0) -> list[str]:
    """The ends of tracebacks (with all lines of the message) and the fatal errors at the end of a log, oldest first.

    Only these are judged: what a program prints otherwise may hold words out of the data it trains on.
    """
    lines = _tail(log, since_bytes)
    found: list[str] = []
    in_traceback = False
    for number, line in enumerate(lines):
        if line.startswith("Traceback (most recent call last)"):
            in_traceback = True
        elif in_traceback and line and not line[0].isspace():
            in_traceback = False
            found.append("\n".join([line, *_continued(lines[number + 1 : number + 12])]))
        elif _FATAL.match(line):
            frame = _first_frame(lines[number + 1 : number + 40]) if line.startswith("Fatal Python error") else ""
            found.append(f"{line.strip()}{frame}")
    return found


_FATAL = re.compile(
    r"Fatal Python error: |terminate called |\s+what\(\):  |.*NVRM: Xid|Segmentation fault|Aborted|Bus error"
    r"|(?:double free|free\(\): |malloc\(\): |corrupted |munmap_chunk)|\S+: symbol lookup error"
)
_FRAME = re.compile(r'\s+File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>\S+)')


def _continued(lines: list[str]) -> list[str]:
    """What belongs to an error's message of several lines."""
    taken = []
    for line in lines:
        if line.startswith(("--", "Traceback", "During handling", "The above exception")):
            break
        taken.append(line.strip())
    return taken


def _where_it_stood(log: Path, since_bytes: int) -> str:
    """The innermost Python frame of the main thread in the newest stack dump (faulthandler lists it last)."""
    lines = _tail(log, since_bytes)
    starts = [n for n, line in enumerate(lines) if re.match(r"(?:Current thread|Thread) 0x", line)]
    current = [n for n in starts if lines[n].startswith("Current")] or starts
    return _first_frame(lines[current[-1] + 1 : current[-1] + 3]).removeprefix(", at ") if current else ""


def _first_frame(lines: list[str]) -> str:
    found = next((match for line in lines if (match := _FRAME.match(line))), None)
    return f", at {found['name']} ({Path(found['file']).name}, line {found['line']})" if found else ""


def _tail(log: Path, since_bytes: int) -> list[str]:
    try:
        with open(log, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = max(since_bytes if since_bytes <= size else 0, size - TAIL_BYTES)
            file.seek(start)
            return file.read(TAIL_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def _how(returncode: int) -> str:
    if returncode < 0:
        try:
            return f"crashed ({signal.Signals(-returncode).name})"
        except ValueError:
            return f"crashed (signal {-returncode})"
    return f"ended without a result (exit code {returncode})"


def _recognise(text: str) -> tuple[Rule, re.Match[str]] | None:
    return next(((rule, match) for rule in RULES if (match := rule.pattern.search(text))), None)


def _explained(rule: Rule, match: re.Match[str], memory_hint: str | None = None) -> dict[str, Any]:
    named = {name: _one_line(value or "", 120) for name, value in match.groupdict().items()}
    hint = memory_hint if memory_hint and rule.code == "out_of_memory" else rule.hint
    return _told(rule.code, rule.message.format(**named), hint.format(**named), _line_of(match))


def _told(code: str, message: str, hint: str, evidence: str) -> dict[str, Any]:
    return {"code": code, "message": redact(message), "hint": redact(hint), "evidence": _one_line(evidence)}


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in found and len(found) < 10:
        found.append(each)
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return found


def _text(error: BaseException) -> str:
    """`package.TypeName: text`, as the end of a traceback has it."""
    try:
        words = str(error).strip()
    except Exception:
        words = "(its text cannot be read)"
    return f"{type(error).__module__}.{type(error).__name__}: {words}".removeprefix("builtins.")


def _cause_of(error: FinetunerError) -> str:
    """What an error of ours stands for: `raise ... from None` hides it from tracebacks, not from here."""
    cause = error.__cause__ or error.__context__
    if cause is None or isinstance(cause, FinetunerError):
        return ""
    text = _text(cause)
    found = _recognise(text)
    return _line_of(found[1]) if found else text


def _line_of(match: re.Match[str]) -> str:
    """The line that a pattern was found in."""
    start = match.string.rfind("\n", 0, match.start()) + 1
    return match.string[start:].partition("\n")[0]


def _one_line(text: str, longest: int = EVIDENCE_CHARS) -> str:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", redact(text))
    words = " ".join("".join(c if c.isprintable() else " " for c in plain).split())
    return words if len(words) <= longest else words[: longest - 1] + "…"
