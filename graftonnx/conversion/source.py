"""The ONNX model that is converted: its nodes, types and tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, defs
from onnx.inliner import inline_selected_functions

from graftonnx import limits, weights, wire
from graftonnx.admission import admit
from graftonnx.conversion.inner import DeepOrigin, all_nodes, inner_statistics, lifted
from graftonnx.conversion.origin import Origin, Separated
from graftonnx.conversion.values import Array, Type
from graftonnx.errors import ModelError
from graftonnx.graph import reads, sort_nodes, subgraphs
from graftonnx.normalise.opset import inline_functions
from graftonnx.tensors import Held
from graftonnx.weights import Weights, split

OLDEST_OPSET = 1
_REFUSALS = (RuntimeError, ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError)
"""What onnx raises for a node that it cannot expand."""

_DEEPEST_BODY = 8
"""How often a body may contain an operator with a body."""


class HasWeights(Protocol):
    """A network: its graph, and its large tensors apart from it."""

    @property
    def skeleton(self) -> ModelProto:
        """The graph."""

    @property
    def weights(self) -> Weights:
        """The elements that the skeleton lacks."""


class Source:
    """An ONNX model, its weights apart from its graph.

    Attributes:
        skeleton: The model; its large float initializers have no data.
        opsets: Domain -> version.
        graph: What is converted: the skeleton's graph, with functions expanded.
        nodes: Its nodes that the outputs depend on, in topological order.
        types: Value name -> element type and shape, as far as ONNX infers them.
        fused: Whether `fuse` made the file.
        inner_statistics: Names of running statistics that batch norms in inner graphs read.
    """

    def __init__(self, model: ModelProto, weights: Weights, expand: Iterable[tuple[str, str]] = ()) -> None:
        """Read a model.

        Args:
            model: A skeleton. It is not changed.
            weights: Its large tensors.
            expand: Domain and name of standard operators that their definition's body replaces.
        """
        self.opsets = _opsets(model)
        self.fused = _is_fused(model)
        self.skeleton = ModelProto()
        self.skeleton.CopyFrom(model)
        self._tensors = _all_tensors(self.skeleton.graph) | weights
        for sparse in self.skeleton.graph.sparse_initializer:
            raise ModelError(f"the initializer '{sparse.values.name}' is sparse. Store it as a dense tensor.")
        self._separated: list[Separated] = []
        self._separate_statistics()
        whole, self._inner = lifted(self.skeleton)
        inner = _all_tensors(whole.graph)
        self._tensors |= {name: inner[name] for name in self._inner}
        self.inner_statistics = inner_statistics(whole.graph)
        expanded = _expanded(whole, set(expand))
        self.graph = expanded.graph
        self.nodes = _alive(expanded)
        self._inferred = expanded
        self.types: dict[str, Type] = {}
        self.learn({})

    def can_write(self, name: str) -> bool:
        """Return whether write back finds the node that holds or computes the constant `name`."""
        return any(name in node.output for node in self.skeleton.graph.node)

    @property
    def initializers(self) -> Iterable[str]:
        """The names of all initializers."""
        return self._tensors

    def array(self, name: str) -> Array:
        """Return the numbers of an initializer; read-only where they are the file's own bytes."""
        try:
            return self._tensors[name].array()
        except (ValueError, TypeError) as error:
            raise ModelError(f"the initializer '{name}' is damaged: {error}.") from error

    def uses(self) -> Counter[str]:
        """Count for each value how many inputs of living nodes, and graph outputs, read it."""
        count = Counter(name for node in self.nodes for name in reads(node))
        count.update(value.name for value in self.graph.output)
        for node in reversed(self.nodes):
            if node.op_type == "Identity":
                count[node.input[0]] += count[node.output[0]] - 1
        return count

    def learn(self, facts: dict[str, Type]) -> None:
        """Infer all types again, with facts that ONNX's inference did not find by itself.

        Args:
            facts: Value name -> its type.
        """
        if facts:
            # The skeleton stays as it is: it is what write back returns.
            self._inferred = onnx.ModelProto.FromString(self._inferred.SerializeToString())
        known = {value.name: value for value in self._inferred.graph.value_info}
        for name, fact in facts.items():
            value = known.get(name) or self._inferred.graph.value_info.add(name=name)
            if fact.dtype is not None:
                element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(fact.dtype))
                value.type.tensor_type.elem_type = element
            shape = value.type.tensor_type.shape
            shape.ClearField("dim")
            for extent in fact.shape or ():
                dim = shape.dim.add()
                if extent is not None:
                    dim.dim_value = extent
        self._inferred, self.types = infer(self._inferred)

    def release(self, held: set[str]) -> Origin:
        """Return what write back needs: the skeleton, whose stubs are the initializers in `held`.

        The source must not be used afterwards.
        """
        encodings = {}
        for stub in self.skeleton.graph.initializer:
            whole = self._tensors[stub.name]
            if stub.name in held:
                encodings[stub.name] = whole.field
                for field in wire.ELEMENTS:
                    stub.ClearField(field)
            else:
                whole.fill(stub)
        separated = tuple(self._separated)
        return (
            DeepOrigin(self.skeleton, encodings, separated, self._inner)
            if self._inner
            else Origin(self.skeleton, encodings, separated)
        )

    def _separate_statistics(self) -> None:
        """Give every BatchNormalization running statistics of its own.

        Exporters merge equal initializers, so that an untrained network has one tensor of zeros for many
        means and biases; training would then write all of them into one place.

        Before: `BatchNormalization(x, ones, zeros, zeros, ones)`.
        After: `BatchNormalization(x, ones, zeros, zeros/running_mean, ones/running_var)`.
        """
        graph = self.skeleton.graph
        stubs = {tensor.name: tensor for tensor in graph.initializer}
        passed = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Identity"}

        def origin(name: str) -> str:
            for _ in passed:  # a file may have a circle of them
                if name not in passed:
                    break
                name = passed[name]
            return name

        readers = (node for node in graph.node if node.op_type != "Identity")
        count = Counter(origin(name) for node in readers for name in reads(node))
        for node in graph.node:
            if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx"):
                continue
            for index, role in ((3, "running_mean"), (4, "running_var")):
                name = origin(node.input[index])
                if name not in self._tensors or count[name] == 1:
                    continue
                copy = graph.initializer.add()
                copy.CopyFrom(stubs[name])
                copy.name = self._free_name(f"{name}/{role}")
                count[name] -= 1
                self._separated.append(Separated(node.output[0], index, node.input[index], name, copy.name))
                node.input[index] = copy.name
                self._tensors[copy.name] = self._tensors[name]
                if self.skeleton.ir_version < 4:
                    graph.input.append(
                        onnx.helper.make_tensor_value_info(copy.name, copy.data_type, copy.dims)
                    )

    def _free_name(self, wanted: str) -> str:
        taken = self._tensors.keys()
        return next(
            name for n in range(len(taken) + 1) if (name := f"{wanted}_{n}" if n else wanted) not in taken
        )


