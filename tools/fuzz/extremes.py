"""One operator with something that hardly any file has: an extreme attribute, constant, shape or type."""

from __future__ import annotations

import functools
import random
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np
from command_lines import MODEL
from mutation import FLOATS, INTEGERS, WORDS
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, defs, numpy_helper
from running import Case
from seeds import official_cases

EXTENTS = (0, 1, 2, 3, 17, 1_000_003, 1 << 31, (1 << 63) - 1, -1)
"""Of an axis."""

NUMBERS = (*INTEGERS, 1_000_003, -1_000_003)
"""Among them some that are large, and not so large that a limit refuses them."""

LARGEST = 2_048
"""Bytes of a tensor that becomes a constant."""


class Example(NamedTuple):
    """An official case of an operator.

    Attributes:
        model: Encoded, of one node.
        tensors: What its inputs are given in the case, by name.
    """

    model: bytes
    tensors: dict[str, TensorProto]


@functools.cache
def examples() -> dict[str, list[Example]]:
    """Return the official cases of every operator."""
    found: dict[str, list[Example]] = defaultdict(list)
    for case in official_cases():
        if len(case.model.graph.node) != 1:
            continue
        inputs = case.data_sets[0][0] if case.data_sets else []
        given = {
            value.name: numpy_helper.from_array(array, value.name)
            for value, array in zip(case.model.graph.input, inputs, strict=False)
            if isinstance(array, np.ndarray) and array.dtype.kind in "biuf" and array.nbytes <= LARGEST
        }
        kind = case.model.graph.node[0].op_type
        found[kind].append(Example(case.model.SerializeToString(), given))
    return dict(sorted(found.items()))


def case(rng: random.Random) -> Case:
    """Return a check of an operator with one or two extremes."""
    model, tensors = rng.choice(examples()[rng.choice(list(examples()))])
    proto = ModelProto.FromString(model)
    for name, tensor in tensors.items():
        is_setting = tensor.data_type not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
        if rng.random() < (0.7 if is_setting else 0.2):
            _hold(proto, name, tensor)
    for _ in range(rng.choice((1, 1, 1, 2))):
        rng.choice((_attribute, _attribute, _constant, _constant, _shape, _type))(proto, rng)
    return Case(["check", MODEL], {MODEL: proto.SerializeToString()})


def _hold(model: ModelProto, name: str, tensor: TensorProto) -> None:
    """Make an input a constant."""
    kept = [value for value in model.graph.input if value.name != name]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.append(tensor)


def _attribute(model: ModelProto, rng: random.Random) -> None:
    node = model.graph.node[0]
    schema = _schema(model, node)
    if schema is None or not schema.attributes:
        return
    name = rng.choice(sorted(schema.attributes))
    old = next((item for item in node.attribute if item.name == name), AttributeProto())
    new = AttributeProto(name=name, type=int(schema.attributes[name].type))
    if new.type == AttributeProto.INT:
        new.i = rng.choice(NUMBERS)
    elif new.type == AttributeProto.FLOAT:
        new.f = rng.choice(FLOATS)
    elif new.type == AttributeProto.STRING:
        new.s = rng.choice((rng.choice(WORDS), rng.choice(_MODES))).encode()
    elif new.type == AttributeProto.INTS:
        new.ints.extend(_changed(list(old.ints) or [1], NUMBERS, rng))
    elif new.type == AttributeProto.FLOATS:
        new.floats.extend(_changed(list(old.floats) or [1.0], FLOATS, rng))
    elif new.type == AttributeProto.STRINGS:
        new.strings.extend(_changed(list(old.strings) or [b"x"], [word.encode() for word in WORDS], rng))
    else:
        return
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, new])


_MODES = (
    "linear",
    "nearest",
    "cubic",
    "constant",
    "reflect",
    "edge",
    "wrap",
    "SAME_UPPER",
    "SAME_LOWER",
    "VALID",
)


def _schema(model: ModelProto, node: NodeProto) -> Any:
    domain = "" if node.domain == "ai.onnx" else node.domain
    for entry in model.opset_import:
        if entry.domain in (domain, "" if domain else "ai.onnx") and defs.has(
            node.op_type, entry.version, domain
        ):
            return defs.get_schema(node.op_type, entry.version, domain)
    return None


def _changed(items: list[Any], extremes: Any, rng: random.Random) -> list[Any]:
    """Return a list with another element, with other elements only, or of another length."""
    change = rng.randrange(5)
    if change < 2:
        items[rng.randrange(len(items))] = rng.choice(extremes)
        return items
    if change == 2:
        return [rng.choice(extremes)] * len(items)
    return rng.choice(([], items[:-1], items + items, items[:1] * 70))


def _constant(model: ModelProto, rng: random.Random) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    array = numpy_helper.to_array(tensor)
    change = rng.randrange(4)
    if change == 0:
        flat = array.reshape(-1)
        array = rng.choice((flat, flat[:0], flat[:1], array[None], np.resize(flat, ())))
    elif array.size and array.dtype.kind in "iuf":
        array = array.copy()
        with np.errstate(all="ignore"):
            number = np.array(rng.choice(FLOATS if array.dtype.kind == "f" else NUMBERS))
            if change == 1:
                array[...] = number.astype(array.dtype)
            else:
                array.reshape(-1)[rng.randrange(array.size)] = number.astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _shape(model: ModelProto, rng: random.Random) -> None:
    tensors = [value for value in model.graph.input if value.type.HasField("tensor_type")]
    if not tensors:
        return
    kind = rng.choice(tensors).type.tensor_type
    change = rng.randrange(5)
    if change == 0:
        kind.ClearField("shape")
    elif change == 1 and kind.shape.dim:
        del kind.shape.dim[rng.randrange(len(kind.shape.dim))]
    elif change == 2:
        for _ in range(rng.choice((1, 2, 9, 70))):
            kind.shape.dim.add(dim_value=rng.choice(EXTENTS[:4]))
    elif kind.shape.dim:
        dim = rng.choice(kind.shape.dim)
        if change == 3:
            dim.dim_value = rng.choice(EXTENTS)
        else:
            dim.dim_param = rng.choice(WORDS)


def _type(model: ModelProto, rng: random.Random) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output])
    if value.type.HasField("tensor_type"):
        value.type.tensor_type.elem_type = rng.choice(list(TensorProto.DataType.values()))
