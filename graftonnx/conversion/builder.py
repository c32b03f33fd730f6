"""Writes the fx graph of a module: what converters call to emit code.

Emission folds: a call whose operands are all constants is executed at once and gives a constant.
"""

from __future__ import annotations

import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from onnx import GraphProto, NodeProto
from torch import fx, nn

from graftonnx.conversion import indexing
from graftonnx.conversion.arguments import identifier, is_constant, with_tensors
from graftonnx.conversion.converted import ConvertedModule
from graftonnx.conversion.layers import Constant
from graftonnx.conversion.names import ROLES, Keys
from graftonnx.conversion.source import Source
from graftonnx.conversion.values import (
    FLOATS,
    Array,
    Size,
    Type,
    Value,
    Weight,
    is_symbolic,
    to_array,
    to_tensor,
)
from graftonnx.errors import UnsupportedOpError

if TYPE_CHECKING:
    from graftonnx.conversion.bodies import Body

TYPE = "graftonnx_type"
"""Where an fx node keeps the :class:`Type` of its tensor."""

VALUE = "onnx_value"
"""Under this key of `node.meta` stands the ONNX value that an fx node computes."""


class Builder:
    """Emits the code of one module.

    Attributes:
        root: The module under construction; its graph is set last.
        graph: The fx graph so far.
        node: The ONNX node that is being converted.
        opset: The opset of that node's domain.
        settings: Names of weights that an operator needed as a number while converting; they cannot train.
        consumers: Value name -> the nodes that read it.
        inline: Converts a graph inside the node, and returns its outputs.
        body: Converts a graph inside the node to a module of its own.
    """

    def __init__(
        self,
        source: Source,
        frozen_names: frozenset[str] = frozenset(),
        uses: Counter[str] | None = None,
    ) -> None:
        self.root = ConvertedModule(nn.Module(), fx.Graph(), class_name="ConvertedModule")
        self.graph = fx.Graph()
        self.source = source
        self.node = NodeProto()
        self.opset = source.opsets[""]
        self.settings: set[str] = set()
        self.consumers: dict[str, list[NodeProto]] = {}
        self.uses = source.uses() if uses is None else uses
        self.frozen_names = frozen_names
        self.inline: Callable[[GraphProto], tuple[Value, ...]] = _no_graphs
        self.body: Callable[[GraphProto], Body] = _no_graphs
        self._keys = Keys(self.root)
        self._placed: dict[str, str] = {}
        self._sizes: dict[tuple[fx.Node, int], Size] = {}
        self._tensors: dict[int, tuple[object, fx.Node]] = {}

    @property
    def held(self) -> set[str]:
        """Names of the ONNX tensors that the module holds."""
        return set(self._placed)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Value:
        """Emit `function(*args, **kwargs)`; compute it now if it depends on constants alone.

        Values in the arguments, also inside lists, become what the code needs: nodes, parameters, tensors.
        """
        if is_constant((args, kwargs)):
            folded: Value = self._fold(function, args, kwargs)
            return folded
        return self.graph.create_node(
            "call_function", function, self._lower(args), self._lower(kwargs), name=function.__name__
        )

    def layer(self, layer: nn.Module, *args: Value, weights: Sequence[Weight | None] = ()) -> fx.Node:
        """Emit a call of a module that holds `weights`, in the order of `ROLES`.

        Args:
            layer: Made on the meta device if it has weights; they are replaced.
            args: What it is called with.
            weights: Each used by this layer alone.
        """
        inputs = tuple(self.tensor(value) for value in args)
        if not any(weights):
            path = self._free(identifier(self.label))
        else:
            path = self._keys.layer([w.name if w else None for w in weights])
            for role, weight in zip(ROLES, weights, strict=False):
                if weight is None:
                    continue
                tensor = _taken(weight)
                self._placed[weight.name] = f"{path}.{role}"
                if role in ("weight", "bias"):
                    setattr(layer, role, nn.Parameter(tensor))
                else:
                    setattr(layer, role, tensor)
        owner, _, leaf = path.rpartition(".")
        self.root.get_submodule(owner).add_module(leaf, layer)
        return self.graph.create_node("call_module", path, inputs, name="layer")

    def module(self, module: nn.Module, *args: Any) -> fx.Node:
        """Emit a call of a module without weights; `args` may be lists of values, numbers and None."""
        path = self._free(identifier(self.label))
        self.root.add_module(path, module)
        return self.graph.create_node("call_module", path, self._lower(args), name="module")

    def item(self, values: Any, index: int) -> Value:
        """Emit the element `index` of what a call returned; take it now if that is constant."""
        if not isinstance(values, fx.Node):
            constant: Array = values[index]
            return constant
        return self._element(values, index)

    def get(self, value: Value, bounds: Sequence[Any]) -> fx.Node:
        """Emit `value[start:end:step, ...]`.

        Args:
            value: The tensor.
            bounds: For each leading axis a triple, or a whole `slice`; a bound may be a :class:`Size`.
        """
        index = tuple(b if isinstance(b, slice) else slice(*self._lower(b)) for b in bounds)
        args = (self.tensor(value), index)
        return self.graph.create_node("call_function", operator.getitem, args, name="slice")

    def tensor(self, value: Value) -> fx.Node:
        """Return the node that computes `value`; parameters and constants are placed in the module."""
        if isinstance(value, fx.Node):
            return value
        if isinstance(value, Weight):
            return self._parameter(value)
        if value is None:
            raise UnsupportedOpError("an input that it needs is absent.")
        if is_symbolic(value):
            node = self.graph.create_node(
                "call_function",
                indexing.sizes_to_tensor,
                (self._lower(value.ravel().tolist()), list(value.shape)),
                name="sizes",
            )
            node.meta[TYPE] = Type("int64", value.shape)
            return node
        if value.dtype == object:
            value = value.astype(np.int64)
        return self._constant(value)

    def operand(self, value: Value) -> Any:
        """Return `value` for arithmetic with a tensor: a constant of no dimensions becomes a number."""
        if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iufO":
            return value.item()
        return value

    def host(self, value: Value, what: str) -> Array:
        """Return a constant's numbers.

        Args:
            value: The input.
            what: How the message calls it.

        Raises:
            UnsupportedOpError: If the value is only known when the module runs.
        """
        if isinstance(value, Weight):
            self.settings.add(value.name)
            return value.array
        if isinstance(value, np.ndarray) and not is_symbolic(value):
            return value
        raise UnsupportedOpError(f"{what} is computed when the model runs, expected a constant.")

    def ints(self, value: Value, what: str) -> list[Any]:
        """Return a 1-D integer input as a list of `int` and :class:`Size`.

        Raises:
            UnsupportedOpError: If not even the number of its elements is known, or they are no integers.
        """
        if isinstance(value, np.ndarray):
            items = value.ravel().tolist()
            if not all(isinstance(item, (int, np.integer, Size)) for item in items):
                raise UnsupportedOpError(f"{what} is of type {value.dtype.name}, expected integers.")
            return [item if isinstance(item, Size) else int(item) for item in items]
        dtype = self.type(value).dtype
        if dtype is not None and not dtype.startswith(("int", "uint", "bool")):
            raise UnsupportedOpError(f"{what} is of type {dtype}, expected integers.")
        shape = self.shape(value)
        if isinstance(value, fx.Node) and (shape is None or None in shape):
            self._learn()
            shape = self.shape(value)
        if isinstance(value, Weight) or value is None or shape is None or None in shape:
            raise UnsupportedOpError(f"{what} has an unknown number of elements, expected a known one.")
        count = math.prod(extent or 0 for extent in shape)
        if count > indexing.MOST_INTS:
            raise UnsupportedOpError(
                f"{what} has {count:,} computed elements, at most {indexing.MOST_INTS:,}."
            )
        listed = self.call(indexing.to_ints, value)
        return [Size(self._element(listed, i), natural=False) for i in range(count)]

    def numbers(self, value: Value) -> Any:
        """Return a list input that PyTorch takes as numbers: a constant, or code that reads a tensor.

        Reading a tensor waits for the device, and `torch.export` cannot follow it.
        """
        if isinstance(value, fx.Node) or is_symbolic(value):
            return self.call(indexing.to_numbers, self.tensor(value))
        return self.host(value, "a list").ravel().tolist()

    def frozen(self, value: Value) -> Value:
        """Return `value`; a weight becomes a constant, because no gradient could reach it."""
        return self.host(value, "") if isinstance(value, Weight) else value

    def type(self, value: Value) -> Type:
        """Return element type and shape, as far as they are known."""
        if isinstance(value, fx.Node):
            known = value.meta.get(TYPE)
            return known if isinstance(known, Type) else Type()
        if value is None:
            return Type()
        array = value.array if isinstance(value, Weight) else value
        return Type("int64" if array.dtype == object else array.dtype.name, array.shape)

    def shape(self, value: Value) -> tuple[int | None, ...] | None:
        """Return the extents of a value, None where unknown; None if not even their number is known."""
        return self.type(value).shape

    def rank(self, value: Value) -> int:
        """Return the number of dimensions.

        Raises:
            UnsupportedOpError: If shape inference could not find it.
        """
        shape = self.shape(value)
        if shape is None:
            self._learn()
            shape = self.shape(value)
        if shape is None:
            raise UnsupportedOpError(
                "the number of dimensions of an input is unknown. "
                "Run onnx.shape_inference, or simplify the model."
            )
        return len(shape)

    def is_float(self, value: Value) -> bool:
        """Return whether a value has a floating-point type; an unknown one counts as floating-point."""
        dtype = self.type(value).dtype
        return dtype is None or dtype in FLOATS

    def size(self, value: Value, axis: int) -> Any:
        """Return the extent of an axis: an integer for constants, else a :class:`Size`."""
        if not isinstance(value, fx.Node):
            return (self.shape(value) or ())[axis]
        axis = axis + self.rank(value) if axis < 0 else axis
        known = self._sizes.get((value, axis))
        if known is None:
            node = self.graph.create_node(
                "call_method", "size", (value, axis), name=f"{value.name}_size{axis}"
            )
            known = self._sizes[value, axis] = Size(node)
        return known

    def sizes(self, value: Value) -> list[Any]:
        """Return the extents of all axes, each as :meth:`size` does."""
        return [self.size(value, axis) for axis in range(self.rank(value))]

    def trainable(self, name: str) -> bool:
        """Return whether the weight `name` may train: the preprocessing of a fused file may not."""
        # A pickled module imports this file, and shall need torch, onnx and numpy alone.
        from graftonnx.metadata import is_preprocessing

        return not (self.source.fused and is_preprocessing(name))

    @property
    def label(self) -> str:
        """The ONNX node's name, or that of its first output."""
        name = self.node.name
        if re.search(r"[^\W\d_]", name):
            return name
        return next((output for output in self.node.output if output), self.node.op_type)

    @property
    def wanted(self) -> int:
        """How many of the ONNX node's outputs somebody reads, counted up to the last one."""
        used = [i for i, name in enumerate(self.node.output) if name and self.consumers.get(name)]
        return max(used, default=0) + 1

    def _learn(self) -> None:
        """Tell shape inference what conversion has found out, and take over what follows from it."""
        noted = {n.meta[VALUE]: n for n in self.graph.nodes if VALUE in n.meta}
        types = self.source.types
        facts = {
            name: node.meta[TYPE]
            for name, node in noted.items()
            if node.meta.get(TYPE, Type()).shape is not None and types.get(name, Type()).shape is None
        }
        if not facts:
            return
        self.source.learn(facts)
        for name, node in noted.items():
            if name in self.source.types and self.source.types[name].shape is not None:
                node.meta[TYPE] = self.source.types[name]

    def _parameter(self, weight: Weight) -> fx.Node:
        known = self._tensors.get(id(weight))
        if known is not None:
            return known[1]
        key = self._keys.tensor(weight.name)
        self._placed[weight.name] = key
        owner, _, leaf = key.rpartition(".")
        holder = self.root.get_submodule(owner)
        tensor = _taken(weight)
        # A batch norm in a body reads its running statistics as any other value.
        if weight.trainable and weight.name not in self.source.inner_statistics:
            holder.register_parameter(leaf, nn.Parameter(tensor))
        else:
            holder.register_buffer(leaf, tensor)
        node = self._first("get_attr", key, identifier(weight.name))
        node.meta[TYPE] = self.type(weight)
        self._tensors[id(weight)] = (weight, node)
        return node

    def _constant(self, array: Array) -> fx.Node:
        known = self._tensors.get(id(array))
        if known is not None:
            return known[1]
        try:
            tensor = to_tensor(array)
        except TypeError as error:
            raise UnsupportedOpError(f"PyTorch has no tensors of element type {array.dtype}.") from error
        path = self._free(f"{identifier(self.label)}_constant")
        self.root.add_module(path, Constant(tensor))
        node = self._first("call_module", path, path)
        node.meta[TYPE] = self.type(array)
        self._tensors[id(array)] = (array, node)
        return node

    def _element(self, values: Any, index: int) -> fx.Node:
        return self.graph.create_node("call_function", operator.getitem, (values, index), name="item")

    def _first(self, op: str, target: str, name: str) -> fx.Node:
        return self.graph.create_node(op, target, name=name)

    def _free(self, name: str) -> str:
        taken = self.root
        number = 0
        while hasattr(taken, candidate := f"{name}_{number}" if number else name):
            number += 1
        return candidate

    def _lower(self, argument: Any) -> Any:
        """Replace the values inside an argument by what the code needs."""
        if isinstance(argument, (Weight, np.ndarray)):
            return self.tensor(argument)
        if isinstance(argument, Size):
            return argument.node
        if isinstance(argument, np.generic):
            return argument.item()
        if isinstance(argument, (list, tuple)):
            return type(argument)(self._lower(item) for item in argument)
        if isinstance(argument, dict):
            return {key: self._lower(item) for key, item in argument.items()}
        return argument

    def _fold(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        result = function(*with_tensors(args), **with_tensors(kwargs))
        if isinstance(result, (tuple, list)):
            return tuple(to_array(item) for item in result)
        return to_array(result) if isinstance(result, torch.Tensor) else result


def _taken(weight: Weight) -> torch.Tensor:
    """Return a tensor of a weight's numbers, which from now on the weight shares: the file's copy may go."""
    tensor = to_tensor(weight.array)
    weight.array = to_array(tensor)
    return tensor


def _no_graphs(graph: GraphProto) -> Any:
    raise UnsupportedOpError(f"it has a graph '{graph.name}' inside, and nothing converts it.")
