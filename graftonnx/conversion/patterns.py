"""Formulas that exporters spell out become the one PyTorch function that computes them.

A pattern starts from the last node of a formula and returns a :class:`Match`, or None where it does not
apply. It applies only if nobody else reads the values in between, so that nothing is computed twice and
nothing that is read disappears. Numbers agree up to rounding. Parameters stay where they are, under their
ONNX names; only constants of one element that belong to the formula itself (the 0.5 of GELU) are dropped.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from graftonnx.conversion import attending, formulas, reductions
from graftonnx.conversion.attention import attention_arguments
from graftonnx.conversion.builder import TYPE
from graftonnx.conversion.constants import Numbers, is_close
from graftonnx.conversion.values import Type

Pattern = Callable[[fx.Node, Numbers], "Match | None"]


@dataclass
class Match:
    """A formula that was found.

    Attributes:
        function: What computes it.
        args: With which arguments.
        kwargs: And which options.
        inner: The formula's nodes except the last: nobody else may read them.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    inner: set[fx.Node] = field(default_factory=set)


def recognise(graph: fx.Graph, root: nn.Module) -> set[str]:
    """Replace every formula of `PATTERNS` in a graph.

    Before: `d = sqrt2 * x; e = erf(d); a = e + 1; m = x * a; y = m * 0.5`. After: `y = gelu(x)`.

    Returns:
        Keys of the tensors that the module held for the formulas alone, and that are gone.
    """
    numbers = Numbers(root)
    used = {node.target for node in graph.nodes if node.op == "get_attr"}
    for pattern in PATTERNS:
        for node in list(reversed(graph.nodes)):
            if node.op != "call_function" or not node.users:
                continue
            match = pattern(node, numbers)
            if match is not None and not _is_read_elsewhere(match.inner, node):
                _replace(graph, node, match)
    erase_dead(graph)
    return _without(graph, root, used)


def layer_norm(node: fx.Node, numbers: Numbers) -> Match | None:
    """(x - mean(x)) / sqrt(mean((x - mean(x))²) + eps) * weight + bias, over the last axes.

    Does not apply where the mean is over other axes, or weight and bias have another shape than these axes.
    """
    inner: set[fx.Node] = set()
    bias = weight = None
    rest: Any = node
    if split := _with_parameter(rest, operator.add):
        inner.add(rest)
        rest, bias = split
    if split := _with_parameter(rest, operator.mul):
        inner.add(rest)
        rest, weight = split
    for centred, deviation in _quotients(rest, numbers, inner):
        guarded = _under_root(deviation, numbers, inner)
        parts = _operands(centred, operator.sub)
        if guarded is None or parts is None:
            continue
        variance, eps = guarded
        x, mean = parts
        squared = _square(_mean(variance), inner)
        axes = _trailing_axes(mean, x)
        if squared is None or axes is None or axes != _trailing_axes(variance, x):
            continue
        if _operands(squared, operator.sub) != parts or _mean(mean) is not x:
            continue
        shape = _normal_shape(x, axes, [p for p in (weight, bias) if p is not None])
        if shape is not None:
            inner |= {rest, centred, deviation, variance, mean, squared}
            return Match(F.layer_norm, (x, shape, weight, bias, eps), inner=inner)
    return None


def rms_norm(node: fx.Node, numbers: Numbers) -> Match | None:
    """X / sqrt(mean(x²) + eps) * weight, over the last axes; the quotient may be x * reciprocal(...).

    Does not apply where the mean is over other axes, or the weight has another shape than these axes.
    """
    inner: set[fx.Node] = set()
    weight = None
    rest: Any = node
    if split := _with_parameter(rest, operator.mul):
        inner.add(rest)
        rest, weight = split
    for x, root in _quotients(rest, numbers, inner):
        guarded = _under_root(root, numbers, inner)
        if guarded is None:
            continue
        mean, eps = guarded
        squared = _square(_mean(mean), inner)
        axes = _trailing_axes(mean, x)
        shape = None if axes is None else _normal_shape(x, axes, [weight] if weight is not None else [])
        if squared is x and shape is not None:
            return Match(formulas.rms_norm_of, (x, shape, weight, eps), inner=inner | {rest, mean, root})
    return None


def gelu(node: fx.Node, numbers: Numbers) -> Match | None:
    """0.5 x (1 + erf(x / sqrt(2))), or 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³))).

    The products may be grouped in any way. Does not apply where a number is another one.
    """
    product = numbers.product(node)
    if not is_close(product.factor, 0.5) or len(product.nodes) != 2:
        return None
    for x, gate in (product.nodes, product.nodes[::-1]):
        inside = numbers.plus(gate, 1.0)
        if inside is None or not isinstance(inside, fx.Node):
            continue
        inner = product.inner | {gate, inside}
        argument = inside.args[0] if inside.args else None
        if inside.target is torch.erf and isinstance(argument, fx.Node):
            scaled = numbers.product(argument, root=False)
            if scaled.nodes == [x] and is_close(scaled.factor, math.sqrt(0.5)):
                return Match(F.gelu, (x,), inner=inner | scaled.inner)
        if inside.target is torch.tanh and isinstance(argument, fx.Node):
            more = _gelu_argument(argument, x, numbers)
            if more is not None:
                return Match(F.gelu, (x,), {"approximate": "tanh"}, inner | more)
    return None


