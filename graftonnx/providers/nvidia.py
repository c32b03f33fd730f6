"""NVIDIA's driver, devices and libraries, as far as ONNX Runtime needs them; asked without ONNX Runtime."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import re
import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WINDOWS = sys.platform == "win32"
DRIVER = "nvcuda.dll" if WINDOWS else "libcuda.so.1"
CUDNN = "cudnn64_9.dll" if WINDOWS else "libcudnn.so.9"
"""ONNX Runtime loads it when the first convolution needs it, not with its CUDA provider."""

NO_DEVICE = 100
"""The driver's CUDA_ERROR_NO_DEVICE."""

MAJORS = range(11, 16)
"""Versions of CUDA that are looked for where the right one is missing."""

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
"""The driver's CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True)
class Device:
    """A GPU that the driver shows to this process.

    Attributes:
        name: As NVIDIA sells it.
        memory: Bytes.
        capability: Compute capability, `"9.0"`.
        bus: PCI bus id, by which other libraries know it.
    """

    name: str
    memory: int
    capability: str
    bus: str


def driver() -> ctypes.CDLL | None:
    """Load the NVIDIA driver's library; None where there is none."""
    return load(DRIVER)


def load(library: str | Path) -> ctypes.CDLL | None:
    """Load a library by its path, or by its name from wherever the system looks; None where that fails."""
    try:
        return ctypes.CDLL(str(library))
    except OSError:
        return None


def driver_obstacle(build: str) -> str | None:
    """Return what is wrong with the NVIDIA driver for an ONNX Runtime built for CUDA `build`, else None."""
    library = driver()
    if library is None:
        return (
            f"the NVIDIA driver is missing ({DRIVER} cannot be loaded). Install the driver; "
            "in a container, start it with GPU access (docker run --gpus all)."
        )
    supported = driver_supports(library) // 1000
    if supported < major(build):
        return (
            f"the NVIDIA driver supports CUDA {supported}, this onnxruntime-gpu is built for CUDA {build}. "
            f"Upgrade the driver, or install an onnxruntime-gpu for CUDA {supported}."
        )
    count = ctypes.c_int()
    status = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return (
            f"the NVIDIA driver finds no usable GPU (CUDA error {status or NO_DEVICE}). "
            "Check nvidia-smi and CUDA_VISIBLE_DEVICES."
        )
    return None


def driver_supports(library: ctypes.CDLL) -> int:
    """Return the newest CUDA that a driver supports: 13000 for 13.0."""
    version = ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    return version.value


def devices() -> list[Device]:
    """Return the GPUs that this process may use; none where there is no driver."""
    library, count = driver(), ctypes.c_int()
    if library is None or library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [_device(library, index) for index in range(count.value)]


def _device(library: ctypes.CDLL, index: int) -> Device:
    handle, memory = ctypes.c_int(), ctypes.c_size_t()
    name, bus = ctypes.create_string_buffer(128), ctypes.create_string_buffer(32)
    numbers = ctypes.c_int(), ctypes.c_int()
    library.cuDeviceGet(ctypes.byref(handle), index)
    library.cuDeviceGetName(name, len(name), handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    library.cuDeviceGetPCIBusId(bus, len(bus), handle)
    for number, attribute in zip(numbers, (_CAPABILITY_MAJOR, _CAPABILITY_MINOR), strict=True):
        library.cuDeviceGetAttribute(ctypes.byref(number), attribute, handle)
    capability = ".".join(str(number.value) for number in numbers)
    return Device(name.value.decode(), memory.value, capability, bus.value.decode())


def libraries_obstacle(build: str, missing: list[str]) -> str | None:
    """Return what is wrong with the CUDA and cuDNN libraries, else None.

    Args:
        build: The CUDA version that ONNX Runtime was built for, `"13.0"`.
        missing: The CUDA libraries that it could not load.
    """
    version = major(build)
    built = f"this onnxruntime-gpu is built for CUDA {build}"
    if not missing and (other := other_cudnn(version)) is not None:
        package = f"nvidia-cudnn-cu{other}"
        return (
            f"cuDNN is here for CUDA {other} ({package}{_wanted_by_torch(other)}), {built}. Replace it with: "
            f"pip uninstall -y {package} torch && pip install torch nvidia-cudnn-cu{version}."
        )
    if missing:
        others = sorted(other_majors(version))
    elif load(CUDNN) is None:
        missing, others = [CUDNN], []
    else:
        return None
    what = f"{', '.join(missing)} cannot be loaded"
    if others:
        found = " and ".join(f"CUDA {other}" for other in others)
        what += f", the libraries found here are those of {found}{_wanted_by_torch(others[0])}"
    return f'{what} ({built}). Install the libraries with: pip install "onnxruntime-gpu[cuda,cudnn]".'


def other_majors(version: int) -> set[int]:
    """Return the CUDA versions other than `version` whose runtime library or package is here."""
    found = set()
    for other in MAJORS:
        library = f"cudart64_{other}.dll" if WINDOWS else f"libcudart.so.{other}"
        if other != version and (installed(f"nvidia-cuda-runtime-cu{other}") or load(library)):
            found.add(other)
    return found


def other_cudnn(version: int) -> int | None:
    """Return the CUDA version that the installed cuDNN package is for, if it is not `version`.

    The packages of all CUDA versions share one folder, so only one of them is really there.
    """
    if installed(f"nvidia-cudnn-cu{version}"):
        return None
    return next((other for other in MAJORS if installed(f"nvidia-cudnn-cu{other}")), None)


def torch_cuda() -> str | None:
    """Return the CUDA version that the installed PyTorch is built for; None for a CPU build, or for none."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    version = Path(spec.origin).with_name("version.py")
    return runpy.run_path(str(version)).get("cuda") if version.is_file() else None


def _wanted_by_torch(version: int) -> str:
    """Return `, which torch 2.7.0 needs` if the installed one is for CUDA `version`, else nothing."""
    build = torch_cuda()
    if build is None or major(build) != version:
        return ""
    return f", which torch {installed('torch')} needs"


def tensorrt_obstacle(provider: Path, build: str) -> str | None:
    """Return which of TensorRT's libraries cannot be loaded, else None; those that can are loaded.

    Args:
        provider: ONNX Runtime's own library of the TensorRT provider, which names those that it needs.
        build: The CUDA version that ONNX Runtime was built for.
    """
    names = sorted(
        set(re.findall(rb"(?:lib)?nv(?:infer|onnxparser)(?:\.so\.\d+|_\d+\.dll)", provider.read_bytes()))
    )
    folders = list(_package_folders("tensorrt_libs"))
    missing = [
        name.decode()
        for name in names
        if not any(load(path) for path in (*(folder / name.decode() for folder in folders), name.decode()))
    ]
    if not missing:
        return None
    release = re.search(r"\d+", missing[0])
    wanted = f"=={release[0]}.*" if release else ""
    return (
        f"TensorRT's {' and '.join(missing)} cannot be loaded. "
        f'Install TensorRT with: pip install "tensorrt-cu{major(build)}{wanted}".'
    )


def _package_folders(package: str) -> Iterator[Path]:
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(package)
        yield from map(Path, spec.submodule_search_locations or () if spec else ())


def major(version: str) -> int:
    """Return 13 for `"13.0"`."""
    return int(version.split(".")[0])


def installed(distribution: str) -> str | None:
    """Return the version of a distribution in this environment; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
