"""The execution providers of ONNX Runtime, under the names that `--provider` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Provider = Literal[
    "auto",
    "cpu",
    "cuda",
    "tensorrt",
    "tensorrt-rtx",
    "openvino",
    "coreml",
    "directml",
    "migraphx",
    "qnn",
    "cann",
    "webgpu",
    "vitisai",
    "dnnl",
    "xnnpack",
]
"""What a caller may ask for; `auto` takes CUDA where it works, else the CPU."""

PROVIDERS: tuple[Provider, ...] = get_args(Provider)

SYSTEMS = {"linux": "Linux", "win32": "Windows", "darwin": "macOS"}
"""Names of `sys.platform` for people."""


@dataclass(frozen=True)
class Entry:
    """What is known of a provider, wherever it runs.

    Attributes:
        title: Its name for people.
        name: ONNX Runtime's name of it.
        package: The Python package that has it; None where it is built from source or comes from a vendor.
        systems: The values of `sys.platform` where that package exists.
    """

    title: str
    name: str
    package: str | None = None
    systems: tuple[str, ...] = ("linux", "win32")


CATALOGUE: dict[Provider, Entry] = {
    "cpu": Entry("CPU", "CPUExecutionProvider", "onnxruntime", ("linux", "win32", "darwin")),
    "cuda": Entry("CUDA", "CUDAExecutionProvider", "onnxruntime-gpu"),
    "tensorrt": Entry("TensorRT", "TensorrtExecutionProvider", "onnxruntime-gpu"),
    "tensorrt-rtx": Entry("TensorRT RTX", "NvTensorRTRTXExecutionProvider"),
    "openvino": Entry("OpenVINO", "OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "coreml": Entry("Core ML", "CoreMLExecutionProvider", "onnxruntime", ("darwin",)),
    "directml": Entry("DirectML", "DmlExecutionProvider", "onnxruntime-directml", ("win32",)),
    "migraphx": Entry("MIGraphX", "MIGraphXExecutionProvider", "onnxruntime-migraphx", ("linux",)),
    "qnn": Entry("QNN", "QNNExecutionProvider", "onnxruntime-qnn"),
    "cann": Entry("CANN", "CANNExecutionProvider", "onnxruntime-cann", ("linux",)),
    "webgpu": Entry("WebGPU", "WebGpuExecutionProvider"),
    "vitisai": Entry("Vitis AI", "VitisAIExecutionProvider"),
    "dnnl": Entry("oneDNN", "DnnlExecutionProvider"),
    "xnnpack": Entry("XNNPACK", "XnnpackExecutionProvider"),
}
"""Every provider that can be asked for by name."""

PACKAGES = (
    "onnxruntime",
    *sorted({entry.package for entry in CATALOGUE.values() if entry.package} - {"onnxruntime"}),
)
"""The Python packages that hold ONNX Runtime; any two in one environment overwrite each other's files."""


def title(name: str) -> str:
    """Return the name for people of a provider that ONNX Runtime calls `name`."""
    return next((entry.title for entry in CATALOGUE.values() if entry.name == name), name)
