"""Run ONNX files in ONNX Runtime: on the provider that was asked for, or an error that says why not.

`InferenceSession(providers=["CUDAExecutionProvider"])` succeeds on a machine without a GPU and then runs on
the CPU. Here `provider="cuda"` either runs on CUDA or raises; `"auto"` takes CUDA where it truly works and
remembers why it did not in :attr:`Session.fallback`. ONNX Runtime's own log lines are silenced: whatever goes
wrong arrives as one sentence in an exception.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from graftonnx import providers
from graftonnx.errors import ModelError, RuntimeProviderError
from graftonnx.metadata import Metadata, read_metadata
from graftonnx.providers import PROVIDERS, Provider
from graftonnx.weights import Weights, exceeds_protobuf, split, whole, write_external

IN_MEMORY = 1 << 26
"""Bytes of weights up to which a skeleton is handed to ONNX Runtime in memory."""

_FATAL, _WARNING = 4, 2
_ORT_ERRORS: tuple[type[Exception], ...] = (
    *(
        getattr(ort.capi.onnxruntime_pybind11_state, name)
        for name in (
            "EngineError",
            "EPFail",
            "Fail",
            "InvalidArgument",
            "InvalidGraph",
            "InvalidProtobuf",
            "NoModel",
            "NoSuchFile",
            "NotImplemented",
            "RuntimeException",
        )
    ),
    RuntimeError,
    ValueError,
)

_NUMPY_TYPES = {
    "float": "float32",
    "double": "float64",
    "bool": "bool",
    **{name: name for name in ("float16", "uint8", "uint16", "uint32", "uint64")},
    **{name: name for name in ("int8", "int16", "int32", "int64")},
}
"""ONNX Runtime's names of element types, with NumPy's."""

_BLAMING = (
    re.compile(r"Name:'(?P<node>.*?)' Status Message: (?P<reason>.*)"),
    re.compile(r"Node \((?P<node>.*?)\) Op \(\w+\) (?:\[\w+\] )?(?P<reason>.*)"),
    re.compile(r'In Node, \("(?P<node>.*?)", .*, Error (?P<reason>.*)'),
    re.compile(r"(?P<reason>Type '.*?' of input .* in node \((?P<node>.*?)\) is invalid)"),
    re.compile(r"(?P<reason>.*) node with name '(?P<node>.*?)'"),
)
"""How ONNX Runtime names the node that it cannot load or run."""


class Session:
    """A model that is ready to run. Thread-safe: several threads may call :meth:`run` at once.

    Attributes:
        name: The file's name, for messages.
        provider: Where it runs: `"cpu"` or `"cuda"`.
        fallback: Why `"auto"` did not take CUDA although an NVIDIA driver is installed; None otherwise.
        metadata: What the file says about itself.
    """

    def __init__(
        self,
        inner: ort.InferenceSession,
        *,
        name: str,
        provider: Literal["cpu", "cuda"],
        fallback: str | None,
    ) -> None:
        self._inner = inner
        self.name = name
        self.provider = provider
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
        return np.dtype(_NUMPY_TYPES[_element(self._inputs[0])])

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
            ModelError: If the arrays do not fit the model's inputs, an output does not exist, or ONNX Runtime
                fails on the way.
        """
        if len(inputs) != len(self._inputs):
            raise ModelError(
                f"cannot run '{self.name}': {len(inputs)} inputs given, expected {len(self._inputs)} "
                f"({', '.join(map(repr, self.input_names))})."
            )
        for value, array in zip(self._inputs, inputs, strict=True):
            self._check(value, array)
        for name in outputs or ():
            if name not in self.output_names:
                raise ModelError(
                    f"cannot run '{self.name}': it has no output {name!r}; "
                    f"its outputs are {', '.join(map(repr, self.output_names))}."
                )
        feed = dict(zip(self.input_names, inputs, strict=True))
        try:
            return list(self._inner.run(None if outputs is None else list(outputs), feed))
        except _ORT_ERRORS as error:
            raise ModelError(f"cannot run '{self.name}': ONNX Runtime says: {_sentence(error)}") from error

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


def open_session(
    model: Path | onnx.ModelProto,
    *,
    weights: Weights | None = None,
    provider: Provider = "auto",
    threads: int = 0,
    optimise: bool = True,
) -> Session:
    """Load a model into ONNX Runtime.

    Args:
        model: A file, or a model in memory of any size, which may be a skeleton.
        weights: The large tensors of the skeleton; many are handed over in a temporary file.
        provider: `"cuda"` runs on an NVIDIA GPU or raises; `"auto"` takes CUDA if it works, else the CPU.
        threads: CPU threads within an operator; 0 lets ONNX Runtime choose.
        optimise: False switches every graph optimisation off, so that each node computes what it says.

    Raises:
        ModelError: If there is no such file or ONNX Runtime refuses it.
        RuntimeProviderError: If CUDA was asked for and cannot be used here, saying what is missing.
    """
    if provider not in PROVIDERS:
        raise ValueError(f"provider is {provider!r}, expected one of {', '.join(PROVIDERS)}")
    if isinstance(model, Path):
        name = model.name
        if not model.is_file():
            what = "it is a folder" if model.is_dir() else "there is no such file"
            raise ModelError(f"cannot read '{model}': {what}. Give the path of an ONNX file.")
    else:
        name = model.graph.name or "model"
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with _source(model, weights) as source:
        obstacle = None
        if provider != "cpu":
            obstacle = providers.cuda_obstacle()
            if obstacle is None:
                inner, obstacle = _create_on_cuda(source, options, name)
                if inner is not None:
                    return Session(inner, name=name, provider="cuda", fallback=None)
            if provider == "cuda":
                raise RuntimeProviderError(
                    f"cannot run '{name}' on CUDA: {obstacle} Or choose the provider 'cpu'."
                )
        inner = _create(source, options, ["CPUExecutionProvider"], name)
    fallback = obstacle if obstacle and providers.driver() else None
    return Session(inner, name=name, provider="cpu", fallback=fallback)


