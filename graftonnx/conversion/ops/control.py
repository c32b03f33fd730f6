"""Control flow: graphs inside a node become modules of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from onnx import GraphProto
from torch import fx

from graftonnx.conversion.builder import Builder
from graftonnx.conversion.loops import BatchedScan, Branches, Empty, Loop, Scan
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value, is_symbolic
from graftonnx.errors import UnsupportedOpError


@op("If", since=1)
def if_(g: Builder, cond: Value, *, else_branch: GraphProto, then_branch: GraphProto) -> Result:
    """One of two graphs, chosen while converting if the condition is a constant."""
    if isinstance(cond, np.ndarray) and not is_symbolic(cond):
        return g.inline(then_branch if cond.item() else else_branch)
    chosen, other = g.body(then_branch), g.body(else_branch)
    many = g.module(
        Branches(chosen.module, other.module), g.tensor(cond), list(chosen.captured), list(other.captured)
    )
    return _items(g, many, len(chosen.outputs))


@op("Loop", since=1)
def loop(g: Builder, M: Value = None, cond: Value = None, *v_initial: Value, body: GraphProto) -> Result:
    """A graph run on its own results, at most M times and as long as its condition holds."""
    inner = g.body(body)
    count = len(v_initial)
    if len(inner.inputs) != count + 2 or len(inner.outputs) < count + 1:
        raise UnsupportedOpError(
            f"its body has {len(inner.inputs)} inputs and {len(inner.outputs)} outputs, "
            f"expected {count + 2} and at least {count + 1}."
        )
    keep = inner.outputs[0]
    endless = keep is inner.inputs[1] or (isinstance(keep, np.ndarray) and bool(keep.all()))
    if isinstance(cond, np.ndarray) and bool(cond.all()):
        cond = None
    if M is None and endless and cond is None:
        raise UnsupportedOpError("it never ends: it has no limit, and its condition is always true.")
    scans = [_empty(g, value) for value in inner.outputs[count + 1 :]]
    limit: Any = M
    if isinstance(M, np.ndarray):
        (limit,) = g.ints(M, "M")
    many = g.module(
        Loop(inner.module, count, endless, scans),
        limit,
        None if cond is None else g.tensor(cond),
        _states(g, v_initial),
        list(inner.captured),
    )
    return _items(g, many, count + len(scans))


@op("Scan", since=8)
def scan_8(
    g: Builder,
    sequence_lens: Value,
    *initial_state_and_scan_inputs: Value,
    body: GraphProto,
    directions: Sequence[int] | None = None,
    num_scan_inputs: int,
) -> Result:
    """A graph run along axis 1 of its inputs, for each element of the batch in axis 0."""
    inner = g.body(body)
    states, inputs = _parted(initial_state_and_scan_inputs, num_scan_inputs)
    scans = [_empty(g, value) for value in inner.outputs[len(states) :]]
    run = Scan(
        inner.module,
        len(states),
        [0] * len(inputs),
        _flags(directions, len(inputs)),
        [0] * len(scans),
        [False] * len(scans),
        scans,
    )
    many = g.module(
        BatchedScan(run), sequence_lens, _states(g, states), _states(g, inputs), list(inner.captured)
    )
    return _items(g, many, len(inner.outputs))


@op("Scan", since=9)
def scan(
    g: Builder,
    *initial_state_and_scan_inputs: Value,
    body: GraphProto,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
) -> Result:
    """A graph run along an axis of its inputs."""
    inner = g.body(body)
    states, inputs = _parted(initial_state_and_scan_inputs, num_scan_inputs)
    scans = [_empty(g, value) for value in inner.outputs[len(states) :]]
    run = Scan(
        inner.module,
        len(states),
        list(scan_input_axes or [0] * len(inputs)),
        _flags(scan_input_directions, len(inputs)),
        list(scan_output_axes or [0] * len(scans)),
        _flags(scan_output_directions, len(scans)),
        scans,
    )
    many = g.module(run, _states(g, states), _states(g, inputs), list(inner.captured))
    return _items(g, many, len(inner.outputs))


def _items(g: Builder, many: fx.Node, count: int) -> Result:
    return tuple(g.item(many, index) for index in range(count))


def _states(g: Builder, values: Sequence[Value]) -> list[fx.Node]:
    return [g.tensor(value) for value in values]


def _parted(values: Sequence[Value], last: int) -> tuple[Sequence[Value], Sequence[Value]]:
    """Return the states and the inputs of a scan."""
    if not 0 < last <= len(values):
        raise UnsupportedOpError(f"num_scan_inputs is {last}, expected 1 to {len(values)}.")
    return values[: len(values) - last], values[len(values) - last :]


def _flags(directions: Sequence[int] | None, count: int) -> list[bool]:
    return [bool(direction) for direction in directions or [0] * count]


def _empty(g: Builder, value: Value) -> Empty | None:
    """Return what a stack of no such values is; an unknown extent is 0, as in ONNX Runtime."""
    known = g.type(value)
    if known.dtype is None or known.shape is None or not hasattr(torch, known.dtype):
        return None
    return Empty(getattr(torch, known.dtype), tuple(extent or 0 for extent in known.shape))
