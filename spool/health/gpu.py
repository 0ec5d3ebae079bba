"""The GPU as NVML sees it: one sample a metrics row, a description for doctor, a fresh answer before a job.

NVML counts cards in PCI order; CUDA's own order is "fastest first" unless CUDA_DEVICE_ORDER=PCI_BUS_ID. They differ
only in a machine with unlike cards.
"""

import os
from collections.abc import Callable
from typing import Any

Values = dict[str, Any]


class Gpu:
    """The card that CUDA_VISIBLE_DEVICES puts first, else the first one. NVML is loaded at the first question.

    But for `ask` nothing here raises: a value that NVML refuses is left out, and without NVML every answer is empty
    and `problem` says why.
    """

    def __init__(self, visible: str | None = None) -> None:
        self.visible = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
        self.problem: str | None = None
        self._nvml: Any = None
        self._device: Any = None
        self._started = False

    def sample(self) -> Values:
        """gpu_util_pct, gpu_mem_bytes (used, by whomever), gpu_power_w and gpu_temp_c, as far as the card tells."""
        if not self._start():
            return {}
        nvml, device = self._nvml, self._device
        return _present(
            gpu_util_pct=lambda: int(nvml.nvmlDeviceGetUtilizationRates(device).gpu),
            gpu_mem_bytes=lambda: int(nvml.nvmlDeviceGetMemoryInfo(device).used),
            gpu_power_w=lambda: round(nvml.nvmlDeviceGetPowerUsage(device) / 1000, 1),
            gpu_temp_c=lambda: int(nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)),
        )

    def describe(self) -> Values:
        """name, uuid, driver, mem_total_bytes, mem_free_bytes, processes (pid, mem_bytes) and the count of cards."""
        if not self._start():
            return {}
        nvml, device = self._nvml, self._device
        return _present(
            name=lambda: _text(nvml.nvmlDeviceGetName(device)),
            uuid=lambda: _text(nvml.nvmlDeviceGetUUID(device)),
            driver=lambda: _text(nvml.nvmlSystemGetDriverVersion()),
            count=lambda: int(nvml.nvmlDeviceGetCount()),
            mem_total_bytes=lambda: int(nvml.nvmlDeviceGetMemoryInfo(device).total),
            mem_free_bytes=lambda: int(nvml.nvmlDeviceGetMemoryInfo(device).free),
            processes=lambda: _processes(nvml, device),
        )

    def ask(self) -> Values:
        """As `describe`, of a driver that is asked anew and left alone afterwards: a process that keeps NVML open
        learns late of a card that is gone, and keeps the driver from being replaced. Also mem_used_bytes, without what
        the driver keeps for itself, and capability (CUDA's, major and minor); only `count` where CUDA_VISIBLE_DEVICES
        shows no card.

        Raises:
            Exception: what NVML says: no library, no driver, another driver than the library's, a lost card ...
        """
        import pynvml as nvml

        nvml.nvmlInit()
        try:
            values: Values = {"count": int(nvml.nvmlDeviceGetCount())}
            device = self._first_visible(nvml)
            if device is None:
                return values
            memory = nvml.nvmlDeviceGetMemoryInfo(device)  # a lost card says so here, if not before
            values |= {"uuid": _text(nvml.nvmlDeviceGetUUID(device)), "mem_total_bytes": int(memory.total)}
            return values | _present(
                name=lambda: _text(nvml.nvmlDeviceGetName(device)),
                driver=lambda: _text(nvml.nvmlSystemGetDriverVersion()),
                mem_free_bytes=lambda: int(memory.free),
                mem_used_bytes=lambda: int(nvml.nvmlDeviceGetMemoryInfo(device, nvml.nvmlMemory_v2).used),
                capability=lambda: tuple(nvml.nvmlDeviceGetCudaComputeCapability(device)),
                processes=lambda: _processes(nvml, device),
            )
        finally:
            nvml.nvmlShutdown()

    def _start(self) -> bool:
        if not self._started:
            self._started = True
            try:
                import pynvml

                pynvml.nvmlInit()
                self._nvml = pynvml
                self._device = self._first_visible(pynvml)
            except Exception as error:  # NVMLError, a missing library, a driver that is being replaced ...
                self.problem = str(error) or type(error).__name__
        return self._device is not None

    def _first_visible(self, nvml: Any) -> Any:
        """The handle of the first visible card, or None where CUDA is told to see none."""
        count = nvml.nvmlDeviceGetCount()
        wanted = "0" if self.visible is None else self.visible.partition(",")[0].strip()
        if wanted.isdecimal():
            index = int(wanted)
            if index < count:
                return nvml.nvmlDeviceGetHandleByIndex(index)
        elif wanted.startswith("MIG-"):
            return nvml.nvmlDeviceGetHandleByUUID(wanted)
        elif wanted.startswith("GPU-"):  # CUDA takes any unique beginning of it
            for index in range(count):
                device = nvml.nvmlDeviceGetHandleByIndex(index)
                if _text(nvml.nvmlDeviceGetUUID(device)).startswith(wanted):
                    return device
        self.problem = f"CUDA_VISIBLE_DEVICES={self.visible} shows none of {count} cards" if count else "no card"
        return None


def _processes(nvml: Any, device: Any) -> list[Values]:
    """Who holds memory of the card, as (pid, mem_bytes); mem_bytes is None where the driver does not tell."""
    found = {}
    for kind in ("Compute", "Graphics"):
        ask = getattr(nvml, f"nvmlDeviceGet{kind}RunningProcesses", None)
        if ask is None:
            continue
        try:
            running = ask(device)
        except Exception:
            if kind == "Compute":
                raise
            continue  # a card for computing only may refuse the question
        for process in running:
            found[int(process.pid)] = process.usedGpuMemory
    return [{"pid": pid, "mem_bytes": used} for pid, used in found.items()]


def _present(**values: Callable[[], Any]) -> Values:
    """Each value that can be had: a card may refuse one of them (no power meter, MIG) and tell the rest."""
    found = {}
    for name, ask in values.items():
        try:
            found[name] = ask()
        except Exception:
            continue
    return found


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
