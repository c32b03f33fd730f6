"""Loops without a number of steps: does the condition end them, whatever the image shows?

What decides about the condition is cut out of the body, and run for as many steps as it takes:

    i < 7 and i = i + 1, from i = 0     7 steps
    max(state) > 0                      not known: the state comes from the image
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from graftonnx import limits
from graftonnx.declarations import shortened
from graftonnx.errors import ModelError
from graftonnx.graph import is_stub, subgraphs
from graftonnx.normalise.computing import Work

COUNTING = frozenset(
    {"Add", "Sub", "Mul", "Div", "Mod", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Not"}
    | {"And", "Or", "Xor", "Identity", "Cast", "Min", "Max", "Abs", "Neg", "Constant", "Squeeze", "Unsqueeze"}
)
"""Operators with which a condition is simulated."""

MOST_NODES = 64
"""Of what decides about a condition."""

MOST_ELEMENTS = 1 << 10
"""Of a value there."""

MOST_EVALUATIONS = 1 << 13
"""Nodes that are evaluated for one loop: half a second."""

EVALUATION = 1 << 15
"""What the evaluation of one node costs, as :class:`graftonnx.normalise.computing.Work` counts."""

ALONE = frozenset({"Squeeze", "Unsqueeze"})
"""Operators of which the first input alone decides how large the result is."""

ANY = (1 << 63) - 1
"""What a number counts as that depends on data."""


class _Program(NamedTuple):
    """What decides about the condition of a loop.

    Attributes:
        nodes: Of the body, in order.
        constants: What they read of the file.
        states: Input of the body -> output of the body that takes its place in the next step.
        values: Input of the body -> its first value.
    """

    nodes: list[NodeProto]
    constants: dict[str, TensorProto]
    states: dict[str, str]
    values: dict[str, Any]


def simulated_steps(
    node: NodeProto, tensors: Mapping[str, TensorProto], model: onnx.ModelProto, work: Work | None = None
) -> int:
    """Return how many steps a loop takes that has a condition only.

    Args:
        node: The loop.
        tensors: The constants of the graph around it.
        model: That graph.
        work: What may still be computed.

    Raises:
        ModelError: If it never ends, or if that depends on data.
    """
    bodies = subgraphs(node)
    begins = first(tensors.get(node.input[1])) if len(node.input) > 1 and node.input[1] else True
    if not bodies or not bodies[0].output or begins is False:
        return 1
    (body,) = bodies
    where = f"its loop '{shortened(node.name or node.output[0])}'"
    if _never_changes(body, tensors):
        raise ModelError(f"{where} has no number of steps, and its condition never changes: it does not end.")
    program = _program(node, body, tensors)
    work = work or Work()
    steps = None if program is None else _run(program, body.output[0].name, model, work)
    if steps is None:
        is_spent = program is not None and work.left < _cost(program)
        reason = (
            "are too many to count with those of others" if is_spent else "depend on what the input shows"
        )
        limits.check("steps", ANY, f"the steps of {where} {reason}: they may be")
    return steps or ANY


def first(tensor: TensorProto | None) -> int | bool | None:
    """Return the first element of a constant of integers or truth values; None if it is none."""
    if tensor is None:
        return None
    array = numpy_helper.to_array(tensor)
    if array.dtype.kind not in "iub" or not array.size:
        return None
    element: int | bool = array.ravel()[0].item()
    return element


def constants(graph: GraphProto | onnx.FunctionProto) -> dict[str, TensorProto]:
    """Return the small constants of a graph."""
    held = graph.initializer if isinstance(graph, GraphProto) else ()
    tensors = {tensor.name: tensor for tensor in held if not is_stub(tensor)}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], item.t) for item in node.attribute if item.HasField("t"))
    return tensors


def _never_changes(body: GraphProto, tensors: Mapping[str, TensorProto]) -> bool:
    makers = {name: child for child in body.node for name in child.output if name}
    going = body.output[0].name
    while going in makers and makers[going].op_type == "Identity":
        going = makers.pop(going).input[0]
    passed = going in {value.name for value in body.input[1:2]}
    return passed or bool(first(constants(body).get(going) or tensors.get(going)))


def _program(node: NodeProto, body: GraphProto, tensors: Mapping[str, TensorProto]) -> _Program | None:
    """Return what decides about the condition; None if that is more than constants and counters."""
    makers = {name: index for index, child in enumerate(body.node) for name in child.output if name}
    inputs = {value.name: place for place, value in enumerate(body.input)}
    own = constants(body)
    taken: set[int] = set()
    found = _Program([], {}, {}, {})
    waiting = [body.output[0].name]
    while waiting:
        name = waiting.pop()
        if not name or name in found.constants or name in found.values:
            continue
        if name in makers and name not in own:
            child = body.node[makers[name]]
            if child.op_type not in COUNTING or child.domain or len(taken) >= MOST_NODES:
                return None
            if makers[name] not in taken:
                taken.add(makers[name])
                waiting += child.input
        elif name in inputs:
            place = inputs[name]
            begin = _beginning(node, place, tensors)
            if begin is None:
                return None
            found.values[name] = begin
            if place:
                found.states[name] = body.output[place - 1].name
                waiting.append(found.states[name])
        elif name in own or name in tensors:
            found.constants[name] = own.get(name) or tensors[name]
        else:
            return None
    found.nodes.extend(body.node[index] for index in sorted(taken))
    return found


def _beginning(node: NodeProto, place: int, tensors: Mapping[str, TensorProto]) -> NDArray[Any] | None:
    """Return the first value of an input of a loop's body, if that is a constant."""
    if place == 0:
        return np.array(0, np.int64)
    if place == 1:
        return np.array(True)
    tensor = tensors.get(node.input[place]) if place < len(node.input) else None
    return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))


