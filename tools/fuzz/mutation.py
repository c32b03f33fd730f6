"""Change models as an attacker would who knows the format: by fields, by meaning, and by bytes."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, defs, helper

INTEGERS = (
    0,
    1,
    2,
    3,
    -1,
    -2,
    4,
    7,
    64,
    255,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    1 << 40,
    (1 << 63) - 1,
    -(1 << 63),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 3e38, 1e-45, 0.5)
WORDS = (
    "", " ", "a" * 300, "x" * 70_000, 'with "quotes"', "it's", "back\\slash", "new\nline",
    "\x1b[31mred\x1b[0m",
    "<script>alert(1)</script>", "=1+1", "../../outside", "/dev/zero", "/etc/passwd", ".", "..", "a/b/../c",
    '__import__("os").abort()', "class", "forward", "None", "self", "lambda", "import os", "名前",
    "\u202ereversed",
    "\0", "a/", "a/b", "a.b", "%s%n", "{0}", "{", "}", "weight", "preprocess/a/mean", "batch", "ai.onnx",
    "com.microsoft", "ai.onnx.ml", "own", "#", "&amp;", "image", "0", "-1", "1e400", "[", "[/x]", "[red]",
    "]]>", "\ud7ff",
)  # fmt: skip
"""Names that mean something to a shell, a path, Python, HTML, a terminal, a spreadsheet, or to us."""

OPERATORS = sorted({schema.name for schema in defs.get_all_schemas()})
ATTRIBUTES = sorted({name for schema in defs.get_all_schemas() for name in schema.attributes})

_INTEGER_TYPES = frozenset(
    {
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_ENUM,
    }
)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return an encoded model after one to four changes, sometimes of its bytes too."""
    if rng.random() < 0.05:
        return damaged(content, rng)
    model = ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        change = rng.choice(_CHANGES)
        with contextlib.suppress(DecodeError):  # nested too deeply for protobuf to copy
            change(model, rng)
    try:
        encoded = model.SerializeToString()
    except EncodeError:  # nested too deeply for protobuf
        encoded = content
    if rng.random() < 0.01:
        encoded += _deep(rng)
    return damaged(encoded, rng) if rng.random() < 0.04 else encoded


def _deep(rng: random.Random) -> bytes:
    """Return a second graph, which parsers merge with the first, nested more deeply than protobuf writes."""
    step = rng.choice((_IF, _SEQUENCE))
    content = b""
    for _ in range(rng.choice((35, 60, 99, 500))):
        for field in step:
            content = bytes([field << 3 | 2]) + _varint(len(content)) + content
    if step is _SEQUENCE:
        content = bytes([2 << 3 | 2]) + _varint(len(content)) + content  # ValueInfoProto.type
        content = bytes([11 << 3 | 2]) + _varint(len(content)) + content  # GraphProto.input
    return bytes([7 << 3 | 2]) + _varint(len(content)) + content


_IF = (6, 5, 1)
"""Fields of a graph in an attribute, an attribute in a node, a node in a graph."""

_SEQUENCE = (1, 4)
"""Fields of a type in a sequence, a sequence in a type."""


def _varint(number: int) -> bytes:
    content = bytearray()
    while number >= 0x80:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*content, number])


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return bytes of which some are flipped, cut out, doubled, moved or replaced."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        at = rng.randrange(len(data))
        # Structure lies between the weights; the first bytes and the last have most of it.
        at = min(at, rng.choice((len(data) - 1, 400, 60)))
        kind = rng.randrange(6)
        length = min(rng.choice((1, 2, 4, 16, 200)), len(data) - at)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
        elif kind == 4:
            data[at:at] = rng.randbytes(length)
        else:
            del data[at:]
    return bytes(data)


def _messages(message: Message, depth: int = 0) -> Iterator[Message]:
    yield message
    if depth > 12:
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in value if field.is_repeated else (value,):
                yield from _messages(item, depth + 1)


def _graphs(model: ModelProto) -> list[GraphProto]:
    return [message for message in _messages(model) if isinstance(message, GraphProto)] or [model.graph]


def _nodes(model: ModelProto) -> list[NodeProto]:
    return [node for graph in _graphs(model) for node in graph.node] or [model.graph.node.add()]


def _node(model: ModelProto, rng: random.Random) -> NodeProto:
    return rng.choice(_nodes(model))


def _names(model: ModelProto) -> list[str]:
    graph = model.graph
    names = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    names += [name for node in graph.node for name in (*node.input, *node.output)]
    return names or ["x"]


def _word(model: ModelProto, rng: random.Random) -> str:
    return rng.choice(_names(model)) if rng.random() < 0.5 else rng.choice(WORDS)


