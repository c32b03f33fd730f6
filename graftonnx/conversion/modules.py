"""ONNX file to module, and back."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from torch import fx, nn

from graftonnx import limits
from graftonnx.conversion import bitwise, registry
from graftonnx.conversion.arguments import identifier
from graftonnx.conversion.bodies import Body, BodyBuilder
from graftonnx.conversion.builder import TYPE, VALUE, Builder
from graftonnx.conversion.memory import activate_in_place
from graftonnx.conversion.names import onnx_name
from graftonnx.conversion.ops import FAMILIES as FAMILIES  # importing them registers every operator
from graftonnx.conversion.origin import Origin
from graftonnx.conversion.patterns import erase_dead, recognise
from graftonnx.conversion.scalars import scalars, steering
from graftonnx.conversion.source import HasWeights, Source, read
from graftonnx.conversion.values import Value, Weight, is_float, to_array
from graftonnx.errors import ModelError, Refusal, UnsupportedOpError
from graftonnx.graph import reads, sort_nodes
from graftonnx.weights import Weights

ORIGIN = "graftonnx_origin"
"""Under this key of `module.meta` travels the :class:`Origin`, also through `copy.deepcopy` and pickling."""


_ONLY_STORED = frozenset({"uint16", "uint32", "uint64"})
"""Element types that PyTorch can store, but not compute with."""

_MOVES = frozenset(
    {
        "BitCast", "Cast", "CastLike", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten",
        "Identity", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators that move elements without computing."""

_WRAPS = frozenset(
    {"Add", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Equal", "Mul", "Sub"}
)
"""Operators whose result has the same bits for signed and unsigned integers."""

_ORDERS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "TopK"})
"""Operators that depend on the order of integers alone."""


_MALFORMED = (
    TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, AttributeError, MemoryError,
)  # fmt: skip
"""What a converter, or PyTorch in it, raises where inputs and attributes contradict the operator."""


_COPIES = 8
"""Sizes of the file that a conversion takes at most, beside what any file may."""


def to_torch(source: str | Path | ModelProto | HasWeights) -> fx.GraphModule:
    """Convert an ONNX model to a module that computes the same and can be trained.

    The module is called with one tensor for each input of the graph, in the graph's order; it returns one
    tensor, or a tuple if the graph has several outputs. Float initializers are parameters, running statistics
    are buffers; `onnx_name` tells which key is which initializer. Float constants of several elements that
    `Constant` and `ConstantOfShape` nodes hold are weights as well; those of one element are numbers, as
    are bounds, exponents, ratios, scales of a resize and what guards a division from zero. An initializer
    of one element is a weight, unless plain arithmetic reads it in a file of PyTorch's dynamo exporter,
    which notes what was a parameter, and this neither was one nor was computed from one. Initializers that
    a fused file names `preprocess/<branch>/...` are buffers. `train()` and `eval()` mean what they mean in
    PyTorch; the module arrives in `eval()`.

    Args:
        source: A path, a model, or a network from :func:`graftonnx.load`. It is not changed.

    Raises:
        UnsupportedOpError: If an operator has no exact counterpart.
        ModelError: If the file cannot be read.
    """
    model, weights = read(source)
    settings: frozenset[str] = frozenset()
    with limits.bounded("the conversion", _COPIES * _size(model, weights)):
        while True:
            walk = _walk(Source(model, weights, _bodies()), settings)
            walk.run()
            clash = walk.builder.settings & walk.builder.held
            if not clash:
                return walk.finish()
            # One operator needs the number now, another would train it: then it is a setting for both.
            settings |= clash


def unsupported(source: str | Path | ModelProto | HasWeights) -> list[UnsupportedOpError]:
    """Return for every node that cannot be converted the reason; an empty list if there is none."""
    model, weights = read(source)
    with limits.bounded("the conversion", _COPIES * _size(model, weights)):
        walk = _walk(Source(model, weights, _bodies()), frozenset())
        walk.run(collect=True)
    return walk.errors


