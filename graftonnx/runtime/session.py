"""A network that is ready to run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from graftonnx import limits
from graftonnx.errors import ModelError
from graftonnx.metadata import Metadata, read_metadata
from graftonnx.normalise.sizes import Sizes
from graftonnx.providers import Provider
from graftonnx.runtime.coverage import Coverage
from graftonnx.runtime.coverage import coverage as coverage_of
from graftonnx.runtime.messages import ORT_ERRORS, OUT_OF_MEMORY, sentence
from graftonnx.spelling import did_you_mean

if TYPE_CHECKING:
    from graftonnx.runtime.binding import Binding

DECODERS = 1 << 30
"""Bytes that threads which decode images may take beside a run."""

_NUMPY_TYPES = {
    "float": "float32",
    "double": "float64",
    "bool": "bool",
    **{name: name for name in ("float16", "uint8", "uint16", "uint32", "uint64")},
    **{name: name for name in ("int8", "int16", "int32", "int64")},
}
"""ONNX Runtime's names of element types, with NumPy's."""


class Session:
    """A model that is ready to run. Thread-safe: several threads may call :meth:`run` at once.

    Attributes:
        name: The file's name, for messages.
        provider: Where it runs: `"cpu"`, `"cuda"`, ...; never `"auto"`.
        fallback: Why `"auto"` did not take CUDA although an NVIDIA driver is installed; None otherwise.
        metadata: What the file says about itself.
        sizes: What its values take; None for a model that was made here.
    """

    def __init__(
        self,
        inner: ort.InferenceSession,
        *,
        name: str,
        provider: Provider,
        fallback: str | None,
        cuda_graph: bool = False,
        sizes: Sizes | None = None,
    ) -> None:
        self.sizes = sizes
        self._inner = inner
        self._cuda_graph = cuda_graph
        self.name = name
        self.provider: Provider = provider
        self.fallback = fallback
        self._inputs = inner.get_inputs()
        self.input_names: tuple[str, ...] = tuple(value.name for value in self._inputs)
        self.output_names: tuple[str, ...] = tuple(value.name for value in inner.get_outputs())
        holder = onnx.ModelProto()
        for key, value in inner.get_modelmeta().custom_metadata_map.items():
            holder.metadata_props.add(key=key, value=value)
        try:
            self.metadata: Metadata = read_metadata(holder)
        except ModelError as error:
            raise error.at(f"cannot use '{name}'") from error

    @property
    def input_shape(self) -> tuple[int | str | None, ...]:
        """The first input's shape: numbers where fixed, names (or None) where dynamic."""
        return tuple(self._inputs[0].shape)

    @property
    def input_shapes(self) -> tuple[tuple[int | str | None, ...], ...]:
        """The shapes of all inputs, likewise, in the order of `input_names`."""
        return tuple(tuple(value.shape) for value in self._inputs)

    @property
    def input_type(self) -> np.dtype[Any]:
        """The first input's element type."""
        return self.input_types[0]

    @property
    def input_types(self) -> tuple[np.dtype[Any], ...]:
        """The element types of all inputs, in the order of `input_names`.

        Raises:
            ModelError: If NumPy has no such type.
        """
        for value in self._inputs:
            if _element(value) not in _NUMPY_TYPES:
                raise ModelError(
                    f"cannot use '{self.name}': its input {value.name!r} is {_element(value)}, expected a "
                    "tensor of numbers that NumPy has, float32 or uint8 say. Export it with that."
                )
        return tuple(np.dtype(_NUMPY_TYPES[_element(value)]) for value in self._inputs)

    @property
    def coverage(self) -> Coverage:
        """Which nodes run where."""
        return coverage_of(self._inner, self.provider)

    @property
    def provider_options(self) -> dict[str, str]:
        """The options of the provider in force, its defaults included, by ONNX Runtime's names."""
        return dict(self._inner.get_provider_options()[self._inner.get_providers()[0]])

    def output_shape(self, name: str) -> tuple[int | str | None, ...]:
        """An output's shape: numbers where fixed, names (or None) where dynamic."""
        shapes = {value.name: value.shape for value in self._inner.get_outputs()}
        return tuple(shapes[name])

    def run(self, *inputs: NDArray[Any], outputs: Sequence[str] | None = None) -> list[NDArray[Any]]:
        """Run once.

        Args:
            *inputs: One array for each of `input_names`, in that order.
            outputs: Names of the outputs wanted; all of them by default.

        Returns:
            One array for each output, in the order asked for.

        Raises:
            ModelError: If the arrays do not fit the model's inputs, an output does not exist or has no
                value, or ONNX Runtime fails on the way.
        """
        self._check_all(inputs)
        for name in outputs or ():
            if name not in self.output_names:
                raise ModelError(
                    f"cannot run '{self.name}': it has no output {name!r}; "
                    f"its outputs are {', '.join(map(repr, self.output_names))}."
                    f"{did_you_mean(name, self.output_names)}"
                )
        feed = dict(zip(self.input_names, inputs, strict=True))
        options = _without_graph() if self._cuda_graph else None
        try:
            found = list(self._inner.run(None if outputs is None else list(outputs), feed, options))
        except ORT_ERRORS as error:
            raise ModelError(f"cannot run '{self.name}': ONNX Runtime says: {sentence(error)}") from error
        for name, value in zip(self.output_names if outputs is None else outputs, found, strict=True):
            if value is None:  # of an operator whose attributes leave it out
                raise ModelError(
                    f"cannot run '{self.name}': its output {name!r} gets no value. Export it again."
                )
        return found

    @contextlib.contextmanager
    def bounded(self, count: int) -> Iterator[None]:
        """Bound the memory that a run on the CPU may take, with image decoders beside it.

        What counts is what the values of the network take, twice, because room grows by doubling. On another
        provider, and for a model that was made here, nothing is bounded.

        Args:
            count: Images of the run.

        Raises:
            ModelError: If it was not enough.
        """
        if self.sizes is None or self.provider != "cpu":
            yield
            return
        more = 2 * count * self.sizes.total + DECODERS
        with limits.bounded(f"cannot run '{self.name}': ONNX Runtime", more):
            try:
                yield
            except ModelError as error:
                if any(words in str(error) for words in OUT_OF_MEMORY):
                    raise MemoryError from error
                raise

    def bind(self, *inputs: NDArray[Any]) -> Binding:
        """Return the session with input and output buffers of its own, for one set of input shapes.

        Where the session was opened for CUDA graphs, each binding has a graph of its own.

        Args:
            *inputs: One array for each of `input_names`, in that order; their shapes and types count.

        Raises:
            ModelError: As :meth:`run`, which is called once.
        """
        from graftonnx.runtime.binding import Binding

        self._check_all(inputs)
        return Binding(self, self._inner, inputs, graph=self._cuda_graph)

    def _check_all(self, inputs: Sequence[NDArray[Any]]) -> None:
        """Refuse arrays that are not what the inputs expect."""
        if len(inputs) != len(self._inputs):
            raise ModelError(
                f"cannot run '{self.name}': {len(inputs)} inputs given, expected {len(self._inputs)} "
                f"({', '.join(map(repr, self.input_names))})."
            )
        for value, array in zip(self._inputs, inputs, strict=True):
            self._check(value, array)

    def _check(self, value: Any, array: NDArray[Any]) -> None:
        """Refuse an array whose element type or shape is not what input `value` expects."""
        expected = _NUMPY_TYPES.get(_element(value))
        if expected is not None and array.dtype != np.dtype(expected):
            raise ModelError(
                f"cannot run '{self.name}': input {value.name!r} is {array.dtype}, expected {expected}. "
                f"Convert it with .astype('{expected}')."
            )
        fits = len(value.shape) == array.ndim and all(
            not isinstance(size, int) or size == given
            for size, given in zip(value.shape, array.shape, strict=True)
        )
        if value.shape and not fits:
            shape = ", ".join(str(size) if isinstance(size, int) else (size or "?") for size in value.shape)
            raise ModelError(
                f"cannot run '{self.name}': input {value.name!r} has shape {list(array.shape)}, "
                f"expected [{shape}]. Bring it to that shape."
            )


def _element(value: Any) -> str:
    """Return ONNX Runtime's name of an input's element type: `float` of `tensor(float)`."""
    return str(value.type).removeprefix("tensor(").removesuffix(")")


def _without_graph() -> ort.RunOptions:
    """Return the options of a run that neither records nor replays a CUDA graph."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options
