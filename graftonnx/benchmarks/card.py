"""The energy and memory of an NVIDIA GPU, as its management library (NVML) tells."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping

from graftonnx.providers import Provider, nvidia

NVML = "nvml.dll" if nvidia.WINDOWS else "libnvidia-ml.so.1"

WINDOW = 2.0
"""Seconds of continuous work over which energy is measured; cards count ten to a hundred times a second."""


class _Memory(ctypes.Structure):
    """NVML's nvmlMemory_t."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Card:
    """A GPU that NVML knows."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle = handle

    def joules(self) -> float | None:
        """Return the energy since the driver was loaded; None for cards before Volta."""
        millijoules = ctypes.c_ulonglong()
        status = self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(millijoules))
        return None if status else millijoules.value / 1000

    def memory(self) -> int | None:
        """Return the bytes in use, of all processes."""
        memory = _Memory()
        status = self._library.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(memory))
        return None if status else memory.used

    def energy(self, work: Callable[[], object]) -> float | None:
        """Return the joules of one call of `work`, idle draw included, measured over many."""
        calls, before, start = 0, self.joules(), time.perf_counter()
        while time.perf_counter() - start < WINDOW:
            work()
            calls += 1
        after = self.joules()
        return None if before is None or after is None else (after - before) / calls


def find_card(provider: Provider, options: Mapping[str, str]) -> Card | None:
    """Return the GPU that a provider runs on; None if it is not NVIDIA's, or NVML does not know it.

    Args:
        provider: Where networks run.
        options: The provider's; `device_id` is CUDA's count of GPUs in this process.
    """
    if provider not in ("cuda", "tensorrt"):
        return None
    index, devices, library = int(options.get("device_id", "0")), nvidia.devices(), nvidia.load(NVML)
    if index >= len(devices) or library is None or library.nvmlInit_v2():
        return None
    handle = ctypes.c_void_p()
    bus = devices[index].bus.encode()
    return (
        None if library.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(handle)) else Card(library, handle)
    )
