"""A converter's Python signature is the operator's ONNX signature, at every opset it is used for."""

from __future__ import annotations

import inspect
from typing import Any

import onnx
import pytest

from graftonnx.conversion import registry
from graftonnx.conversion.registry import Entry
from graftonnx.errors import UnsupportedOpError

SEEN_OPSETS = range(6, onnx.defs.onnx_opset_version() + 1)


def versions() -> list[tuple[Entry, Any]]:
    """Every schema in force at an opset that is read, with the converter that is used for it."""
    pairs = {}
    for entry in registry.entries():
        for opset in SEEN_OPSETS:
            try:
                schema = onnx.defs.get_schema(entry.op_type, opset, entry.domain)
                chosen = registry.resolve(entry.domain, entry.op_type, opset)
            except (onnx.defs.SchemaError, UnsupportedOpError):
                continue
            if chosen is entry:
                pairs[entry.op_type, schema.since_version] = (entry, schema)
    return list(pairs.values())


def _is_newest(entry: Entry, schema: Any) -> bool:
    return all(s.since_version <= schema.since_version for e, s in VERSIONS if e is entry)


VERSIONS = versions()
NAMES = [f"{entry.op_type}-{schema.since_version}" for entry, schema in VERSIONS]


@pytest.mark.parametrize(("entry", "schema"), VERSIONS, ids=NAMES)
def test_attributes_have_the_names_and_defaults_of_the_standard(entry: Entry, schema: Any) -> None:
    parameters = inspect.signature(entry.convert).parameters
    for name, attribute in schema.attributes.items():
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        default = parameters[name].default
        if attribute.required:
            assert default is inspect.Parameter.empty
        elif attribute.default_value.type == onnx.AttributeProto.UNDEFINED:
            assert default is None or name in ("dilations", "strides", "pads")
        else:
            expected = onnx.helper.get_attribute_value(attribute.default_value)
            expected = expected.decode() if isinstance(expected, bytes) else expected
            if isinstance(expected, list):
                expected = [part.decode() if isinstance(part, bytes) else part for part in expected]
            same = pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected
            assert default == same or tuple(default) == tuple(expected)


@pytest.mark.parametrize(("entry", "schema"), VERSIONS, ids=NAMES)
def test_inputs_are_those_of_the_standard(entry: Entry, schema: Any) -> None:
    first, *inputs = [
        p for p in inspect.signature(entry.convert).parameters.values() if p.kind is not p.KEYWORD_ONLY
    ]
    assert first.name == "g"
    kinds = onnx.defs.OpSchema.FormalParameterOption
    if schema.inputs and schema.inputs[-1].option == kinds.Variadic:
        assert inputs[-1].kind is inspect.Parameter.VAR_POSITIONAL
        return
    assert len(inputs) == len(schema.inputs)
    for parameter, formal in zip(inputs, schema.inputs, strict=True):
        optional = formal.option == kinds.Optional
        assert parameter.default is None or not optional, parameter.name
        assert optional or parameter.default is not None or not _is_newest(entry, schema), parameter.name


def test_registering_an_operator_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^Relu \(since 6, domain ''\) is registered twice$"):
        registry.op("Relu", since=6)(lambda g, x: x)


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match=r"^there is no converter for this operator\.$"):
        registry.resolve("", "Quant", 13)


@pytest.mark.parametrize(
    ("op_type", "opset", "since"),
    [("Softmax", 12, 1), ("Softmax", 13, 13), ("Clip", 10, 6), ("Clip", 11, 11), ("ReduceMean", 17, 1),
     ("ReduceMean", 18, 18), ("Resize", 10, 10), ("Resize", 13, 11), ("Resize", 19, 18)],
)  # fmt: skip
def test_the_meaning_in_force_is_chosen(op_type: str, opset: int, since: int) -> None:
    assert registry.resolve("", op_type, opset).since == since