def silu(node: fx.Node, numbers: Numbers) -> Match | None:
    """X * sigmoid(x)."""
    return _gated(node, torch.sigmoid, F.silu)


def hard_swish(node: fx.Node, numbers: Numbers) -> Match | None:
    """X * clamp(x + 3, 0, 6) / 6, the quotient anywhere; or x * hardsigmoid(x)."""
    gated = _gated(node, F.hardsigmoid, F.hardswish)
    if gated is not None:
        return gated
    product = numbers.product(node)
    if not is_close(product.factor, 1 / 6) or len(product.nodes) != 2:
        return None
    for x, gate in (product.nodes, product.nodes[::-1]):
        if _is_relu6(gate, numbers) and numbers.plus(gate.args[0], 3.0) is x:
            return Match(F.hardswish, (x,), inner={*product.inner, gate, *gate.all_input_nodes} - {x})
    return None


def linear(node: fx.Node, numbers: Numbers) -> Match | None:
    """X W + bias. x: [..., K], W: [K, N], bias: [N].

    Does not apply where W is no matrix of the module, or the bias no vector of it.
    """
    split = _with_parameter(node, operator.add)
    if split is None:
        return None
    product, bias = split
    factors = _operands(product, torch.matmul)
    if factors is None:
        return None
    x, weight = factors
    shape, vector, rank = _shape(weight), _shape(bias), len(_shape(x) or ())
    if not isinstance(weight, fx.Node) or weight.op != "get_attr" or shape is None or rank < 2:
        return None
    if len(shape) != 2 or vector != shape[1:]:
        return None
    with node.graph.inserting_before(node):
        turned = node.graph.call_function(torch.t, (weight,))
    return Match(F.linear, (x, turned, bias), inner={product})


def attention(node: fx.Node, numbers: Numbers) -> Match | None:
    """softmax(scale q kᵀ + mask) v; :func:`attention_arguments` has the algebra."""
    found = attention_arguments(node, numbers)
    if found is None:
        return None
    args, kwargs, inner = found
    learned = "attn_mask" in kwargs and numbers.trains(kwargs["attn_mask"])
    function = attending.learned_mask_attention if learned else F.scaled_dot_product_attention
    return Match(function, args, kwargs, inner)


PATTERNS: tuple[Pattern, ...] = (layer_norm, rms_norm, gelu, silu, hard_swish, attention, linear)
"""All of them, the larger formulas before those that may be a part of them."""


def _gelu_argument(node: fx.Node, x: fx.Node, numbers: Numbers) -> set[fx.Node] | None:
    """Return the nodes of sqrt(2 / pi) (x + 0.044715 x³), or None if `node` computes something else."""
    outer = numbers.product(node, root=False)
    if not is_close(outer.factor, math.sqrt(2 / math.pi)):
        return None
    others = [n for n in outer.nodes if n is not x]
    if len(others) != 1:
        return None
    factored = len(outer.nodes) == 2
    terms = _operands(others[0], operator.add)
    if terms is None:
        return None
    for first, cubic in (terms, terms[::-1]):
        begins = numbers.value(first) == 1.0 if factored else first is x
        if not begins or not isinstance(cubic, fx.Node):
            continue
        power = numbers.product(cubic, root=False)
        if is_close(power.factor, 0.044715) and power.nodes == [x] * (2 if factored else 3):
            return {*outer.inner, *power.inner, others[0]}
    return None


def _gated(node: fx.Node, gate: Callable[..., Any], function: Callable[..., Any]) -> Match | None:
    for x, opened in _both_ways(node, operator.mul):
        if isinstance(opened, fx.Node) and opened.target is gate and opened.args == (x,):
            return Match(function, (x,), inner={opened})
    return None


def _is_relu6(node: fx.Node, numbers: Numbers) -> bool:
    if node.target is F.relu6:
        return True
    bounds = [numbers.value(a) for a in node.args[1:]]
    return node.target is torch.clamp and bounds == [0.0, 6.0]


def _quotients(node: fx.Node, numbers: Numbers, inner: set[fx.Node]) -> Iterable[tuple[fx.Node, fx.Node]]:
    """Yield dividend and divisor, of `a / b`, `a * reciprocal(b)` and `a * (1 / b)`."""
    divided = _operands(node, operator.truediv)
    if divided is not None and all(isinstance(part, fx.Node) for part in divided):
        yield divided
    for x, inverse in _both_ways(node, operator.mul):
        if not isinstance(inverse, fx.Node) or not isinstance(x, fx.Node):
            continue
        over = _operands(inverse, operator.truediv)
        root: Any = inverse.args[0] if inverse.args else None
        if inverse.target is torch.reciprocal:
            inner.add(inverse)
            yield x, root
        elif over is not None and numbers.value(over[0]) == 1.0 and isinstance(over[1], fx.Node):
            inner.add(inverse)
            yield x, over[1]


