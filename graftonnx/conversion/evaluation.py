"""Run a module on NumPy arrays, and look at the values in between."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from graftonnx.conversion.builder import VALUE
from graftonnx.conversion.values import Array, to_array, to_tensor
from graftonnx.errors import ModelError


def run_module(module: nn.Module, *inputs: Array) -> list[Array]:
    """Return the outputs of a module in evaluation mode, without gradients; its mode is restored."""
    results = _evaluated(module, module, inputs)
    found = results if isinstance(results, tuple) else (results,)
    if not all(isinstance(result, torch.Tensor) for result in found):
        raise ModelError("one of its outputs is no tensor, so there are no numbers to compare.")
    return [to_array(result) for result in found]


def intermediate_values(module: fx.GraphModule, *inputs: Array) -> dict[str, Array]:
    """Return every ONNX value that a converted module computes, in the order of computation.

    Returns:
        Value name -> array.
    """
    recorder = _Recorder(module)
    _evaluated(module, recorder.run, inputs)
    return recorder.values


_REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError, MemoryError, AttributeError)
"""What PyTorch raises for operands that do not fit; AttributeError for a list in the place of a tensor."""


class _Recorder(fx.Interpreter):
    """Runs a graph node by node and copies the tensors that are ONNX values."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Array] = {}
        self.extra_traceback = False  # else fx writes its own into our messages

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; keep a copy, because a later node may write into the tensor.

        Raises:
            ModelError: If PyTorch refuses its operands, or NumPy its result.
        """
        try:
            result = super().run_node(n)
            if VALUE in n.meta and isinstance(result, torch.Tensor):
                self.values[n.meta[VALUE]] = to_array(result.clone())
        except _REFUSALS as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                f"PyTorch cannot compute '{n.meta.get(VALUE, n.name)}': {lines[0].rstrip('.')}. "
                "The file's shapes or values contradict each other."
            ) from error
        return result


def _tensor(array: Array) -> torch.Tensor:
    """Return an input of a module.

    Raises:
        ModelError: If PyTorch has no such element type.
    """
    try:
        return to_tensor(array)
    except TypeError as error:
        raise ModelError(
            f"PyTorch has no elements of type {array.dtype.name}, which an input has."
        ) from error


def _evaluated(module: nn.Module, call: Callable[..., Any], inputs: tuple[Array, ...]) -> Any:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    training = module.training
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what PyTorch warns, the comparison shows whether it matters
            return call(*(_tensor(array).to(device) for array in inputs))
    finally:
        module.train(training)