def _integer(rng: random.Random, old: int = 1) -> int:
    if rng.random() < 0.4:
        value = rng.choice((old + 1, old - 1, old * 2, -old, old // 2))
        return max(-(1 << 63), min((1 << 63) - 1, value))
    return rng.choice(INTEGERS)


def _scalar(field: Any, old: Any, model: ModelProto, rng: random.Random) -> Any:
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if field.type == FieldDescriptor.TYPE_INT32:
        return (
            rng.randrange(32)
            if rng.random() < 0.7
            else max(-(1 << 31), min((1 << 31) - 1, _integer(rng, old)))
        )
    if field.type == FieldDescriptor.TYPE_UINT64:
        return abs(_integer(rng, old))
    if field.type == FieldDescriptor.TYPE_INT64:
        return _integer(rng, old)
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _word(model, rng)
    return rng.choice(
        (b"", old[:-1], old[: len(old) // 2], old + b"\0", old * 2, damaged(old, rng), b"\xff\xfe")
    )


def _empty_value(field: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        return ""
    return b"" if field.type == FieldDescriptor.TYPE_BYTES else 0


def change_field(model: ModelProto, rng: random.Random) -> None:
    """Change one field somewhere: its value, its presence, or how often it is there."""
    found = list(_messages(model))
    by_kind: dict[str, list[Message]] = {}
    for message in found:
        by_kind.setdefault(message.DESCRIPTOR.name, []).append(message)
    message: Any = rng.choice(by_kind[rng.choice(sorted(by_kind))])
    present = [field for field, _ in message.ListFields()]
    fields = present if present and rng.random() < 0.85 else list(message.DESCRIPTOR.fields)
    field = rng.choice(fields)
    if field.is_repeated:
        _change_repeated(getattr(message, field.name), field, model, rng, by_kind)
    elif field.message_type is not None:
        if rng.random() < 0.4:
            message.ClearField(field.name)
        elif others := by_kind.get(field.message_type.name):
            copy = type(others[0])()
            copy.CopyFrom(rng.choice(others))
            getattr(message, field.name).CopyFrom(copy)
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(field, getattr(message, field.name), model, rng))


def _change_repeated(
    items: Any, field: Any, model: ModelProto, rng: random.Random, by_kind: dict[str, list[Message]]
) -> None:
    nested = field.message_type is not None
    kind = rng.randrange(7)
    at = rng.randrange(len(items)) if len(items) else 0
    if kind == 0 and len(items):
        del items[at]
    elif kind == 1 and len(items):
        _insert(items, items[at], nested)
    elif kind == 2 and len(items) > 1:
        other = rng.randrange(len(items))
        kept = list(items)
        kept[at], kept[other] = kept[other], kept[at]
        _replace(items, kept, nested)
    elif kind == 3:
        if nested:
            others = by_kind.get(field.message_type.name, [])
            items.add() if not others or rng.random() < 0.3 else _insert(items, rng.choice(others), nested)
        else:
            items.append(_scalar(field, _empty_value(field), model, rng))
    elif kind == 4:
        del items[:]
    elif kind == 5 and len(items) and len(items) < 2_000:
        for _ in range(rng.choice((3, 20, 60))):
            _insert(items, items[at], nested)
    elif not nested and len(items):
        items[at] = _scalar(field, items[at], model, rng)


def _insert(items: Any, item: Any, nested: bool) -> None:
    if nested:
        copy = type(item)()
        copy.CopyFrom(item)
        items.append(copy)
    else:
        items.append(item)


def _replace(items: Any, kept: list[Any], nested: bool) -> None:
    copies = []
    for item in kept:
        if nested:
            copy = type(item)()
            copy.CopyFrom(item)
            item = copy
        copies.append(item)
    del items[:]
    items.extend(copies)


def change_operator(model: ModelProto, rng: random.Random) -> None:
    """Make a node another operator."""
    node = _node(model, rng)
    node.op_type = rng.choice(OPERATORS)
    if rng.random() < 0.3:
        node.domain = rng.choice(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "own"))


def change_wiring(model: ModelProto, rng: random.Random) -> None:
    """Let a node read or make another value, more or fewer of them."""
    node = _node(model, rng)
    names = node.input if rng.random() < 0.7 else node.output
    kind = rng.randrange(5)
    at = rng.randrange(len(names)) if len(names) else 0
    if kind == 0 and len(names):
        del names[at]
    elif kind == 1 and len(names):
        names[at] = ""
    elif kind == 2 and len(names) > 1:
        names[0], names[at] = names[at], names[0]
    elif kind == 3 and len(names):
        names[at] = _word(model, rng)
    else:
        names.append(_word(model, rng))


def change_attribute(model: ModelProto, rng: random.Random) -> None:
    """Set an attribute that a node may have to something else, or add one."""
    node = _node(model, rng)
    if node.attribute and rng.random() < 0.6:
        item = rng.choice(node.attribute)
        if item.type == AttributeProto.INT:
            item.i = _integer(rng, item.i)
        elif item.type == AttributeProto.INTS and item.ints:
            item.ints[rng.randrange(len(item.ints))] = _integer(rng, item.ints[0])
        elif item.type == AttributeProto.FLOAT:
            item.f = rng.choice(FLOATS)
        elif item.type == AttributeProto.STRING:
            item.s = rng.choice(
                (_word(model, rng).encode(), b"SAME_UPPER", b"VALID", b"\xff\xfe", b"linear", b"NOTSET")
            )
        elif item.type == AttributeProto.TENSOR:
            change_tensor_itself(item.t, rng)
        else:
            item.type = rng.choice(AttributeProto.AttributeType.values())
        return
    known = defs.get_schema(node.op_type).attributes if defs.has(node.op_type) else {}
    name = rng.choice(sorted(known)) if known and rng.random() < 0.8 else rng.choice(ATTRIBUTES)
    values: tuple[Any, ...] = (
        _integer(rng), [_integer(rng) for _ in range(rng.randrange(1, 5))], rng.choice(FLOATS),
        _word(model, rng),
        [1, 1], [0, 0], [3, 3], [1, 1, 1, 1], 0, 1, -1, "SAME_LOWER", "constant", "edge", "sum", b"\xff",
    )  # fmt: skip
    node.attribute.append(helper.make_attribute(name, rng.choice(values)))


def change_shape(model: ModelProto, rng: random.Random) -> None:
    """Declare another shape for an input, an output or an inner value."""
    graph = rng.choice(_graphs(model))
    values = [*graph.input, *graph.output, *graph.value_info]
    if not values:
        return
    value = rng.choice(values)
    dims = value.type.tensor_type.shape.dim
    kind = rng.randrange(5)
    if kind == 0 and dims:
        del dims[rng.randrange(len(dims))]
    elif kind == 1:
        dims.add(dim_value=_integer(rng))
    elif kind == 2 and dims:
        dims[rng.randrange(len(dims))].dim_value = _integer(rng, 3)
    elif kind == 3 and dims:
        dims[rng.randrange(len(dims))].dim_param = _word(model, rng)
    elif kind == 4:
        for _ in range(rng.choice((1, 8, 70))):
            dims.add(dim_value=1)


def change_tensor(model: ModelProto, rng: random.Random) -> None:
    """Contradict what an initializer, or a tensor in an attribute, says about itself."""
    tensors = [message for message in _messages(model) if isinstance(message, TensorProto)]
    if tensors:
        change_tensor_itself(rng.choice(tensors), rng)


def change_tensor_itself(tensor: TensorProto, rng: random.Random) -> None:
    """Change type, shape, bytes or numbers of a tensor."""
    kind = rng.randrange(8)
    if kind == 0:
        tensor.data_type = rng.randrange(32)
    elif kind == 1 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = _integer(rng, tensor.dims[0])
    elif kind == 2:
        tensor.dims.extend([rng.choice((1, 1, 0, 2, -1, 1 << 33))] * rng.choice((1, 1, 5, 40)))
    elif kind == 3:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif kind == 4 and tensor.dims:
        del tensor.dims[rng.randrange(len(tensor.dims))]
    elif kind == 5:
        values = rng.choice(
            (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\xff" * 4, b"\0" * 4)
        )
        tensor.raw_data = values * (len(tensor.raw_data) // 4)
    elif kind == 6:
        field = rng.choice(("float_data", "int32_data", "int64_data", "double_data", "uint64_data"))
        getattr(tensor, field).extend([1] * rng.choice((1, 2, 12)))
    else:
        tensor.ClearField("raw_data")


def make_external(model: ModelProto, rng: random.Random) -> None:
    """Say that the elements of a tensor lie in another file."""
    tensors = [message for message in _messages(model) if isinstance(message, TensorProto)]
    if not tensors:
        return
    tensor = rng.choice(tensors)
    tensor.data_location = TensorProto.EXTERNAL
    size = len(tensor.raw_data)
    if rng.random() < 0.8:
        tensor.ClearField("raw_data")
    location = rng.choice((*LOCATIONS, rng.choice(WORDS)))
    entries = {"location": location}
    if rng.random() < 0.6:
        entries["offset"] = rng.choice(NUMBERS)
    if rng.random() < 0.6:
        entries["length"] = rng.choice((*NUMBERS, str(size), str(size)))
    if rng.random() < 0.1:
        entries[rng.choice(("checksum", "", "basepath", "location "))] = rng.choice(WORDS)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    if rng.random() < 0.1:
        tensor.external_data.add(key=rng.choice(list(entries)), value=rng.choice(NUMBERS))


LOCATIONS = (
    "data.bin",
    "data.bin",
    "data.bin",
    "sub/data.bin",
    "link.bin",
    "pipe",
    "model.onnx",
    "hard.bin",
    "missing",
)
"""The files that lie beside a model, and one that does not."""

NUMBERS = (
    "0", "4", "-1", "4096", "18446744073709551615", "9223372036854775807", "-9223372036854775808", "1e3",
    "0x10",
    "", " 4", "4 ", "4.0", "nan", "٤", "1_0", "9" * 5000,
)  # fmt: skip


def nest(model: ModelProto, rng: random.Random) -> None:
    """Put the graph, or a node, into an If, again and again."""
    whole = GraphProto()
    whole.CopyFrom(model.graph)
    node = model.graph.node.add(op_type=rng.choice(("If", "If", "Loop", "Scan", "SequenceMap")))
    node.input.append(rng.choice(_names(model)))
    node.output.append(rng.choice(WORDS))
    for name in rng.choice((("then_branch", "else_branch"), ("body",), ("then_branch",))):
        attribute = node.attribute.add(name=name, type=AttributeProto.GRAPH)
        inner = attribute.g
        for _ in range(rng.choice((1, 2, 10, 22, 29))):
            deeper = inner.node.add(op_type="If", input=[node.input[0]], output=["y"])
            inner.output.add(name="y")
            inner = deeper.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g
        inner.CopyFrom(whole if rng.random() < 0.3 else GraphProto())


def deepen_type(model: ModelProto, rng: random.Random) -> None:
    """Make a value a sequence, optional or map, deeply nested."""
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not values:
        return
    kind = rng.choice(values).type
    for _ in range(rng.choice((1, 1, 3, 20, 44))):
        which = rng.randrange(3)
        if which == 0:
            kind = kind.sequence_type.elem_type
        elif which == 1:
            kind = kind.optional_type.elem_type
        else:
            kind.map_type.key_type = 7
            kind = kind.map_type.value_type
    kind.tensor_type.elem_type = 1


def lengthen(model: ModelProto, rng: random.Random) -> None:
    """Add a long chain of nodes, or many inputs to one."""
    many = rng.choice((3, 50, 700))
    start = rng.choice(_names(model))
    if rng.random() < 0.5:
        op_type = rng.choice(("Identity", "Relu", "Shape", "Cast", "Sin", rng.choice(OPERATORS)))
        for index in range(many):
            model.graph.node.add(op_type=op_type, input=[start], output=[f"chain{index}"])
            start = f"chain{index}"
        if model.graph.output and rng.random() < 0.7:
            model.graph.output[0].name = start
    else:
        node = _node(model, rng)
        node.input.extend([start] * many)


def blow_up(model: ModelProto, rng: random.Random) -> None:
    """Compute a constant that is much larger than the file."""
    extents = rng.choice(
        ([1 << 16, 1 << 14], [1 << 40], [1 << 31, 1 << 31, 1 << 31], [50_000, 50_000], [1 << 20] * 2, [-1])
    )
    shape = TensorProto(name="extents", data_type=TensorProto.INT64, dims=[len(extents)], int64_data=extents)
    model.graph.initializer.append(shape)
    one = TensorProto(
        name="single", data_type=TensorProto.FLOAT, float_data=[1.0], dims=[1] if rng.random() < 0.5 else []
    )
    model.graph.initializer.append(one)
    name = f"large{rng.randrange(3)}"
    kind = rng.randrange(7)
    add = model.graph.node.add
    if kind == 0:
        add(op_type="ConstantOfShape", input=["extents"], output=[name])
    elif kind == 1:
        add(op_type="Expand", input=["single", "extents"], output=[name])
    elif kind == 2:
        add(op_type="Tile", input=["single", "extents"], output=[name])
    elif kind == 3:
        add(op_type="Range", input=["zero", "limit", "zero1"], output=[name])
        for key, number in (("zero", 0), ("limit", 1 << 40), ("zero1", rng.choice((0, 1, -1)))):
            model.graph.initializer.append(
                TensorProto(name=key, data_type=TensorProto.INT64, int64_data=[number], dims=[])
            )
    elif kind == 4:
        add(op_type="OneHot", input=["extents", "extents", "extents"], output=[name])
    elif kind == 5:
        add(op_type="Pad", input=["single", "extents"], output=[name])
    else:
        node = add(op_type="RandomNormal", output=[name])
        node.attribute.append(helper.make_attribute("shape", extents))
    reader = _node(model, rng)
    if reader.input and rng.random() < 0.8:
        reader.input[rng.randrange(len(reader.input))] = name
    elif model.graph.output:
        model.graph.output[0].name = name


def swap_order(model: ModelProto, rng: random.Random) -> None:
    """Shuffle the nodes, or let one read what comes of it."""
    nodes = list(model.graph.node)
    if len(nodes) < 2:
        return
    if rng.random() < 0.5:
        rng.shuffle(nodes)
        _replace(model.graph.node, nodes, nested=True)
        return
    early, late = sorted(rng.sample(range(len(nodes)), 2))
    if nodes[early].input and nodes[late].output:
        nodes[early].input[0] = nodes[late].output[0]


def change_versions(model: ModelProto, rng: random.Random) -> None:
    """Claim another opset, domain or version of the format."""
    kind = rng.randrange(4)
    if kind == 0:
        model.ir_version = rng.choice((0, 1, 3, 4, 7, 10, 11, 13, 14, 1 << 40, -1))
    elif kind == 1 and model.opset_import:
        model.opset_import[0].version = rng.choice((*range(28), _integer(rng)))
    elif kind == 2:
        model.opset_import.add(domain=rng.choice(("", "ai.onnx", *WORDS)), version=_integer(rng))
    else:
        del model.opset_import[:]


def change_functions(model: ModelProto, rng: random.Random) -> None:
    """Add a function, perhaps one that calls itself, and call it."""
    kinds = sorted({node.op_type for node in _nodes(model)})
    name = rng.choice(("Act", "Inner", "Relu", "Conv", *kinds))
    domain = rng.choice(("own", "own", "", "com.microsoft"))
    function = model.functions.add(name=name, domain=domain, input=["x"], output=["y"])
    function.opset_import.add(domain="", version=15)
    function.opset_import.add(domain="own", version=1)
    if not any(entry.domain == "own" for entry in model.opset_import):
        model.opset_import.add(domain="own", version=1)
    for index in range(rng.choice((1, 2, 10))):
        call = rng.choice((name, "Act", "Inner", "Relu"))
        function.node.add(
            op_type=call,
            domain=rng.choice((domain, "own", "")),
            input=["x"],
            output=["y" if not index else f"y{index}"],
        )
    node = _node(model, rng)
    node.op_type, node.domain = name, domain


def change_metadata(model: ModelProto, rng: random.Random) -> None:
    """Write what graftonnx reads about a file, wrongly."""
    key = rng.choice(("format", "input", "labels", "parents", "plan", "head", "activation", "precision"))
    value = rng.choice(
        (
            "1", "2", "-1", "null", "[]", "{}", '"x"', "[1]", '["a", "a"]', "nan", "1e999", "[" * 3_000,
            '{"a": ' * 500,
            '["\\u001b[31m", "=1+1", "<b>", ""]', '{"preprocess": {"order": "rgb", "scale": 1e400}}',
            "softmax", "fp16",
            '{"preprocess": {"order": "rgb", "scale": 255, "mean": [], "std": [0]}}', "9" * 10_000, "",
            "\\", "{'a': 1}",
            '{"preprocess": {"order": "grey", "scale": 0, "mean": [0], "std": [0]}}',
            '["a", "b", "c", "d"]', "true",
        )
    )  # fmt: skip
    model.metadata_props.add(key=f"graftonnx.{key}" if rng.random() < 0.9 else rng.choice(WORDS), value=value)
    if rng.random() < 0.3:
        model.metadata_props.add(key="graftonnx.format", value="1")


def rename(model: ModelProto, rng: random.Random) -> None:
    """Give a value another name wherever it stands, so that the file stays valid."""
    old, new = rng.choice(_names(model)), rng.choice(WORDS)
    graph = model.graph
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if item.name == old:
            item.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        if rng.random() < 0.2:
            node.name = rng.choice(WORDS)


_CHANGES: list[Callable[[ModelProto, random.Random], None]] = [
    *[change_field] * 8,
    *[change_attribute] * 5,
    *[change_wiring] * 4,
    *[change_operator] * 3,
    *[change_tensor] * 4,
    *[change_shape] * 3,
    *[rename] * 2,
    make_external,
    nest,
    deepen_type,
    lengthen,
    blow_up,
    swap_order,
    change_versions,
    change_functions,
    change_metadata,
]