def _under_root(node: Any, numbers: Numbers, inner: set[fx.Node]) -> tuple[fx.Node, float] | None:
    """Return v and eps if `node` is sqrt(v + eps)."""
    if not isinstance(node, fx.Node):
        return None
    is_half_power = node.target is torch.pow and numbers.value(node.args[1]) == 0.5
    if node.target is not torch.sqrt and not is_half_power:
        return None
    guarded: Any = node.args[0]
    for value, guard in _both_ways(guarded, operator.add):
        eps = numbers.value(guard)
        if eps is not None and isinstance(value, fx.Node):
            inner.add(guarded)
            return value, eps
    return None


def _mean(node: Any) -> Any:
    """Return what a mean is taken of; None if `node` is no mean that keeps its axes."""
    if not isinstance(node, fx.Node) or node.target is not reductions.reduce_mean or node.args[2] is not True:
        return None
    return node.args[0]


def _square(node: Any, inner: set[fx.Node]) -> Any:
    """Return what is squared, by a power or a product with itself."""
    if not isinstance(node, fx.Node):
        return None
    inner.add(node)
    if node.target is torch.pow and node.args[1] == 2:
        return node.args[0]
    return node.args[0] if node.target is operator.mul and node.args[0] is node.args[1] else None


def _trailing_axes(mean: fx.Node, x: Any) -> int | None:
    """Return over how many last axes a mean is taken; None if it is over others, or the rank is unknown."""
    shape = _shape(x)
    axes = mean.args[1] if isinstance(mean, fx.Node) and len(mean.args) > 1 else None
    if not shape or not isinstance(axes, (list, tuple)) or not axes:
        return None
    if not all(isinstance(axis, int) for axis in axes):
        return None
    last = sorted(axis % len(shape) for axis in axes)
    return len(last) if last == list(range(len(shape) - len(last), len(shape))) else None


def _normal_shape(x: fx.Node, axes: int, parameters: Sequence[fx.Node]) -> list[int] | None:
    """Return the last extents of x; None if unknown, or if a parameter has another shape."""
    shapes = [_shape(parameter) for parameter in parameters]
    known = (_shape(x) or ())[-axes:]
    if None in known and shapes:
        known = shapes[0] or ()
    if len(known) != axes or any(extent is None or extent < 1 for extent in known):
        return None
    return [int(extent or 0) for extent in known] if all(shape == known for shape in shapes) else None


def _with_parameter(node: Any, function: Callable[..., Any]) -> tuple[fx.Node, fx.Node] | None:
    """Return a computed operand and one that the module holds, if a node has one of each."""
    for computed, held in _both_ways(node, function):
        if isinstance(computed, fx.Node) and isinstance(held, fx.Node):
            shape = _shape(held)
            if held.op == "get_attr" and computed.op != "get_attr" and shape not in (None, (), (1,)):
                return computed, held
    return None


def _operands(node: Any, function: Callable[..., Any]) -> tuple[Any, Any] | None:
    if isinstance(node, fx.Node) and node.target is function and len(node.args) == 2:
        return node.args[0], node.args[1]
    return None


def _both_ways(node: Any, function: Callable[..., Any]) -> list[tuple[Any, Any]]:
    """Return the operands of a node in both orders; nothing if it is another function."""
    found = _operands(node, function)
    return [] if found is None else [found, found[::-1]]


def _shape(node: Any) -> tuple[int | None, ...] | None:
    known = node.meta.get(TYPE) if isinstance(node, fx.Node) else None
    return known.shape if isinstance(known, Type) else None


def _is_read_elsewhere(inner: set[fx.Node], last: fx.Node) -> bool:
    return any(user is not last and user not in inner for node in inner - {last} for user in node.users)


def _replace(graph: fx.Graph, node: fx.Node, match: Match) -> None:
    """Put the function in the place of a formula's last node, with its name and notes."""
    name = node.name
    with graph.inserting_before(node):
        new = graph.create_node("call_function", match.function, match.args, match.kwargs)
    new.meta.update(node.meta)
    node.replace_all_uses_with(new)
    _erase(graph, node)
    new._rename(name)


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    """Erase a node that nobody reads, and what only it needed."""
    waiting, gone = [node], set[fx.Node]()
    while waiting:
        dead = waiting.pop()
        if dead in gone or dead.users or dead.op == "placeholder":
            continue
        gone.add(dead)
        waiting.extend(dead.all_input_nodes)
        graph.erase_node(dead)


def erase_dead(graph: fx.Graph) -> None:
    """Erase the nodes whose results nobody reads."""
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def _without(graph: fx.Graph, root: nn.Module, before: set[Any]) -> set[str]:
    """Remove the tensors that no node reads any more; return their keys."""
    gone = {str(key) for key in before - {n.target for n in graph.nodes if n.op == "get_attr"}}
    for key in gone:
        owner, _, leaf = key.rpartition(".")
        delattr(root.get_submodule(owner), leaf)
    return gone