def _run(program: _Program, condition: str, model: onnx.ModelProto, work: Work) -> int | None:
    """Return how many steps there are; None if they are too many to count, or a value is too large."""
    if any(math.prod(tensor.dims) > MOST_ELEMENTS for tensor in program.constants.values()):
        return None
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    most = min(limits.limits().steps + 1, MOST_EVALUATIONS // (len(program.nodes) + 1))
    constant = {name: numpy_helper.to_array(tensor) for name, tensor in program.constants.items()}
    values = dict(program.values)
    try:
        evaluators = [_evaluator(node, opsets) for node in program.nodes]
        for step in range(1, most + 1):
            if not work.spend(_cost(program)):
                return None
            found = {**constant, **values}
            if not all(
                _evaluate(node, run, found) for node, run in zip(program.nodes, evaluators, strict=True)
            ):
                return None
            if not np.asarray(found[condition]).all():
                return step
            values = {
                name: np.array(step, np.int64) if name not in program.states else found[program.states[name]]
                for name in values
            }
    except Exception:  # the reference raises anything where operands do not fit
        return None
    return None


def _cost(program: _Program) -> int:
    """Return the work of a step."""
    return EVALUATION * (len(program.nodes) + 1)


def _evaluator(node: NodeProto, opsets: dict[str, int]) -> ReferenceEvaluator:
    """Return what computes one node."""
    names = dict.fromkeys(name for name in node.input if name)
    given = [onnx.ValueInfoProto(name=name) for name in names]
    made = [onnx.ValueInfoProto(name=name) for name in node.output]
    return ReferenceEvaluator(onnx.helper.make_graph([node], "node", given, made), opsets=opsets)


def _evaluate(node: NodeProto, evaluator: ReferenceEvaluator, found: dict[str, Any]) -> bool:
    """Enter what a node makes; return whether it is small, which is known before it is made."""
    given = {name: found[name] for name in node.input if name}
    deciding = [np.shape(given[name]) for name in node.input if name][: 1 if node.op_type in ALONE else None]
    if math.prod(np.broadcast_shapes(*deciding)) > MOST_ELEMENTS:
        return False
    found.update(zip(node.output, evaluator.run(None, given), strict=True))
    return True
