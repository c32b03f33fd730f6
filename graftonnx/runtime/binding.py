"""A session with buffers of its own: nothing is allocated in a run, and CUDA graphs can be replayed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from graftonnx.errors import ModelError
from graftonnx.runtime.messages import ORT_ERRORS, sentence

if TYPE_CHECKING:
    from graftonnx.providers import Provider
    from graftonnx.runtime.session import Session

DEVICES: dict[Provider, str] = {"cuda": "cuda", "tensorrt": "cuda"}
"""Where a provider's buffers lie, if not in the CPU's memory; ONNX Runtime's names of devices."""

_graph_ids = itertools.count(1)


class Binding:
    """A session with preallocated input and output buffers, for one set of input shapes.

    On a GPU the buffers lie there, so :meth:`compute` moves nothing between it and the CPU. Not thread-safe:
    give each thread a binding of its own.
    """

    def __init__(
        self,
        session: Session,
        inner: ort.InferenceSession,
        inputs: Sequence[NDArray[Any]],
        *,
        graph: bool,
    ) -> None:
        self.name = session.name
        self._inner = inner
        self._options = ort.RunOptions()
        if graph:
            self._options.add_run_config_entry("gpu_graph_id", str(next(_graph_ids)))
        device = DEVICES.get(session.provider, "cpu")
        self._on_cpu = device == "cpu"
        number = 0 if self._on_cpu else int(session.provider_options.get("device_id", "0"))
        self._binding = inner.io_binding()
        self._inputs = [self._buffer(array, device, number) for array in inputs]
        self._outputs = [self._buffer(array, device, number) for array in session.run(*inputs)]
        for name, (_, value) in zip(session.input_names, self._inputs, strict=True):
            self._binding.bind_ortvalue_input(name, value)
        for name, (_, value) in zip(session.output_names, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, value)

    @staticmethod
    def _buffer(array: NDArray[Any], device: str, number: int) -> tuple[NDArray[Any], ort.OrtValue]:
        """Return a copy of an array, and the same on the device; on the CPU both share their memory."""
        own = np.array(array, order="C")
        return own, ort.OrtValue.ortvalue_from_numpy(own, device, number)

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Copy the inputs into their buffers, compute, and return the outputs.

        Args:
            *inputs: Arrays of the shapes and types that the binding was made for.

        Returns:
            One array for each output. The next run overwrites them.

        Raises:
            ModelError: If an array has another shape or type, or ONNX Runtime fails.
        """
        self.write(*inputs)
        self.compute()
        return self.read()

    def write(self, *inputs: NDArray[Any]) -> None:
        """Copy arrays into the input buffers.

        Raises:
            ModelError: If there are more or fewer than inputs, or one has another shape or type.
        """
        found, expected = ([(a.shape, a.dtype) for a in arrays] for arrays in (inputs, self._hosts()))
        if found != expected:
            raise ModelError(
                f"cannot run '{self.name}': inputs {_described(found)} were given to buffers made for "
                f"{_described(expected)}. Bind the session anew for other shapes."
            )
        for array, (own, value) in zip(inputs, self._inputs, strict=True):
            if self._on_cpu:
                np.copyto(own, array)
            else:
                value.update_inplace(np.ascontiguousarray(array))

    def compute(self) -> None:
        """Run once on what the input buffers hold, and wait for the end.

        Raises:
            ModelError: If ONNX Runtime fails.
        """
        try:
            self._inner.run_with_iobinding(self._binding, self._options)
        except ORT_ERRORS as error:
            raise ModelError(f"cannot run '{self.name}': ONNX Runtime says: {sentence(error)}") from error

    def read(self) -> list[NDArray[Any]]:
        """Return the output buffers; of a GPU's as copies."""
        return [own if self._on_cpu else value.numpy() for own, value in self._outputs]

    def _hosts(self) -> list[NDArray[Any]]:
        return [own for own, _ in self._inputs]


def _described(arrays: Sequence[tuple[tuple[int, ...], np.dtype[Any]]]) -> str:
    return ", ".join(f"{dtype} {list(shape)}" for shape, dtype in arrays)
