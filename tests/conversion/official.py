"""The test cases that the ONNX standard ships, and how to run one through a converted module."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

from graftonnx.conversion import to_torch
from graftonnx.conversion.registry import known
from graftonnx.conversion.values import STAND_INS, to_array, to_tensor
from graftonnx.graph import subgraphs

SETS = ("simple", "pytorch-converted", "pytorch-operator")
"""The sets of cases that are files."""

TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2}
"""Two units in the last place: kernels round at other steps than the reference. Others: the case's own."""

RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
                    "RandomUniformLike"})  # fmt: skip
"""The standard leaves their numbers open; element type and shape are compared."""

SPECTRA = frozenset({"DFT", "STFT"})
"""Where the exact result is zero, the cases hold what float32 left of their largest number."""


@functools.cache
def cases() -> dict[str, TestCase]:
    """Every case, by name: those of single operators, and those that lie in the package as files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators overflow and divide by zero on purpose
        found = [*collect_testcases(None), *(_read(c) for kind in SETS for c in load_model_tests(kind=kind))]
    return {case.name: case for case in sorted(found, key=lambda case: case.name)}


def _read(case: TestCase) -> TestCase:
    """Return a case with its model and data, which lie in files."""
    folder = Path(case.model_dir or "")
    model = onnx.load(folder / "model.onnx")
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in held]
    data = [
        tuple(
            [_read_value(sample / f"{role}_{i}.pb", value) for i, value in enumerate(values)]
            for role, values in (("input", inputs), ("output", model.graph.output))
        )
        for sample in sorted(folder.glob("test_data_set_*"))
    ]
    return replace(case, model=model, data_sets=data)


def _read_value(path: Path, value: onnx.ValueInfoProto) -> Any:
    if value.type.HasField("sequence_type"):
        return onnx.numpy_helper.to_list(onnx.SequenceProto.FromString(path.read_bytes()))
    return onnx.numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def is_covered(case: TestCase) -> bool:
    """Whether every operator of a case has a converter, or a definition in terms of others."""
    opsets = {item.domain: item.version for item in case.model.opset_import}
    return all(
        known(node.domain, node.op_type) or _has_body(node, opsets.get(node.domain, 1))
        for node in _nodes(case.model.graph)
    )


def _has_body(node: onnx.NodeProto, opset: int) -> bool:
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def failure(case: TestCase) -> str | None:
    """Convert a case, run it, and say how the result is wrong; None if it is right.

    Raises:
        GraftError: If the conversion is refused.
    """
    module = to_torch(case.model)
    for inputs, outputs in case.data_sets:
        with torch.no_grad():
            results = module(*(_argument(value) for value in inputs))
        found = results if isinstance(results, tuple) else (results,)
        if len(found) != len(outputs):
            return f"{len(found)} outputs, expected {len(outputs)}"
        for result, expected in zip(found, outputs, strict=True):
            wrong = _wrong(result, expected, case)
            if wrong is not None:
                return wrong
    return None


def _argument(value: Any) -> Any:
    """Return what a module takes for an input of a case: a tensor, a list of them, or None."""
    if value is None:
        return None
    return [_argument(item) for item in value] if isinstance(value, list) else to_tensor(_array(value))


def _wrong(found: Any, expected: Any, case: TestCase) -> str | None:
    if isinstance(expected, list):
        if len(found) != len(expected):
            return f"{len(found)} tensors, expected {len(expected)}"
        pairs = zip(found, expected, strict=True)
        return next((wrong for a, b in pairs if (wrong := _wrong(a, b, case)) is not None), None)
    return _difference(to_array(found), _array(expected), case)


def _difference(found: NDArray[Any], expected: NDArray[Any], case: TestCase) -> str | None:
    expected = expected.astype(STAND_INS.get(expected.dtype.name, expected.dtype))
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return f"{found.dtype}{found.shape}, expected {expected.dtype}{expected.shape}"
    operators = {node.op_type for node in _nodes(case.model.graph)}
    if operators & RANDOM or _drops(case):
        return None
    if found.dtype.kind in "biu":
        return None if np.array_equal(found, expected) else f"{found}, expected {expected}"
    rtol = TOLERANCE.get(expected.dtype.name, case.rtol)
    wide = np.complex128 if found.dtype.kind == "c" else np.float64
    with np.errstate(invalid="ignore"):  # not-a-number in 8 bits
        a, b = found.astype(wide), expected.astype(wide)
    atol = rtol if expected.dtype.name in TOLERANCE else case.atol
    if operators & SPECTRA:
        atol = max(atol, 1e-7 * np.abs(b).max())
    close = np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    return None if close else f"{found.ravel()[:4]}, expected {expected.ravel()[:4]}"


def _drops(case: TestCase) -> bool:
    """Whether a case drops random elements."""
    return any(n.op_type == "Dropout" and len(n.input) == 3 and n.input[1] for n in case.model.graph.node)


def _array(value: Any) -> NDArray[Any]:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from _nodes(inner)
