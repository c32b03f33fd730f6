"""Whether ONNX Runtime's CUDA provider can work on this machine, and in words what is missing if not.

`onnxruntime.get_available_providers()` says what the wheel was built with, not what runs. The checks here
need no model and no GPU memory, and answer in milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import io
import re
import sys
from typing import Literal, get_args

import onnxruntime as ort

Provider = Literal["auto", "cpu", "cuda"]
"""What a caller may ask for."""

PROVIDERS: tuple[Provider, ...] = get_args(Provider)

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NO_DEVICE = 100
"""The driver's CUDA_ERROR_NO_DEVICE."""


def cuda_obstacle() -> str | None:
    """Return why CUDA cannot work here as far as that shows before a session exists, else None."""
    if installed("onnxruntime") and installed("onnxruntime-gpu"):
        return (
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files. "
            "Repair it with: pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu."
        )
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return (
            "the installed onnxruntime is built without CUDA. "
            "Replace it with: pip uninstall -y onnxruntime && pip install onnxruntime-gpu."
        )
    return driver_obstacle(cuda_build())


def driver_obstacle(build: str) -> str | None:
    """Return what is wrong with the NVIDIA driver for an ONNX Runtime built for CUDA `build`, else None."""
    library = driver()
    if library is None:
        return (
            f"the NVIDIA driver is missing ({_DRIVER} cannot be loaded). Install the driver; "
            "in a container, start it with GPU access (docker run --gpus all)."
        )
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    supported = version.value // 1000
    if supported < int(build.split(".")[0]):
        return (
            f"the NVIDIA driver supports CUDA {supported}, this onnxruntime-gpu is built for CUDA {build}. "
            f"Upgrade the driver, or install an onnxruntime-gpu for CUDA {supported}."
        )
    status = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return (
            f"the NVIDIA driver finds no usable GPU (CUDA error {status or _NO_DEVICE}). "
            "Check nvidia-smi and CUDA_VISIBLE_DEVICES."
        )
    return None


def libraries_obstacle(missing: list[str]) -> str:
    """Return the sentence for a CUDA provider that did not load; :func:`preload_cuda` gives `missing`."""
    what = ", ".join(missing) or "a CUDA or cuDNN library"
    return (
        f"{what} cannot be loaded (this onnxruntime-gpu is built for CUDA {cuda_build()}). "
        'Install the libraries with: pip install "onnxruntime-gpu[cuda,cudnn]".'
    )


def preload_cuda() -> list[str]:
    """Load the CUDA and cuDNN libraries from their Python packages; return the names of those not found."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        ort.preload_dlls()
    return re.findall(r"Failed to load ([^\s:]+)", printed.getvalue())


def driver() -> ctypes.CDLL | None:
    """Load the NVIDIA driver's library; None where there is none."""
    try:
        return ctypes.CDLL(_DRIVER)
    except OSError:
        return None


def cuda_build() -> str:
    """Return the CUDA version that ONNX Runtime was built for, `"13.0"`; `"0"` if it does not say."""
    return str(getattr(ort, "cuda_version", "") or "0")


def installed(distribution: str) -> bool:
    """Return whether a distribution is installed in this environment."""
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
