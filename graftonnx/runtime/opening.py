"""From a file, or a model in memory, to a session on the provider that was asked for."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import onnx
import onnxruntime as ort

from graftonnx import limits
from graftonnx.errors import ModelError, RuntimeProviderError
from graftonnx.files import check_text
from graftonnx.machine import cores
from graftonnx.metadata import read_metadata
from graftonnx.normalise.sizes import Sizes, check_sizes
from graftonnx.providers import CATALOGUE, PROVIDERS, Provider, driver
from graftonnx.providers.obstacles import obstacle
from graftonnx.providers.settings import Settings, Shape, chain
from graftonnx.runtime.coverage import RECORD, coverage
from graftonnx.runtime.messages import ORT_ERRORS, sentence
from graftonnx.runtime.session import Session
from graftonnx.spelling import did_you_mean
from graftonnx.weights import Weights, exceeds_protobuf, read, split, whole, write_external

IN_MEMORY = 1 << 26
"""Bytes of weights up to which a skeleton is handed to ONNX Runtime in memory."""

_COPIES = 4
"""What ONNX Runtime takes to load a file: the weights, in the order of its kernels too, and folded ones."""

_FATAL, _WARNING = 4, 2


def open_session(
    model: Path | onnx.ModelProto,
    *,
    weights: Weights | None = None,
    provider: Provider = "auto",
    threads: int = 0,
    optimise: bool = True,
    settings: Settings | None = None,
    sizes: Sizes | None = None,
) -> Session:
    """Load a model into ONNX Runtime.

    Args:
        model: A file, or a model in memory of any size, which may be a skeleton.
        weights: The large tensors of the skeleton; many are handed over in a temporary file.
        provider: `"cuda"`, say, runs on an NVIDIA GPU or raises; `"auto"` takes CUDA if it works, else the
            CPU.
        threads: CPU threads within an operator; 0 lets ONNX Runtime choose, or takes one for each core where
            the process may not use all cores: ONNX Runtime would count the others as well.
        optimise: False switches every graph optimisation off, so that each node computes what it says.
        settings: How the provider is to run it.
        sizes: What the values of a model in memory take, if its memory is to be limited as a file's is.

    Raises:
        ModelError: If there is no such file or ONNX Runtime refuses it.
        RuntimeProviderError: If the provider cannot be used here, saying what is missing, runs too few of the
            nodes, or a setting means nothing to it.
    """
    if provider not in PROVIDERS:
        raise ValueError(f"provider is {provider!r}, expected one of {', '.join(PROVIDERS)}")
    loading: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    if isinstance(model, Path):
        name = model.name
        if not model.is_file():
            what = "it is a folder" if model.is_dir() else "there is no such file"
            raise ModelError(f"cannot read '{model}': {what}. Give the path of an ONNX file.")
        check_text(model, "run", "ONNX Runtime reads no other: rename it.")
        sizes, held = _vet(model)
        loading = partial(limits.bounded, f"cannot load '{name}': ONNX Runtime", _COPIES * held)
    else:
        name = model.graph.name or "model"
    wish: Provider = "cuda" if provider == "auto" else provider
    settings = settings or Settings()
    trouble = obstacle(wish)
    if trouble is not None and provider != "auto":
        raise _impossible(name, wish, trouble)
    try:
        inputs = input_shapes(model) if wish == "tensorrt" else {}
        asked = chain("cpu" if trouble else wish, settings, inputs)
        if settings.cache is not None:
            _make_folder(settings.cache)
    except RuntimeProviderError as error:
        raise error.at(f"cannot run '{name}'") from error
    options = _options(threads, optimise=optimise, entries=settings.session_entries)
    options.enable_mem_pattern = wish != "directml"
    if trouble is None and wish != "cpu":
        loading = contextlib.nullcontext  # a GPU's address space is larger than any limit
    with _source(model, weights) as source, loading():
        if trouble is None:
            inner, trouble = _create_on(wish, asked, source, options, name)
            if inner is not None:
                coverage(inner, wish).require(settings.min_coverage, name)
                graph = settings.cuda_graph
                return Session(inner, name=name, provider=wish, fallback=None, cuda_graph=graph, sizes=sizes)
            if provider != "auto":
                raise _impossible(name, wish, trouble)
        inner = _create(source, options, chain("cpu", settings, {}), name)
    fallback = trouble if driver() else None
    return Session(inner, name=name, provider="cpu", fallback=fallback, sizes=sizes)


def _vet(path: Path) -> tuple[Sizes, int]:
    """Refuse a file that native code should not see: it reads and allocates what the file says.

    Returns:
        What its values take, and the bytes of the file with its external data.

    Raises:
        ModelError: If it is no sound ONNX file, or one of its values would not fit into memory, at the size
            that suits it.
    """
    skeleton, weights = read(path)
    held = path.stat().st_size + sum(tensor.nbytes for tensor in weights.values())
    try:
        convention = read_metadata(skeleton).input
        return check_sizes(skeleton, None if convention is None else convention.size), held
    except ModelError as error:
        raise error.at(f"cannot run '{path}'") from error


def _make_folder(cache: Path) -> None:
    """Create the folder in which a provider keeps what it compiles."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RuntimeProviderError(
            f"no compiled files can be kept in '{cache}': {error.strerror}. Choose another --cache."
        ) from error


