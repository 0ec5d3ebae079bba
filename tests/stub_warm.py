"""The child that is kept warm, with the stub trainer for its job and no libraries.

What lies in HOME/load says how loading them goes: `slow` (until HOME/loaded is there), `fail` (it cannot be done), or
both; nothing there: at once.
"""

import sys
import time
from pathlib import Path

import stub_trainer

from runner import child, warm


def how(words: list[str]) -> str:
    path = Path(words[words.index("--home") + 1]) / "load"
    return path.read_text() if path.exists() else ""


def load(on_gpu: bool) -> None:
    home = Path(sys.argv[sys.argv.index("--home") + 1])
    while "slow" in how(sys.argv) and not (home / "loaded").exists():
        time.sleep(0.01)
    if "fail" in how(sys.argv):
        raise ImportError("no libraries here")


if __name__ == "__main__":
    warm.load = load
    child.main = lambda order: stub_trainer.main()
    sys.exit(warm.main())