def _size(model: ModelProto, weights: Weights) -> int:
    """Return the bytes of a model, its weights included."""
    size: int = model.ByteSize()
    return size + sum(tensor.nbytes for tensor in weights.values())


def write_back(module: nn.Module) -> ModelProto:
    """Return the ONNX model that a module was made from, with the module's weights and statistics.

    Graph, names and opset are the source's; initializers that did not change are byte-identical. It differs
    from the source in two ways only: running statistics that several nodes shared are separate if they
    changed; a weight that a node computed from constants is an initializer if it changed.

    Raises:
        ModelError: If the module was not made by `to_torch`, or a weight's shape has changed.
    """
    origin = getattr(module, "meta", {}).get(ORIGIN)
    if not isinstance(origin, Origin):
        raise ModelError("cannot write the module back: to_torch did not make it, or its `meta` was lost.")
    arrays = {onnx_name(key): to_array(tensor) for key, tensor in module.state_dict().items()}
    try:
        return origin.restore(arrays)
    except ModelError as error:
        raise error.at("cannot write the module back") from error


@functools.cache
def _bodies() -> frozenset[tuple[str, str]]:
    """Return the standard operators that have no converter, but a definition in terms of others."""
    schemas: Sequence[Any] = onnx.defs.get_all_schemas_with_history()
    return frozenset(
        (schema.domain, schema.name)
        for schema in schemas
        if (schema.has_function or schema.has_context_dependent_function)
        and not registry.known(schema.domain, schema.name)
    )


def _walk(source: Source, settings: frozenset[str]) -> _Walk:
    outputs = [value.name for value in source.graph.output]
    settings |= steering(source.nodes, outputs) | scalars(source.skeleton)
    return _Walk(Builder(source, settings), source.nodes, outputs)


