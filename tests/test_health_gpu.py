"""The GPU sampler against a pynvml that can be told to fail: absent without a GPU, never a crash."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from spool.health.gpu import Gpu


class NVMLError(Exception):
    pass


class FakeNvml:
    """As much of pynvml as is asked for; `refused` names functions that raise, as NVML does with NOT_SUPPORTED."""

    NVML_TEMPERATURE_GPU = 0
    NVMLError = NVMLError

    def __init__(self, cards: int = 2, refused: set[str] | None = None) -> None:
        self.cards = cards
        self.refused = refused or set()
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml"):
            self.calls.append(name)
            if name in self.refused:

                def refuse(*_: Any) -> None:
                    raise NVMLError("GPU is lost" if name.endswith("Rates") else "Not Supported")

                return refuse
        return object.__getattribute__(self, name)

    nvmlMemory_v2 = 0x02000028

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return self.cards

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index >= self.cards:
            raise NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetUUID(self, device: int) -> str:
        return f"GPU-{device}{device}{device}{device}-abcd"

    def nvmlDeviceGetUtilizationRates(self, device: int) -> Any:
        return SimpleNamespace(gpu=50 + device, memory=1)

    def nvmlDeviceGetMemoryInfo(self, device: int, version: int | None = None) -> Any:
        return SimpleNamespace(used=(2 if version else 3) << 30, free=77 << 30, total=80 << 30)

    def nvmlDeviceGetPowerUsage(self, device: int) -> int:
        return 321_456

    def nvmlDeviceGetTemperature(self, device: int, sensor: int) -> int:
        return 61

    def nvmlDeviceGetName(self, device: int) -> bytes:
        return b"NVIDIA H100 80GB HBM3"

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65"

    def nvmlDeviceGetComputeRunningProcesses(self, device: int) -> list[Any]:
        return [SimpleNamespace(pid=4242, usedGpuMemory=1 << 30), SimpleNamespace(pid=4243, usedGpuMemory=None)]

    def nvmlDeviceGetGraphicsRunningProcesses(self, device: int) -> list[Any]:
        return [SimpleNamespace(pid=4242, usedGpuMemory=1 << 30), SimpleNamespace(pid=900, usedGpuMemory=5 << 20)]


PROCESSES = [
    {"pid": 4242, "mem_bytes": 1 << 30},
    {"pid": 4243, "mem_bytes": None},
    {"pid": 900, "mem_bytes": 5 << 20},
]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    return install(monkeypatch, FakeNvml())


def install(monkeypatch: pytest.MonkeyPatch, fake: FakeNvml) -> FakeNvml:
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


def test_a_sample_has_all_four_values(nvml: FakeNvml) -> None:
    gpu = Gpu()
    assert gpu.sample() == {"gpu_util_pct": 50, "gpu_mem_bytes": 3 << 30, "gpu_power_w": 321.5, "gpu_temp_c": 61}
    gpu.sample()
    gpu.describe()
    assert nvml.calls.count("nvmlInit") == 1
    assert nvml.calls.count("nvmlDeviceGetHandleByIndex") == 1
    assert gpu.problem is None


def test_making_one_asks_nothing(nvml: FakeNvml) -> None:
    Gpu()
    assert nvml.calls == []


def test_describe(nvml: FakeNvml) -> None:
    assert Gpu().describe() == {
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "GPU-0000-abcd",
        "driver": "580.65",
        "count": 2,
        "mem_total_bytes": 80 << 30,
        "mem_free_bytes": 77 << 30,
        "processes": PROCESSES,
    }


def test_a_fresh_answer(nvml: FakeNvml) -> None:
    """Asked anew each time, and NVML is closed again, also when it refuses."""
    gpu = Gpu()
    answer = gpu.ask()
    assert (answer["uuid"], answer["count"], answer["mem_used_bytes"]) == ("GPU-0000-abcd", 2, 2 << 30)
    assert answer["processes"] == PROCESSES
    nvml.refused = {"nvmlDeviceGetMemoryInfo"}
    with pytest.raises(NVMLError, match="Not Supported"):
        gpu.ask()
    nvml.refused = {"nvmlDeviceGetGraphicsRunningProcesses"}  # a card for computing only
    assert [process["pid"] for process in gpu.ask()["processes"]] == [4242, 4243]
    assert nvml.calls.count("nvmlInit") == nvml.calls.count("nvmlShutdown") == 3
    assert Gpu("-1").ask() == {"count": 2}


@pytest.mark.parametrize(
    ("refused", "missing"),
    [
        ("nvmlDeviceGetUtilizationRates", "gpu_util_pct"),
        ("nvmlDeviceGetMemoryInfo", "gpu_mem_bytes"),
        ("nvmlDeviceGetPowerUsage", "gpu_power_w"),
        ("nvmlDeviceGetTemperature", "gpu_temp_c"),
    ],
)
def test_each_value_may_be_missing(refused: str, missing: str, nvml: FakeNvml) -> None:
    nvml.refused = {refused}
    assert set(Gpu().sample()) == {"gpu_util_pct", "gpu_mem_bytes", "gpu_power_w", "gpu_temp_c"} - {missing}


def test_a_card_that_falls_off_the_bus_and_comes_back(nvml: FakeNvml) -> None:
    gpu = Gpu()
    assert gpu.sample()
    lost = {name for name in dir(FakeNvml) if name.startswith("nvmlDevice")}
    nvml.refused = lost
    assert gpu.sample() == {}
    assert gpu.describe() == {"driver": "580.65"}
    nvml.refused = set()
    assert len(gpu.sample()) == 4


@pytest.mark.parametrize(
    "refused", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"], ids=["no driver", "count", "handle"]
)
def test_without_nvml_there_is_nothing_and_a_reason(refused: str, nvml: FakeNvml) -> None:
    nvml.refused = {refused}
    gpu = Gpu()
    assert (gpu.sample(), gpu.sample(), gpu.describe()) == ({}, {}, {})
    assert gpu.problem == "Not Supported"
    assert nvml.calls.count("nvmlInit") == 1


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert Gpu().sample() == {}


def test_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeNvml(cards=0))
    gpu = Gpu()
    assert gpu.describe() == {}
    assert gpu.problem == "no card"


@pytest.mark.parametrize(
    ("visible", "util"),
    [
        (None, 50),
        ("0", 50),
        ("1", 51),
        ("1,0", 51),
        (" 1 ,0", 51),
        ("GPU-1111-abcd", 51),
        ("GPU-11", 51),
        ("GPU-0,GPU-1", 50),
        ("", None),
        ("-1", None),
        ("7", None),
        ("GPU-9", None),
        ("none", None),
        ("NoDevFiles", None),
    ],
)
def test_the_card_that_cuda_puts_first(
    visible: str | None, util: int | None, nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = Gpu()
    assert gpu.sample().get("gpu_util_pct") == util
    assert (gpu.problem is None) == (util is not None)


def test_a_mig_slice_is_asked_by_its_uuid(nvml: FakeNvml) -> None:
    gpu = Gpu("MIG-1-2-3")
    nvml.refused = {"nvmlDeviceGetUtilizationRates"}  # NVML has no utilisation for slices
    assert set(gpu.sample()) == {"gpu_mem_bytes", "gpu_power_w", "gpu_temp_c"}


def test_this_machine() -> None:
    """Whatever it has, nothing is raised, and all values are numbers."""
    gpu = Gpu()
    assert all(isinstance(value, int | float) for value in gpu.sample().values())
    assert bool(gpu.describe()) == (gpu.problem is None)
