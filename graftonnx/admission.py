"""What a model must be before anything works on it: bounded, every name defined once, and no cycles.

Parsers and native code trust a file's own statements: a tensor's shape, a function's calls, how
graphs lie in graphs. Here they are checked against the bytes that are there and against
:mod:`graftonnx.limits`, without recursion and without allocating what a shape declares.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import onnx
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, defs

from graftonnx.declarations import (
    check_entries,
    check_sparse,
    check_strings,
    check_tensor,
    check_utf8,
    check_value,
    dense_size,
    shortened,
)
from graftonnx.errors import ModelError
from graftonnx.fragility import BOUNDED, FRAGILE, check_bounded, check_namesake
from graftonnx.functions import DEFAULT_DOMAINS, Key, check_scopes, function_bytes, function_sizes
from graftonnx.graph import sort_nodes
from graftonnx.limits import check, limits

_NOTHING: frozenset[str] = frozenset()


def admit(model: ModelProto, elsewhere: Collection[str] = ()) -> None:
    """Refuse a model that claims more than it holds, exceeds a limit, or is not wired soundly.

    Args:
        model: As it was parsed.
        elsewhere: Initializers of the main graph whose elements lie elsewhere, and were checked there.

    Raises:
        ModelError: Saying what is wrong, and where.
    """
    _check_texts(model)
    opsets = _opsets(model.opset_import)
    sizes = function_sizes(model)
    for function in model.functions:
        _check_function(function)
    check_scopes(model, sizes)
    dense = function_bytes(model, sizes)
    _Walk(opsets, sizes, dense).check(model.graph, frozenset(elsewhere))


def _check_texts(model: ModelProto) -> None:
    for text in (model.doc_string, model.graph.doc_string):
        check_utf8(text)
        check("text", len(text), "the length of its documentation is")
    for holder in (model, model.graph):
        check_entries(holder.metadata_props)
    for text in (model.producer_name, model.producer_version, model.domain, model.graph.name):
        check_utf8(text)
        check("name", len(text), "the length of the name of its producer or graph is")


def _opsets(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    imports = list(imports)
    check_utf8(*[entry.domain for entry in imports])
    return {("" if entry.domain in DEFAULT_DOMAINS else entry.domain): entry.version for entry in imports}


def _check_function(function: FunctionProto) -> None:
    """Check a function's body as a graph whose inputs are the function's."""
    body = GraphProto(node=function.node)
    body.input.extend(onnx.ValueInfoProto(name=name) for name in function.input)
    body.output.extend(onnx.ValueInfoProto(name=name) for name in function.output)
    walk = _Walk(_opsets(function.opset_import), {}, {}, free_attributes=True)
    try:
        walk.check(body, _NOTHING)
    except ModelError as error:
        raise error.at(f"its function '{shortened(function.name)}'") from error


class _Scope(NamedTuple):
    """The names that a graph can read; the graphs inside it share this object.

    Attributes:
        own: Its inputs and initializers, and what its nodes make.
        outer: Of the graph around it.
    """

    own: set[str]
    outer: _Scope | None

    def lacks(self, name: str) -> bool:
        """Return whether nothing makes a value; there are as many sets to look into as `depth` allows."""
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.own:
                return False
            scope = scope.outer
        return True


class _Todo(NamedTuple):
    graph: GraphProto
    outer: _Scope | None
    depth: int
    elsewhere: frozenset[str] = _NOTHING


class _Walk:
    """Checks a graph and the graphs inside it.

    Args:
        opsets: Domain -> version.
        sizes: How many nodes local functions become.
        dense: What their sparse tensors take.
        free_attributes: Whether attributes may come from a call, as in functions.
    """

    def __init__(
        self,
        opsets: dict[str, int],
        sizes: dict[Key, int],
        dense: dict[Key, int],
        *,
        free_attributes: bool = False,
    ) -> None:
        self._opsets = opsets
        self._sizes = sizes
        self._free = free_attributes
        self._dense = dense
        self._count = 0
        self._spread = 0
        self._typed: dict[str, int | None] = {}
        self._disordered: list[list[NodeProto]] = []
        self._most = limits()
        self._local = {(domain, name) for domain, name, _ in sizes}

    def check(self, graph: GraphProto, elsewhere: frozenset[str]) -> None:
        """Check everything."""
        waiting = [_Todo(graph, None, 0, elsewhere)]
        while waiting:
            waiting += self._graph(waiting.pop())
        for nodes in self._disordered:  # only now is known how much lies in them, and how deep
            sort_nodes(nodes)

    def _graph(self, todo: _Todo) -> list[_Todo]:
        graph = todo.graph
        check("depth", todo.depth, "the depth of its graphs inside graphs is")
        nodes = list(graph.node)
        self._count += len(nodes)
        check("nodes", self._count, "the number of its nodes is")
        check("terms", max(len(graph.input), len(graph.output)), "the inputs or outputs of its graph are")
        names = {value.name for value in graph.input}
        if "" in names or len(names) < len(graph.input):
            raise ModelError("two of its inputs have one name, or one has none. Export it again.")
        held = {tensor.name for tensor in graph.initializer}
        held |= {sparse.values.name for sparse in graph.sparse_initializer}
        if "" in held or len(held) < len(graph.initializer) + len(graph.sparse_initializer):
            raise ModelError("two of its initializers have one name, or one has none. Export it again.")
        for tensor in graph.initializer:
            check_tensor(tensor, elsewhere=tensor.name in todo.elsewhere)
        for sparse in graph.sparse_initializer:
            self._check_sparse(sparse)
        for value in (*graph.input, *graph.output, *graph.value_info):
            check_value(value)
        for annotation in graph.quantization_annotation:
            check_utf8(annotation.tensor_name)
            check_entries(annotation.quant_parameter_tensor_names)
        names |= held
        inner: list[GraphProto] = []
        made: set[str] = set()
        typed = {value.name for value in graph.input if value.type.tensor_type.elem_type}
        self._typed = dict.fromkeys(held | typed) | {item.name: len(item.dims) for item in graph.initializer}
        for node in nodes:
            inner += self._node(node, made)
        if not made.isdisjoint(names):
            name = shortened(min(made & names))
            raise ModelError(
                f"its value '{name}' is an input or initializer, and a node makes it too. Export it again."
            )
        scope = _Scope(names | made, todo.outer)
        if not _in_order(nodes, names, scope) or inner:
            self._disordered.append(nodes)
        for value in graph.output:
            if scope.lacks(value.name):
                raise ModelError(f"its output '{shortened(value.name)}' is made by nothing. Export it again.")
        if len(graph.name) > 100:
            check("name", len(graph.name), "the length of the name of a graph is")
        return [_Todo(body, scope, todo.depth + 1) for body in inner]

    def _node(self, node: NodeProto, made: set[str]) -> list[GraphProto]:
        """Check a node, enter what it makes into `made`, and return the graphs inside it."""
        inputs, outputs, attributes = node.input[:], node.output[:], node.attribute[:]
        domain, kind = node.domain, node.op_type
        self._check_words(node, (node.name, kind, domain, node.overload, *inputs, *outputs))
        if not made.isdisjoint(outputs):
            name = next(name for name in outputs if name in made)
            raise ModelError(f"its value '{shortened(name)}' is made by two nodes. Export it again.")
        made.update(outputs)
        made.discard("")
        if not any(outputs):
            raise ModelError(f"{_where(node)} makes no value. Export it again.")
        if len(outputs) > 1 and len(set(outputs) - {""}) < len(outputs) - outputs.count(""):
            raise ModelError(f"{_where(node)} makes a value twice. Export it again.")
        if domain in DEFAULT_DOMAINS:
            domain = ""
        if self._sizes:
            key = domain, kind, node.overload
            self._count += self._sizes.get(key, 0)
            self._add_dense(self._dense.get(key, 0))
        is_own = domain and (domain, kind) in self._local
        rule = None if is_own else _rule(domain, kind, self._opsets.get(domain, 0))
        if rule is None:
            check_namesake(node)
        else:
            _check_arity(node, rule, inputs, outputs)
            self._check_attributes(node, rule, attributes)
        return self._inside(node, attributes) if attributes else []

    def _check_words(self, node: NodeProto, words: Sequence[str]) -> None:
        """Refuse names that are no text or too long, and too many of them."""
        try:
            length = len("".join(words))
        except TypeError:  # protobuf hands out as bytes what is not UTF-8
            check_utf8(*words)
            raise
        most = self._most
        if length > most.name:
            for word in words:
                check("name", len(word), "the length of the name of a node or value is")
        if len(words) > most.terms:
            check("terms", len(words), f"the inputs and outputs of {_where(node)} are")
        if node.HasField("doc_string"):
            check_utf8(node.doc_string)
            check("text", len(node.doc_string), "the length of a node's documentation is")
        if node.metadata_props:
            check_entries(node.metadata_props)

    def _check_attributes(self, node: NodeProto, rule: _Rule, attributes: Sequence[AttributeProto]) -> None:
        if node.op_type in FRAGILE:
            FRAGILE[node.op_type](node, self._typed)
        seen = set()
        for item in attributes:
            name, borrowed = item.name, item.ref_attr_name
            check_utf8(name, borrowed)
            if name in seen:
                raise ModelError(
                    f"{_where(node)} has the attribute '{shortened(name)}' twice. Export it again."
                )
            seen.add(name)
            if borrowed and not self._free:
                raise ModelError(
                    f"{_where(node)} refers to an attribute of a function around it; there is none."
                )
            if name in BOUNDED:
                check_bounded(node, item)
            expected = rule.attributes.get(name)
            if expected is not None and item.type != expected and not borrowed:
                raise ModelError(
                    f"{_where(node)} has the attribute '{name}' of another type than ONNX defines. "
                    "Export it again."
                )

    def _check_sparse(self, sparse: onnx.SparseTensorProto) -> None:
        check_sparse(sparse)
        self._add_dense(dense_size(sparse))

    def _add_dense(self, size: int) -> None:
        """Count what sparse tensors take: all are there at once."""
        self._spread += size
        check("folded", self._spread, "the bytes of its sparse tensors, made dense, are")

    def _inside(self, node: NodeProto, attributes: Sequence[AttributeProto]) -> list[GraphProto]:
        """Check the tensors in attributes, and return the graphs in them."""
        inner: list[GraphProto] = []
        for item in attributes:
            kind = item.type
            if kind in _PLAIN and not item.s and not item.strings:
                continue
            held = _HELD.get(kind)
            if held is not None and not item.ref_attr_name and not item.HasField(held):
                raise ModelError(
                    f"{_where(node)} has nothing in its attribute '{shortened(item.name)}'. Export it again."
                )
            try:
                check_strings(item)
                if item.HasField("t"):
                    check_tensor(item.t)
                for tensor in item.tensors:
                    check_tensor(tensor)
                if item.HasField("sparse_tensor"):
                    self._check_sparse(item.sparse_tensor)
            except ModelError as error:
                raise error.at(_where(node)) from error
            if item.HasField("g"):
                inner.append(item.g)
            inner.extend(item.graphs)
        return inner


def _in_order(nodes: Iterable[NodeProto], known: set[str], scope: _Scope) -> bool:
    """Return whether every node reads what stands before it; refuse one that reads what nothing makes.

    Args:
        nodes: Of a graph.
        known: What its inputs and initializers are called; what its nodes make is added.
        scope: Of the graph.
    """
    in_order = True
    known.add("")
    for node in nodes:
        if not known.issuperset(node.input):
            for name in node.input:
                if name not in known:
                    if scope.lacks(name):
                        raise ModelError(
                            f"{_where(node)} reads '{shortened(name)}', which nothing makes. Export it again."
                        )
                    in_order = in_order and name not in scope.own
        known.update(node.output)
    return in_order


_PLAIN = frozenset(
    {AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.FLOATS}
    | {AttributeProto.STRING, AttributeProto.STRINGS}
)


_HELD = {
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
} | {AttributeProto.TYPE_PROTO: "tp"}
"""The field that must be there in an attribute of a type."""


def _check_arity(node: NodeProto, rule: _Rule, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    for what, names, (least, most, needed) in (
        ("inputs", inputs, rule.inputs),
        ("outputs", outputs, rule.outputs),
    ):
        if not least <= len(names) <= most:
            expected = f"{least} to {most}" if most < _ANY else f"{least} or more"
            if least == most:
                expected = str(least)
            raise ModelError(f"{_where(node)} has {len(names)} {what}; expected {expected}. Export it again.")
        if "" in names[:needed] and what == "inputs":
            raise ModelError(f"{_where(node)} lacks its input {names.index('') + 1}. Export it again.")
    if "" in inputs[rule.repeated :]:
        raise ModelError(f"{_where(node)} lacks one of its inputs, which may be any number. Export it again.")


_ANY = 1 << 30
"""The most inputs of an operator that takes any number is larger than this."""


class _Rule(NamedTuple):
    """What the standard says of an operator.

    Attributes:
        inputs: The least, the most, and how many must be there at the beginning.
        outputs: Likewise.
        attributes: The type of each.
        repeated: The place from which on there may be any number of inputs, but no gap.
    """

    inputs: tuple[int, int, int]
    outputs: tuple[int, int, int]
    attributes: dict[str, int]
    repeated: int


@lru_cache(4096)
def _rule(domain: str, kind: str, opset: int) -> _Rule | None:
    """Return what the standard says of an operator of any of its domains; None if it does not know it."""
    if not 0 < opset <= defs.onnx_opset_version() or not defs.has(kind, opset, domain):
        return None
    schema: Any = defs.get_schema(kind, opset, domain)
    single = defs.OpSchema.FormalParameterOption.Single
    needed = [
        next((index for index, item in enumerate(items) if item.option != single), len(items))
        for items in (schema.inputs, schema.outputs)
    ]
    types = {name: int(item.type) for name, item in schema.attributes.items()}
    return _Rule(
        (schema.min_input, schema.max_input, needed[0]),
        (schema.min_output, schema.max_output, needed[1]),
        types,
        len(schema.inputs) - 1 if schema.max_input > _ANY else schema.max_input,
    )


def _where(node: NodeProto) -> str:
    name = node.name or next(filter(None, node.output), "")
    return f"its node '{shortened(name)}' ({shortened(node.op_type)})"
