"""A reader of an export in a process of its own: one JSON request a line, and one line that answers it.

{"read": {"ids": [...], "tokens": [...]}}   -> for each place of `tokens`: its logarithmic probability, and the
                                               likeliest tokens with theirs, after the true tokens before it
{"chat": {"messages": [...], "tokens": 8}}  -> the tokens of the prompt as its own chat template and tokenizer make
                                               them, and what it says to it
What its library says goes to standard error.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any


def serve(load: Callable[[], Any]) -> int:
    """Answers until nobody asks any more. Each request names a method of what was loaded."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries speak on standard output too
    reader = load()
    print(json.dumps({"loaded": True}), file=answers, flush=True)
    for line in sys.stdin:
        ((method, given),) = json.loads(line).items()
        print(json.dumps(getattr(reader, method)(**given)), file=answers, flush=True)
    return 0
