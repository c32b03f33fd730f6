"""Run ONNX files in ONNX Runtime: on the provider that was asked for, or an error that says why not.

`InferenceSession(providers=["CUDAExecutionProvider"])` succeeds on a machine without a GPU and then runs on
the CPU. Here `provider="cuda"` either runs on CUDA or raises; `"auto"` takes CUDA where it truly works and
remembers why it did not in :attr:`Session.fallback`. ONNX Runtime's own log lines are silenced: whatever goes
wrong arrives as one sentence in an exception.
"""

from graftonnx.runtime.binding import Binding
from graftonnx.runtime.coverage import Coverage
from graftonnx.runtime.messages import blamed
from graftonnx.runtime.opening import input_shapes, open_session, version, with_outputs
from graftonnx.runtime.session import Session

__all__ = [
    "Binding",
    "Coverage",
    "Session",
    "blamed",
    "input_shapes",
    "open_session",
    "version",
    "with_outputs",
]
