"""What works on this machine, what does not, why, and the command that helps: `graftonnx doctor`.

Nothing heavy is imported beforehand: ONNX Runtime itself may be what is broken. PyTorch is not
imported at all, it would take longer than everything else.
"""

from __future__ import annotations

import importlib
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graftonnx import machine
from graftonnx.errors import GraftError
from graftonnx.providers import CATALOGUE, Provider, nvidia
from graftonnx.providers.catalogue import PACKAGES
from graftonnx.providers.nvidia import Device, installed

if TYPE_CHECKING:
    import onnx

NEEDED = ("numpy", "onnx", "torch", "lightning")
"""Packages whose versions are told, beside ONNX Runtime's."""

_LIBRARY = re.compile(r"/\S*/(?:lib)?(?:cud|cublas|cufft|curand|nvrtc|nvinfer|nvonnxparser|openvino)[^/\s]*$")

_TINY = """<ir_version: 8, opset_import: ["": 17]>
tiny (float[N, 1, 3, 3] x) => (float[N, 1, 1, 1] y) <float[1, 1, 3, 3] w = {1, 1, 1, 1, 1, 1, 1, 1, 1}>
{ c = Conv(x, w)  y = Relu(c) }"""


@dataclass(frozen=True)
class Finding:
    """Whether a provider works.

    Attributes:
        provider: Its name for `--provider`.
        title: Its name for people.
        offered: Whether the installed ONNX Runtime is built with it.
        works: Whether a small convolution gave the right number on it.
        reason: Why not, and what to do; empty if it works.
    """

    provider: Provider
    title: str
    offered: bool
    works: bool
    reason: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The state of a machine.

    Attributes:
        graftonnx: Its version.
        python: Python's version.
        system: The operating system and processor architecture.
        processor: The CPU's name.
        cores: CPU cores that this process may use.
        memory: Bytes of main memory; None where the system does not tell.
        packages: Versions of Python packages; None for one that is not installed.
        cuda_build: The CUDA version that ONNX Runtime was built for; None if none.
        torch_cuda: Likewise PyTorch, which trains.
        driver_cuda: The newest CUDA that the NVIDIA driver supports, `"13.0"`; None without a driver.
        devices: The GPUs that this process may use.
        libraries: Files of NVIDIA's and Intel's libraries that could be loaded; empty where the system does
            not tell.
        providers: One finding for each provider that has a name.
        remarks: What is odd although something works, with the command that helps.
    """

    graftonnx: str
    python: str
    system: str
    processor: str
    cores: int
    memory: int | None
    packages: dict[str, str | None]
    cuda_build: str | None
    torch_cuda: str | None
    driver_cuda: str | None
    devices: tuple[Device, ...]
    libraries: tuple[str, ...]
    providers: tuple[Finding, ...]
    remarks: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether networks can be run at all."""
        return any(finding.works for finding in self.providers if finding.provider == "cpu")


def diagnose() -> Diagnosis:
    """Look at the machine, and run a small network on every provider that nothing stands in the way of."""
    broken, build = _runtime()
    findings = tuple(_finding(provider, broken) for provider in CATALOGUE)
    library = nvidia.driver()
    supported = nvidia.driver_supports(library) if library is not None else None
    runtimes = [name for name in PACKAGES if installed(name)]
    return Diagnosis(
        graftonnx=installed("graftonnx") or "unknown",
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        processor=machine.processor(),
        cores=machine.cores(),
        memory=machine.memory(),
        packages={name: installed(name) for name in (*runtimes, *NEEDED)},
        cuda_build=build,
        torch_cuda=nvidia.torch_cuda(),
        driver_cuda=None if supported is None else f"{supported // 1000}.{supported % 1000 // 10}",
        devices=tuple(nvidia.devices()),
        libraries=tuple(_loaded()),
        providers=findings,
        remarks=tuple(_remarks(runtimes, build)),
    )


def _runtime() -> tuple[str, str | None]:
    """Return why ONNX Runtime cannot be imported, empty if it can, and the CUDA that it was built for."""
    try:
        module = importlib.import_module("onnxruntime")
        return "", str(getattr(module, "cuda_version", "") or "") or None
    except Exception as error:  # whatever a damaged installation raises
        reason = " ".join(str(error).split()) or type(error).__name__
        package = next((name for name in reversed(PACKAGES) if installed(name)), "onnxruntime-gpu")
        return (
            f"onnxruntime cannot be imported ({reason.rstrip('.')}). "
            f"Repair it with: pip install --force-reinstall {package}."
        ), None


def _finding(provider: Provider, broken: str) -> Finding:
    """Try a provider."""
    title = CATALOGUE[provider].title
    if broken:
        return Finding(provider, title, offered=False, works=False, reason=broken)
    from graftonnx.providers.obstacles import obstacle, offered

    reason = obstacle(provider) or _trial(provider)
    return Finding(provider, title, offered(provider), works=not reason, reason=reason or "")


def _trial(provider: Provider) -> str | None:
    """Run a small convolution on a provider; return what went wrong, if anything."""
    import numpy as np

    from graftonnx.runtime import open_session

    try:
        session = open_session(_tiny(), provider=provider, threads=1)
        (result,) = session.run(np.ones((1, 1, 3, 3), np.float32))
    except GraftError as error:
        return error.message
    found = float(result.item())
    return None if abs(found - 9) < 0.1 else f"a convolution gave {found:g}, expected 9. Reinstall it."


def _tiny() -> onnx.ModelProto:
    import onnx.parser

    return onnx.parser.parse_model(_TINY)


def _remarks(runtimes: list[str], build: str | None) -> list[str]:
    """Return what may go wrong later, though it need not."""
    remarks = []
    if len(runtimes) > 1:
        remarks.append(
            f"{' and '.join(runtimes)} are installed together and overwrite each other's files. Keep one: "
            f"pip uninstall -y {' '.join(runtimes)} && pip install {runtimes[-1]}."
        )
    torch = nvidia.torch_cuda()
    if torch is not None and build is not None and nvidia.major(torch) != nvidia.major(build):
        remarks.append(
            f"torch {installed('torch')} is built for CUDA {torch}, ONNX Runtime for CUDA {build}: their "
            "cuDNN packages replace each other. Install a torch for the same CUDA: pip uninstall -y torch && "
            "pip install torch."
        )
    return remarks


def _loaded() -> list[str]:
    """Return the files of the libraries of interest in this process, where the system tells (Linux)."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return []
    found = (_LIBRARY.search(line) for line in maps.read_text().splitlines())
    return sorted({match[0] for match in found if match is not None})
