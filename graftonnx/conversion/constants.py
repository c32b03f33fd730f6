"""Numbers inside the formulas of a graph: those written in the code, held by the module, or computed."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from graftonnx.conversion import formulas, indexing
from graftonnx.conversion.builder import TYPE
from graftonnx.conversion.layers import Constant
from graftonnx.conversion.values import Type

_ARITHMETIC: dict[Any, Callable[..., float]] = {
    operator.add: operator.add,
    operator.sub: operator.sub,
    operator.mul: operator.mul,
    operator.truediv: operator.truediv,
    torch.sqrt: math.sqrt,
    torch.pow: math.pow,
    torch.reciprocal: lambda x: 1 / x,
}

_RELATIVE = 1e-6
"""Exporters write float32 numbers, some with seven digits."""


def is_close(found: float, wanted: float) -> bool:
    """Return whether a number of a file is the one of a formula."""
    return math.isclose(found, wanted, rel_tol=5 * _RELATIVE)


MOST_STEPS = 32
"""Nodes that are looked at for one number: formulas that a file's exporter wrote have fewer."""


@dataclass
class Product:
    """A product with its factors apart.

    Attributes:
        factor: The product of its numbers.
        nodes: What is multiplied besides; a power of an integer counts as often.
        inner: The nodes that multiply, without the root.
    """

    factor: float = 1.0
    nodes: list[fx.Node] = field(default_factory=list)
    inner: set[fx.Node] = field(default_factory=set)


class Numbers:
    """Reads the numbers of a graph.

    Args:
        root: The module that holds the graph's tensors.
    """

    def __init__(self, root: nn.Module) -> None:
        self._root = root

    def value(self, item: Any, assumed: dict[tuple[fx.Node, int], float] | None = None) -> float | None:
        """Return the number that an argument is, or computes from known extents; None if it is a tensor.

        Args:
            item: A number or a node.
            assumed: (node, axis) -> extent, for extents that are not known.
        """
        return self._value(item, {} if assumed is None else assumed, [MOST_STEPS])

    def _value(self, item: Any, assumed: dict[tuple[fx.Node, int], float], left: list[int]) -> float | None:
        """Return the number that an argument is, in as many steps as are `left`, or None."""
        left[0] -= 1
        if left[0] < 0:
            return None
        if isinstance(item, (int, float)):
            return float(item)
        if not isinstance(item, fx.Node):
            return None
        if item.op in ("get_attr", "call_module"):
            return self._held(item)
        if item.op == "call_method" and item.target == "size":
            return _extent(item, assumed)
        if item.target is indexing.sizes_to_tensor:
            listed: Any = item.args[0]
            alone = isinstance(listed, (list, tuple)) and len(listed) == 1
            return self._value(listed[0], assumed, left) if alone else None
        if item.target is formulas.cast:
            return self._value(item.args[0], assumed, left)
        function = _ARITHMETIC.get(item.target)
        if function is None or not _may_be_number(item):
            return None
        operands: list[float] = []
        for operand in item.args:
            number = self._value(operand, assumed, left)
            if number is None:
                return None
            operands.append(number)
        try:
            return float(function(*operands))
        except (ArithmeticError, ValueError):
            return None

    def plus(self, node: Any, number: float) -> Any:
        """Return x if `node` is `x + number`; else None."""
        if isinstance(node, fx.Node) and node.target is operator.add:
            for x, added in (node.args, node.args[::-1]):
                found = self.value(added)
                if found is not None and is_close(found, number):
                    return x
        return None

    def product(self, node: fx.Node, *, root: bool = True) -> Product:
        """Take a product apart, as far as its inner products are read once.

        Args:
            node: The last multiplication.
            root: Whether `node` is the formula's last node, which others may read.
        """
        found = Product()
        self._multiply(node, found, first=root)
        return found

    def _multiply(self, item: Any, found: Product, *, first: bool = False) -> None:
        number = self.value(item)
        if number is not None:
            found.factor *= number
            return
        if first or (len(item.users) == 1 and len(found.inner) + len(found.nodes) < MOST_STEPS):
            if not first:
                found.inner.add(item)
            if item.target is operator.mul:
                for part in item.args:
                    self._multiply(part, found)
                return
            divisor = self.value(item.args[1]) if item.target is operator.truediv else None
            if divisor:
                found.factor /= divisor
                self._multiply(item.args[0], found)
                return
            power = self.value(item.args[1]) if item.target is torch.pow else None
            if power in (2.0, 3.0):
                found.nodes.extend([item.args[0]] * int(power or 0))
                return
            found.inner.discard(item)
        found.nodes.append(item)

    def tensor(self, node: fx.Node) -> torch.Tensor | None:
        """Return the tensor that the module holds for a node; None if the node computes."""
        if node.op == "call_module":
            holder = self._root.get_submodule(str(node.target))
            return holder.value if isinstance(holder, Constant) else None
        if node.op != "get_attr":
            return None
        owner, _, leaf = str(node.target).rpartition(".")
        held = getattr(self._root.get_submodule(owner), leaf)
        return held if isinstance(held, torch.Tensor) else None

    def trains(self, node: fx.Node) -> bool:
        """Return whether a value may depend on a parameter."""
        waiting, seen = [node], set[fx.Node]()
        while waiting:
            source = waiting.pop()
            if source in seen:
                continue
            seen.add(source)
            if source.op == "call_module":
                layer = self._root.get_submodule(str(source.target))
                if any(True for _ in layer.parameters()):
                    return True
            if source.op == "get_attr" and isinstance(self.tensor(source), nn.Parameter):
                return True
            waiting.extend(source.all_input_nodes)
        return False

    def _held(self, node: fx.Node) -> float | None:
        tensor = self.tensor(node)
        if tensor is None or tensor.numel() != 1 or tensor.is_complex():
            return None
        return float(tensor.item())


def _may_be_number(node: fx.Node) -> bool:
    """Return whether a node may have one element, as far as its shape is known."""
    known = node.meta.get(TYPE)
    return not isinstance(known, Type) or known.shape is None or all(e == 1 for e in known.shape)


def _extent(node: fx.Node, assumed: dict[tuple[fx.Node, int], float]) -> float | None:
    source, axis = node.args
    known = source.meta.get(TYPE) if isinstance(source, fx.Node) else None
    shape = known.shape if isinstance(known, Type) and known.shape else ()
    extent = shape[axis] if isinstance(axis, int) and -len(shape) <= axis < len(shape) else None
    return float(extent) if extent is not None else assumed.get((source, axis))  # type: ignore[arg-type]
