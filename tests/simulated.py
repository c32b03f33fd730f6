"""What the machine of a test cannot show: NVIDIA's driver, and packages that are not installed."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from graftonnx.providers import nvidia


class FakeDriver:
    """The functions of NVIDIA's driver library that are asked, without a GPU behind them."""

    def __init__(self, version: int = 99000, status: int = 0, devices: int = 1) -> None:
        self.version, self.status, self.devices = version, status, devices

    def cuDriverGetVersion(self, target: object) -> int:  # noqa: N802 - NVIDIA's names, here and below
        return _set(target, ctypes.c_int, self.version)

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.status

    def cuDeviceGetCount(self, target: object) -> int:  # noqa: N802
        return _set(target, ctypes.c_int, self.devices)

    def cuDeviceGet(self, target: object, index: int) -> int:  # noqa: N802
        return _set(target, ctypes.c_int, index)

    def cuDeviceGetName(self, target: ctypes.Array[ctypes.c_char], size: int, device: object) -> int:  # noqa: N802
        target.value = b"NVIDIA Simulated"
        return 0

    def cuDeviceTotalMem_v2(self, target: object, device: object) -> int:  # noqa: N802
        return _set(target, ctypes.c_size_t, 8 << 30)

    def cuDeviceGetPCIBusId(  # noqa: N802
        self, target: ctypes.Array[ctypes.c_char], size: int, device: object
    ) -> int:
        target.value = b"0000:0A:00.0"
        return 0

    def cuDeviceGetAttribute(self, target: object, attribute: int, device: object) -> int:  # noqa: N802
        return _set(target, ctypes.c_int, {75: 9, 76: 0}[attribute])


def _set(target: object, kind: type[ctypes.c_int] | type[ctypes.c_size_t], value: int) -> int:
    ctypes.cast(target, ctypes.POINTER(kind))[0] = value  # type: ignore[arg-type, index, assignment]
    return 0


def pretend(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver | None, *, libraries: str = "") -> None:
    """Make `ctypes.CDLL` find this NVIDIA driver, or none, and of other libraries those named.

    Args:
        monkeypatch: Undoes it.
        driver: The driver.
        libraries: Names of libraries that can be loaded, with spaces between them; `*` for all.
    """

    def load(name: str, *args: object, **kwargs: object) -> object:
        if name == nvidia.DRIVER and driver is not None:
            return driver
        if name != nvidia.DRIVER and (libraries == "*" or name in libraries.split()):
            return object()
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)


def pretend_driver_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate NVIDIA's driver; every other library is looked up for real."""
    real = ctypes.CDLL

    def load(name: str, *args: object, **kwargs: object) -> object:
        return FakeDriver() if name == nvidia.DRIVER else real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(ctypes, "CDLL", load)


def pretend_torch(monkeypatch: pytest.MonkeyPatch, folder: Path, cuda: str) -> None:
    """Simulate a PyTorch 2.7.0 that is built for a version of CUDA."""
    install(monkeypatch, folder, "torch", "2.7.0")
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").touch()
    (folder / "torch" / "version.py").write_text(f"cuda = {cuda!r}\n")
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, distribution: str, version: str = "1.0") -> None:
    """Put what pip leaves of an installed distribution on Python's path."""
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(folder)