def with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy of `model` that also outputs the named values, after its own outputs.

    Before: `x -> Conv -> c -> Relu -> y`, outputs `y`. After `with_outputs(model, ["c"])`: outputs `y, c`.

    Raises:
        ModelError: If the graph computes no value of that name.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name: value for value in (*copy.graph.value_info, *copy.graph.input)}
    computed = {value.name for value in copy.graph.input}
    computed.update(name for node in copy.graph.node for name in node.output if name)
    present = {value.name for value in copy.graph.output}
    for name in dict.fromkeys(names):
        if name in present:
            continue
        if name not in computed:
            near = difflib.get_close_matches(name, computed, n=2)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise ModelError(f"cannot output {name!r}: the graph computes no such value.{hint}")
        copy.graph.output.append(known.get(name, onnx.ValueInfoProto(name=name)))
    return copy


def _create(
    source: str | bytes, options: ort.SessionOptions, names: list[str], name: str
) -> ort.InferenceSession:
    """Create the session on the providers `names`; ONNX Runtime's own retries stay off."""
    try:
        return ort.InferenceSession(source, options, providers=names, enable_fallback=0)
    except _ORT_ERRORS as error:
        reason = _sentence(error)
        if reason.endswith(("Protobuf parsing failed.", "No graph was found in the protobuf.")):
            raise ModelError(f"cannot load '{name}': it is not an ONNX file, or it is truncated.") from error
        raise ModelError(f"cannot load '{name}': ONNX Runtime refuses it: {reason}") from error


def _create_on_cuda(
    source: str | bytes, options: ort.SessionOptions, name: str
) -> tuple[ort.InferenceSession | None, str | None]:
    """Create the session on CUDA, or return None and the reason why that is impossible."""
    missing = providers.preload_cuda()
    ort.set_default_logger_severity(_FATAL)
    try:
        inner = _create(source, options, ["CUDAExecutionProvider", "CPUExecutionProvider"], name)
    except ModelError as error:
        if "CUDA" not in str(error.__cause__):
            raise
        return None, f"{error.message}. Check the driver with nvidia-smi."
    finally:
        ort.set_default_logger_severity(_WARNING)
    if "CUDAExecutionProvider" in inner.get_providers():
        return inner, None
    return None, providers.libraries_obstacle(missing)


def _element(value: Any) -> str:
    """Return ONNX Runtime's name of an input's element type: `float` of `tensor(float)`."""
    return str(value.type).removeprefix("tensor(").removesuffix(")")


def blamed(error: ModelError) -> tuple[str, str]:
    """Return what ONNX Runtime says of a model that it could not load or run.

    Args:
        error: What :func:`open_session` or :meth:`Session.run` raised.

    Returns:
        The node that it blames, "" where it names none, and the reason.
    """
    text = _sentence(error.__cause__ or error)
    for pattern in _BLAMING:
        found = pattern.search(text)
        if found is not None:
            return found["node"], found["reason"].strip().rstrip(".")
    return "", text.rstrip(".")


def _sentence(error: BaseException) -> str:
    """Return ONNX Runtime's message in one line, without its code."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    text = re.sub(r"/\S*onnxruntime\S*\.(?:cc|h):\d+ [^\n]*? was false\. ", "", text)
    text = re.sub(r"/\S*onnxruntime\S*\.(?:cc|h):\d+ .*?\) (?=[A-Z])", "", text)
    return " ".join(text.split())


@contextlib.contextmanager
def _source(model: Path | onnx.ModelProto, weights: Weights | None) -> Iterator[str | bytes]:
    """Yield what `InferenceSession` takes: a path, bytes, or for a large model a temporary file's path."""
    if isinstance(model, Path):
        yield str(model)
        return
    if weights is None and exceeds_protobuf(model):
        model, weights = split(model)
    elements = weights or {}
    if sum(tensor.nbytes for tensor in elements.values()) <= IN_MEMORY:
        yield whole(model, elements).SerializeToString()
        return
    with tempfile.TemporaryDirectory(prefix="graftonnx-") as folder:
        path = Path(folder, "model.onnx")
        write_external(model, elements, path, path.with_name("weights"), location="weights")
        yield str(path)