def _impossible(name: str, provider: Provider, trouble: str | None) -> RuntimeProviderError:
    """Return the error for a provider that cannot run a network."""
    return RuntimeProviderError(
        f"cannot run '{name}' on {CATALOGUE[provider].title}: {trouble} Or choose the provider 'cpu'."
    )


def _options(threads: int, *, optimise: bool, entries: Mapping[str, str]) -> ort.SessionOptions:
    """Return options of a silent session."""
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads or (cores() if cores() < (os.cpu_count() or 1) else 0)
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in {RECORD: "1", **entries}.items():
        options.add_session_config_entry(key, value)
    return options


def _create(
    source: str | bytes, options: ort.SessionOptions, asked: list[tuple[str, dict[str, str]]], name: str
) -> ort.InferenceSession:
    """Create the session on the providers `asked`; ONNX Runtime's own retries stay off."""
    try:
        return ort.InferenceSession(source, options, providers=asked, enable_fallback=0)
    except ORT_ERRORS as error:
        reason = sentence(error)
        if reason.endswith(("Protobuf parsing failed.", "No graph was found in the protobuf.")):
            raise ModelError(
                f"cannot load '{name}': it is not an ONNX file, or it is truncated. Download or "
                "export it again."
            ) from error
        raise ModelError(f"cannot load '{name}': ONNX Runtime refuses it: {reason}") from error


def _create_on(
    provider: Provider,
    asked: list[tuple[str, dict[str, str]]],
    source: str | bytes,
    options: ort.SessionOptions,
    name: str,
) -> tuple[ort.InferenceSession | None, str | None]:
    """Create the session on a provider, or return None and the reason why that is impossible."""
    if provider == "cpu":
        return _create(source, options, asked, name), None
    entry = CATALOGUE[provider]
    ort.set_default_logger_severity(_FATAL)
    try:
        inner = _create(source, options, asked, name)
    except ModelError as error:
        if _is_the_models_fault(source, name):
            raise
        reason = sentence(error.__cause__ or error).rstrip(".")
        return None, f"ONNX Runtime says: {reason}. Run graftonnx doctor."
    finally:
        ort.set_default_logger_severity(_WARNING)
    if _lacks(inner, provider):
        return None, f"ONNX Runtime could not load its {entry.title} provider. Run graftonnx doctor."
    found = coverage(inner, provider)
    if found.nodes and not found.covered:
        return None, f"it takes none of the network's {found.nodes} nodes."
    return inner, None


def _lacks(inner: ort.InferenceSession, provider: Provider) -> bool:
    """Return whether a session was opened without its provider, which ONNX Runtime does with a log line."""
    return CATALOGUE[provider].name not in inner.get_providers()


def _is_the_models_fault(source: str | bytes, name: str) -> bool:
    """Return whether the CPU cannot load the model either."""
    try:
        _create(source, _options(1, optimise=False, entries={}), [(CATALOGUE["cpu"].name, {})], name)
    except ModelError:
        return True
    return False


def input_shapes(model: Path | onnx.ModelProto) -> dict[str, Shape]:
    """Return the shapes of a model's inputs, without a session: numbers where fixed, else names or None.

    Raises:
        ModelError: If it is a file that cannot be read.
    """
    graph = (read(model)[0] if isinstance(model, Path) else model).graph
    weights = {tensor.name for tensor in graph.initializer}
    return {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
            for dim in value.type.tensor_type.shape.dim
        )
        for value in graph.input
        if value.name not in weights
    }


def version() -> str:
    """Return the version of ONNX Runtime."""
    return str(ort.__version__)


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
            hint = did_you_mean(name, computed)
            raise ModelError(f"cannot output {name!r}: the graph computes no such value.{hint}")
        copy.graph.output.append(known.get(name, onnx.ValueInfoProto(name=name)))
    return copy


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