class _Walk:
    """Converts the nodes of one graph in order.

    Args:
        builder: Writes the code.
        nodes: In topological order.
        outputs: Names of the graph's outputs.
    """

    def __init__(self, builder: Builder, nodes: Sequence[NodeProto], outputs: list[str]) -> None:
        self.source = builder.source
        self.builder = builder
        self.errors: list[UnsupportedOpError] = []
        self.collects = False
        self._values: dict[str, Value] = {}
        self._nodes = nodes
        self._outputs = outputs
        consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in nodes:
            for name in reads(node):
                consumers[name].append(node)
        for name in outputs:
            consumers[name].append(NodeProto(op_type="output"))
        builder.consumers = consumers
        builder.inline = self._inline
        builder.body = self._body

    def run(self, *, collect: bool = False) -> None:
        """Convert every node.

        Args:
            collect: Whether to gather the errors and go on, instead of raising the first.
        """
        for value in self.source.graph.input:
            if value.name in self.source.initializers:
                continue
            if value.type.WhichOneof("value") not in ("tensor_type", "sequence_type", "optional_type"):
                raise UnsupportedOpError(f"the input '{value.name}' is a map or sparse.")
            if value.type.tensor_type.elem_type == TensorProto.STRING:
                raise UnsupportedOpError(f"the input '{value.name}' holds strings, PyTorch has none.")
            node = self.builder.graph.placeholder(identifier(value.name))
            node.target = node.name  # two names may give one identifier, of which fx makes two
            self._note(node, value.name)
            self._values[value.name] = node
        self.collects = collect
        for node in self._nodes:
            self._attempt(node)

    def finish(self) -> fx.GraphModule:
        """Return the module."""
        graph, module = self.builder.graph, self.builder.root
        results = [self._result(name) for name in self._outputs]
        graph.output(results[0] if len(results) == 1 else tuple(results))
        erase_dead(graph)
        dropped = {onnx_name(key) for key in recognise(graph, module)}
        activate_in_place(graph, module)
        module.graph = graph
        module.meta[ORIGIN] = self.source.release(self.builder.held - dropped)
        return module.eval()

    def _inline(self, graph: GraphProto) -> tuple[Value, ...]:
        """Convert the nodes of an inner graph here, and return its outputs."""
        outer = self.builder.node
        for tensor in graph.initializer:
            self._values[tensor.name] = numpy_helper.to_array(tensor)
        for output in graph.output:
            self.builder.consumers.setdefault(output.name, []).append(outer)
        for node in graph.node:
            for name in reads(node):
                self.builder.consumers.setdefault(name, []).append(node)
        for node in sort_nodes(graph.node):
            self._attempt(node)
        self.builder.node = outer
        return tuple(self._value(output.name) for output in graph.output)

    def _body(self, graph: GraphProto) -> Body:
        """Convert an inner graph to a module."""
        outer = self.builder.node
        body = _InnerWalk(self, graph).convert()
        self.builder.node = outer
        return body

    def _attempt(self, node: NodeProto) -> None:
        """Convert a node; where errors are gathered, note its error and let others read stand-ins."""
        try:
            self._convert(node)
        except UnsupportedOpError as error:
            if not self.collects:
                raise
            self.errors.append(error)
            for name in filter(None, node.output):
                stand_in = self.builder.graph.placeholder(identifier(name))
                self._note(stand_in, name)
                self._values[name] = stand_in

    def _convert(self, node: NodeProto) -> None:
        domain = "" if node.domain == "ai.onnx" else node.domain
        self.builder.node = node
        where = (
            f"cannot convert '{self.builder.label}' ({node.op_type}, "
            f"{f'domain {domain}, ' if domain else ''}opset {self.source.opsets.get(domain, 1)})"
        )
        try:
            entry = registry.resolve(domain, node.op_type, self.source.opsets.get(domain, 1))
            attributes = {item.name: _attribute(item) for item in node.attribute}
            unknown = attributes.keys() - entry.attributes
            if unknown:
                raise UnsupportedOpError(f"the attribute '{min(unknown)}' has no counterpart.")
            missing = entry.required - attributes.keys()
            if missing:
                raise UnsupportedOpError(f"its attribute '{min(missing)}' is missing.")
            if len(node.input) > entry.inputs:
                raise UnsupportedOpError(f"it has {len(node.input)} inputs, expected at most {entry.inputs}.")
            inputs = [self._operand(node, name) if name else None for name in node.input]
            results = entry.convert(self.builder, *inputs, **attributes)
        except (UnsupportedOpError, *_MALFORMED) as error:
            reason = str(error) if isinstance(error, (UnsupportedOpError, TypeError)) else _misfit(error)
            refused = UnsupportedOpError(f"{where}: {reason}")
            opset = self.source.opsets.get(domain, 1)
            refused.refusal = Refusal(self.builder.label, node.op_type, domain, opset, reason)
            raise refused from error
        self._assign(node, results if isinstance(results, tuple) else (results,), where)

    def _assign(self, node: NodeProto, results: tuple[Value, ...], where: str) -> None:
        for index, name in enumerate(node.output):
            if index < len(results):
                value = self._narrowed(node, results[index], name)
                self._values[name] = value
                if isinstance(value, fx.Node) and VALUE not in value.meta and value.op != "get_attr":
                    value._rename(identifier(self.builder.label if index == 0 else name))
                    self._note(value, name)
            elif name and self.builder.consumers.get(name):
                raise UnsupportedOpError(f"{where}: its output '{name}' has no counterpart.")

    def _operand(self, node: NodeProto, name: str) -> Value:
        """Return the value `name` for an operator: widened if PyTorch has no arithmetic for its type."""
        value = self._value(name)
        dtype = self.builder.type(value).dtype
        if dtype not in _ONLY_STORED or node.op_type in _MOVES:
            return value
        if dtype == "uint64":
            if node.op_type in _ORDERS:
                return self.builder.call(bitwise.to_signed_order, value)
            if node.op_type not in _WRAPS:
                raise UnsupportedOpError("PyTorch has no arithmetic for elements of type uint64.")
            return self.builder.call(torch.Tensor.view, value, torch.int64)
        return self.builder.call(torch.Tensor.to, value, torch.int64)

    def _narrowed(self, node: NodeProto, value: Value, name: str) -> Value:
        """Return a result with the element type that was widened for the arithmetic."""
        known = self.source.types.get(name)
        if known is None or known.dtype not in _ONLY_STORED or node.op_type in _MOVES:
            return value
        if known.dtype == "uint64":
            made = self.builder.type(value).dtype
            if made not in (None, "int64"):
                raise UnsupportedOpError(f"its output '{name}' is declared as uint64, and is {made}.")
            back = bitwise.from_signed_order if node.op_type in _ORDERS else bitwise.to_unsigned
            return self.builder.call(back, value)
        return self.builder.call(torch.Tensor.to, value, getattr(torch, known.dtype))

    def _note(self, node: fx.Node, name: str) -> None:
        known = self.source.types.get(name)
        if known is not None and (known.shape is not None or TYPE not in node.meta):
            node.meta[TYPE] = known
        node.meta[VALUE] = name

    def _value(self, name: str) -> Value:
        if name not in self._values:
            if name not in self.source.initializers:
                raise ModelError(f"the value '{name}' is read, but nothing computes it.")
            array: Any = self.source.array(name)
            if is_float(array) and array.size and name not in self.builder.frozen_names:
                array = Weight(name, array, self.builder.uses[name], self.builder.trainable(name))
            self._values[name] = array
        return self._values[name]

    def _result(self, name: str) -> fx.Node:
        return self.builder.tensor(self._value(name))


