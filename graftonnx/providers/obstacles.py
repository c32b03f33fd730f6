"""Why a provider cannot work here, as one sentence with the command that helps."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

import onnxruntime as ort

from graftonnx.providers import nvidia
from graftonnx.providers.catalogue import CATALOGUE, PACKAGES, SYSTEMS, Entry, Provider
from graftonnx.providers.nvidia import installed

_TENSORRT = "onnxruntime_providers_tensorrt.dll" if nvidia.WINDOWS else "libonnxruntime_providers_tensorrt.so"


def obstacle(provider: Provider) -> str | None:
    """Return why `provider` cannot work here, as far as that shows before a session exists, else None.

    Libraries that the provider will need are loaded into this process on the way.
    """
    if provider == "cpu":
        return None
    entry = CATALOGUE[provider]
    trouble = _package_obstacle(entry)
    if trouble is None and provider in ("cuda", "tensorrt"):
        trouble = nvidia.driver_obstacle(cuda_build())
        trouble = trouble or nvidia.libraries_obstacle(cuda_build(), preload_cuda())
    if trouble is None and provider == "tensorrt":
        library = Path(ort.__file__).with_name("capi") / _TENSORRT
        trouble = nvidia.tensorrt_obstacle(library, cuda_build())
    return trouble


def offered(provider: Provider) -> bool:
    """Return whether the installed ONNX Runtime is built with a provider."""
    return CATALOGUE[provider].name in ort.get_available_providers()


def _package_obstacle(entry: Entry) -> str | None:
    """Return what is wrong with the installed ONNX Runtime for a provider, else None."""
    present = [package for package in PACKAGES if installed(package)]
    if len(present) > 1:
        return (
            f"{' and '.join(present)} are {'both' if len(present) == 2 else 'all'} installed and overwrite "
            f"each other's files. Repair it with: pip uninstall -y {' '.join(present)} && "
            f"pip install {entry.package or present[-1]}."
        )
    if entry.name in ort.get_available_providers():
        return None
    if entry.package is not None and sys.platform not in entry.systems:
        systems = " and ".join(SYSTEMS[system] for system in entry.systems)
        return f"{entry.title} is for {systems}, this is {SYSTEMS.get(sys.platform, sys.platform)}."
    package = present[0] if present else "onnxruntime"
    what = f"the installed {package} {ort.__version__} is built without {entry.title}."
    if entry.package is None:
        return f"{what} Build ONNX Runtime with it, or ask its vendor for a package."
    return f"{what} Replace it with: pip uninstall -y {package} && pip install {entry.package}."


def preload_cuda() -> list[str]:
    """Load the CUDA and cuDNN libraries from their Python packages; return the names of those not found."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        ort.preload_dlls()
    names = re.findall(r"Failed to load (.+?): ", printed.getvalue())
    return [name for name in names if not Path(name).is_absolute()]


def cuda_build() -> str:
    """Return the CUDA version that ONNX Runtime was built for, `"13.0"`; `"0"` if it does not say."""
    return str(getattr(ort, "cuda_version", "") or "0")