def read(source: str | Path | ModelProto | HasWeights) -> tuple[ModelProto, Weights]:
    """Return the skeleton and the weights of a path, a model or a network.

    Raises:
        ModelError: If there is no such file, or it is no ONNX model.
    """
    if isinstance(source, ModelProto):
        admit(source)
        return split(source)
    if isinstance(source, (str, Path)):
        return weights.read(Path(source))
    return source.skeleton, source.weights


def _is_fused(model: ModelProto) -> bool:
    """Return whether `fuse` made a model."""
    # A pickled module imports this file, and shall need torch, onnx and numpy alone.
    from graftonnx.metadata import read_metadata

    return bool(read_metadata(model).parents)


def _opsets(model: ModelProto) -> dict[str, int]:
    """Return the opsets of a model.

    Raises:
        ModelError: If the default domain has none, or one that is too old or not known yet.
    """
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import}
    if "" not in opsets:
        raise ModelError(
            "the model has no opset_import for the default domain, so the meaning of its operators is "
            "unknown. Set the opset with which it was made."
        )
    if opsets[""] < OLDEST_OPSET:
        raise ModelError(
            f"the model has opset {opsets['']}, expected {OLDEST_OPSET} or later. "
            "Convert it with onnx.version_converter."
        )
    newest = defs.onnx_opset_version()
    if opsets[""] > newest:
        raise ModelError(
            f"the model has opset {opsets['']}, expected {newest} or earlier, which this onnx knows. "
            "Install a newer onnx, or export it with that."
        )
    return opsets


def _all_tensors(graph: GraphProto) -> Weights:
    return {tensor.name: Held(tensor) for tensor in graph.initializer}


def dtype_name(data_type: int) -> str | None:
    """Return NumPy's name of an ONNX element type; None where it has none."""
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(data_type).name
    except KeyError:
        return None


def _expanded(skeleton: ModelProto, operators: set[tuple[str, str]]) -> ModelProto:
    """Return the model with local functions, and these standard operators, replaced by their bodies."""
    if skeleton.functions:
        skeleton = inline_functions(skeleton)
    for _ in range(_DEEPEST_BODY):
        found = {(n.domain, n.op_type) for n in all_nodes(skeleton.graph)} & operators
        if not found:
            break
        for operator in sorted(found):
            try:
                skeleton = inline_selected_functions(
                    skeleton, [operator], False, inline_schema_functions=True
                )
            except _REFUSALS:
                # onnx cannot expand a body without the type of every input; the walker names the node.
                operators = operators - {operator}
    return skeleton


def _alive(model: ModelProto) -> list[NodeProto]:
    """Return the nodes that an output depends on, in topological order."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(sort_nodes(model.graph.node)):
        if needed.intersection(node.output):
            needed.update(reads(node))
            kept.append(node)
    return kept[::-1]


def infer(model: ModelProto) -> tuple[ModelProto, dict[str, Type]]:
    """Run ONNX's shape inference; return the model with its results, and the type of every value."""
    model = _with_inputs(model)
    try:
        with limits.bounded("onnx's shape inference"):
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        inferred = model
    types = _declared(inferred.graph)
    for node in all_nodes(inferred.graph):
        for graph in subgraphs(node):
            for name, known in _declared(graph).items():
                # Graphs beside each other may use a name twice.
                types[name] = known if types.get(name, known) == known else Type()
    for tensor in inferred.graph.initializer:
        types[tensor.name] = Type(dtype_name(tensor.data_type), tuple(tensor.dims))
    return inferred, types


def _with_inputs(model: ModelProto) -> ModelProto:
    """Return the model with all initializers among its inputs, if its version of ONNX wants them there."""
    declared = {value.name for value in model.graph.input}
    missing = [tensor for tensor in model.graph.initializer if tensor.name not in declared]
    if model.ir_version >= 4 or not missing:
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    for tensor in missing:
        copy.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    return copy


def _declared(graph: GraphProto) -> dict[str, Type]:
    """Return the types that a graph states for its values."""
    types: dict[str, Type] = {}
    for value in (*graph.value_info, *graph.output, *graph.input):
        kind = value.type.tensor_type
        shape = None
        if kind.HasField("shape"):
            extents = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
            shape = tuple(e if e >= 0 else None for e in extents)
        types[value.name] = Type(dtype_name(kind.elem_type), shape)
    return types
