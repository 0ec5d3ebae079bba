"""The child that is started before its job: it loads the libraries, waits for the job, and does it.

Run as: python -m runner.warm --home DIR --line FD [--gpu]        (the daemon does; see runner/launch.py)

While it waits it holds neither the GPU lock nor memory of the card. Its line is a socket that brings one order: the
job, with the descriptors of the GPU lock and of the job's log. A line that ends before is a daemon that is gone: so is
this process then, at once. Libraries that cannot be loaded end it too; if it has its job by then, it begins anew, cold.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

from runner import child  # before the libraries: it keeps the environment as it was given
from spool.health.gpu import Gpu
from spool.protocol.process import step_back

MOST_BYTES = 65_536
TRITON = (7, 0)
"""The least compute capability that it compiles for."""


class Line(threading.Thread):
    """Hears the order also while the libraries are being loaded: from then on the log is the job's."""

    def __init__(self, fd: int) -> None:
        super().__init__(name="line", daemon=True)
        self.socket = socket.socket(fileno=fd)
        self.socket.set_inheritable(False)
        self.order: list[str] = []

    def run(self) -> None:
        data, fds, *_ = socket.recv_fds(self.socket, MOST_BYTES, 8)
        if not data:
            os._exit(0)
        *_, log = fds  # those of the lock stay open, also where the process begins anew for its exports
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        self.order = json.loads(data)

    def hang_up(self) -> None:
        """No order is taken any more; one that was sent already still arrives."""
        self.socket.shutdown(socket.SHUT_RD)


def load(on_gpu: bool) -> None:
    """Imports what a job imports, in its order. On a GPU nothing may open a CUDA context.

    Raises:
        RuntimeError: something has opened one.
    """
    from runner import train  # noqa: F401

    if not on_gpu:
        import unsloth  # noqa: F401  (it patches the others, so it comes first)
        from trl import SFTConfig, SFTTrainer  # noqa: F401
    import torch

    with _card_untouched() if on_gpu else contextlib.nullcontext():
        import datasets  # noqa: F401
        import peft  # noqa: F401
        import safetensors.torch  # noqa: F401
        from transformers import AutoModelForCausalLM, Trainer  # noqa: F401
        from transformers.models.gemma import modeling_gemma  # noqa: F401
        from transformers.models.gemma2 import modeling_gemma2  # noqa: F401
        from transformers.models.gemma3 import modeling_gemma3  # noqa: F401
        from transformers.models.gemma3n import modeling_gemma3n  # noqa: F401
        from transformers.models.gemma4 import modeling_gemma4  # noqa: F401

        if on_gpu:
            from runner import probe, samples  # noqa: F401
            from runner.packed import engine  # noqa: F401
    if torch.cuda.is_initialized():
        raise RuntimeError("a library has opened a CUDA context when it was imported: no child can wait with it")


@contextlib.contextmanager
def _card_untouched() -> Iterator[None]:
    """Libraries ask CUDA for the card's capability when they are imported, and CUDA opens a context for that: PEFT
    imports bitsandbytes and, by way of transformers, torchao. NVML knows the answer without one."""
    import torch
    from torch.utils import _triton

    capability = tuple(Gpu().ask()["capability"])
    has_triton = _triton.has_triton_package() and capability >= TRITON
    stand_ins: list[tuple[Any, str, Any]] = [
        (torch.cuda, "get_device_capability", lambda *_: capability),
        (_triton, "has_triton", lambda: has_triton),
    ]
    kept = [getattr(module, name) for module, name, _ in stand_ins]
    for module, name, stand_in in stand_ins:
        setattr(module, name, stand_in)
    try:
        yield
    finally:
        for (module, name, _), before in zip(stand_ins, kept, strict=True):
            setattr(module, name, before)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m runner.warm")
    parser.add_argument("--home", required=True, help="for whoever looks at the processes")
    parser.add_argument("--line", type=int, required=True)
    parser.add_argument("--gpu", action="store_true")
    arguments = parser.parse_args(argv)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    step_back(oom_score=1000)
    line = Line(arguments.line)
    line.start()
    try:
        load(arguments.gpu)
        print("-- ready", flush=True)
    except Exception:
        traceback.print_exc()
        line.hang_up()
        line.join()
        sys.argv[1:] = line.order
        child.begin_anew()
    line.join()
    sys.argv[1:] = line.order
    print("-- the libraries were loaded ahead", flush=True)
    return child.main(line.order)


if __name__ == "__main__":
    sys.exit(main())
