"""Which of ONNX Runtime's execution providers can work on this machine, and in words what is missing if not.

`onnxruntime.get_available_providers()` says what the package was built with, not what runs. The checks here
need no model and no GPU memory, and answer in milliseconds.

| module | what it knows |
|---|---|
| `catalogue` | the providers: names, packages, systems |
| `nvidia` | driver, devices and libraries of CUDA, cuDNN and TensorRT |
| `obstacles` | why a provider cannot work here |
| `settings` | a user's wishes as each provider's options |

This package's own names need no ONNX Runtime.
"""

from graftonnx.providers.catalogue import CATALOGUE, PROVIDERS, Provider
from graftonnx.providers.nvidia import driver

__all__ = ["CATALOGUE", "PROVIDERS", "Provider", "driver"]