class _InnerWalk(_Walk):
    """Converts a graph inside a node to a module that gets what it reads from outside as inputs."""

    builder: BodyBuilder

    def __init__(self, outer: _Walk, graph: GraphProto) -> None:
        outputs = [value.name for value in graph.output]
        builder = BodyBuilder(outer.builder, graph, outer.source.inner_statistics)
        super().__init__(builder, sort_nodes(graph.node), outputs)
        self.errors, self.collects = outer.errors, outer.collects
        self._outer = outer
        self._graph = graph

    def convert(self) -> Body:
        """Return the module, with what it needs."""
        for tensor in self._graph.initializer:
            self._values[tensor.name] = numpy_helper.to_array(tensor)
        inputs = []
        for value in self._graph.input:
            node = self.builder.input(identifier(value.name))
            self._note(node, value.name)
            self._values[value.name] = node
            inputs.append(node)
        for child in self._nodes:
            self._attempt(child)
        outputs = tuple(self._value(name) for name in self._outputs)
        graph, module = self.builder.graph, self.builder.root
        graph.output(tuple(self.builder.tensor(value) for value in outputs))
        _erase_unused(graph)
        activate_in_place(graph, module)
        module.graph = graph
        return Body(module, tuple(self.builder.captured), tuple(inputs), outputs)

    def _note(self, node: fx.Node, name: str) -> None:
        super()._note(node, name)
        known = self.builder.inferred.get(name)
        if known is not None and known.shape is not None:
            node.meta[TYPE] = known

    def _value(self, name: str) -> Value:
        if name not in self._values:
            self._values[name] = self.builder.capture(name, self._outer._value(name))
        return self._values[name]


def _erase_unused(graph: fx.Graph) -> None:
    """Erase what no output depends on."""
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def _misfit(error: Exception) -> str:
    """Return the reason why a node's inputs and attributes do not belong to its operator."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"its inputs or attributes do not fit it ({lines[0].rstrip('.')})."


def _attribute(item: AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(item)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        return [part.decode(errors="replace") for part in value]
    return value
