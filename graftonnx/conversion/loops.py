"""Modules that run converted graphs: one of two, as long as a condition holds, or along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MOST_STEPS = 1_000_000
"""Of a loop whose end depends on data: Python takes a minute for so many."""


@dataclass(frozen=True)
class Empty:
    """What a stack of no tensors is.

    Attributes:
        dtype: Of the elements.
        shape: Of one tensor of the stack.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]


class Branches(nn.Module):
    """Runs one of two modules.

    Args:
        then_branch: Runs if the condition holds.
        else_branch: Runs otherwise.
    """

    def __init__(self, then_branch: nn.Module, else_branch: nn.Module) -> None:
        super().__init__()
        self.then_branch = then_branch
        self.else_branch = else_branch

    def forward(self, cond: Tensor, then_inputs: Sequence[Any], else_inputs: Sequence[Any]) -> Any:
        """Return the tuple that a branch gives; reading cond: [] waits for the device."""
        if not torch.compiler.is_compiling():
            return self.then_branch(*then_inputs) if cond else self.else_branch(*else_inputs)
        count = len(then_inputs)

        def yes(*operands: Any) -> Any:
            return _copied(self.then_branch(*operands[:count]))

        def no(*operands: Any) -> Any:
            return _copied(self.else_branch(*operands[count:]))

        return torch.cond(cond.reshape(()), yes, no, (*then_inputs, *else_inputs))


class Loop(nn.Module):
    """Runs a module again and again on what it returned.

    Args:
        body: From step, condition and states to condition, states and one element for each scan.
        states: How many values go from step to step.
        endless: Whether the body never ends the loop; its condition is not read then.
        scans: What each scan is if there is no step; None if its shape is unknown.
    """

    def __init__(self, body: nn.Module, states: int, endless: bool, scans: Sequence[Empty | None]) -> None:
        super().__init__()
        self.body = body
        self.states = states
        self.endless = endless
        self.scans = tuple(scans)

    def forward(
        self,
        limit: Tensor | int | None,
        cond: Tensor | None,
        states: Sequence[Any],
        captured: Sequence[Any],
    ) -> tuple[Any, ...]:
        """Return the last states, then the stacked scans.

        Args:
            limit: [], the largest number of steps; None for no limit.
            cond: [], whether to begin; None to begin in any case.
            states: The first ones.
            captured: What the body reads from outside.
        """
        device = _device((*states, *captured))
        most = None if limit is None else int(limit)
        going = True if cond is None else bool(cond)
        proceed = torch.tensor(True, device=device) if cond is None else cond
        parts: list[list[Tensor]] = [[] for _ in self.scans]
        step = 0
        while going and (most is None or step < most):
            if step >= MOST_STEPS:
                raise RuntimeError(f"a loop does not end within {MOST_STEPS:,} steps")
            number = torch.tensor(step, dtype=torch.int64, device=device)
            proceed, *results = self.body(number, proceed, *states, *captured)
            states = results[: self.states]
            for part, element in zip(parts, results[self.states :], strict=True):
                part.append(element)
            going = self.endless or bool(proceed)
            step += 1
        stacks = [_stacked(part, 0, empty, device) for part, empty in zip(parts, self.scans, strict=True)]
        return (*states, *stacks)


class Scan(nn.Module):
    """Runs a module along an axis of its inputs.

    Args:
        body: From states and one slice of each input to states and one element for each scan.
        states: How many values go from step to step.
        axes: Along which the inputs are sliced.
        backwards: Whether that begins at the end.
        stack_axes: Along which the scans are stacked.
        stack_backwards: Whether they are stacked last element first.
        scans: What each scan is if there is no step; None if its shape is unknown.
    """

    def __init__(
        self,
        body: nn.Module,
        states: int,
        axes: Sequence[int],
        backwards: Sequence[bool],
        stack_axes: Sequence[int],
        stack_backwards: Sequence[bool],
        scans: Sequence[Empty | None],
    ) -> None:
        super().__init__()
        self.body = body
        self.states = states
        self.axes = tuple(axes)
        self.backwards = tuple(backwards)
        self.stack_axes = tuple(stack_axes)
        self.stack_backwards = tuple(stack_backwards)
        self.scans = tuple(scans)

    def forward(
        self, states: Sequence[Tensor], inputs: Sequence[Tensor], captured: Sequence[Any]
    ) -> tuple[Tensor, ...]:
        """Return the last states, then the stacked scans.

        Args:
            states: The first ones.
            inputs: Of equal extent along their axes.
            captured: What the body reads from outside.
        """
        steps = inputs[0].shape[self.axes[0]]
        parts: list[list[Tensor]] = [[] for _ in self.scans]
        for step in range(steps):
            slices = [
                x.select(axis, steps - 1 - step if backwards else step)
                for x, axis, backwards in zip(inputs, self.axes, self.backwards, strict=True)
            ]
            results = self.body(*states, *slices, *captured)
            states = results[: self.states]
            for part, element in zip(parts, results[self.states :], strict=True):
                part.append(element)
        stacks = [
            _stacked(part[::-1] if backwards else part, axis, empty, inputs[0].device)
            for part, axis, backwards, empty in zip(
                parts, self.stack_axes, self.stack_backwards, self.scans, strict=True
            )
        ]
        return (*states, *stacks)


class BatchedScan(nn.Module):
    """Runs a scan for each element of a batch, as ONNX did in opset 8.

    Args:
        scan: Slices its inputs along axis 0.
    """

    def __init__(self, scan: Scan) -> None:
        super().__init__()
        self.scan = scan

    def forward(
        self,
        lengths: Tensor | None,
        states: Sequence[Tensor],
        inputs: Sequence[Tensor],
        captured: Sequence[Any],
    ) -> tuple[Tensor, ...]:
        """Return the last states, [N, ...], then the scans, [N, T, ...], zero behind a sequence's end.

        Args:
            lengths: [N], the steps of each sequence; None if all are T.
            states: The first ones, [N, ...].
            inputs: [N, T, ...].
            captured: What the body reads from outside.
        """
        results = []
        for n in range(inputs[0].shape[0]):
            steps = inputs[0].shape[1]
            length = steps if lengths is None else int(lengths[n])
            many = self.scan([s[n] for s in states], [x[n, :length] for x in inputs], captured)
            stacks = [torch.cat([y, y.new_zeros(steps - length, *y.shape[1:])]) for y in many[len(states) :]]
            results.append((*many[: len(states)], *stacks))
        return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


def _stacked(parts: list[Tensor], axis: int, empty: Empty | None, device: torch.device | None) -> Tensor:
    if parts:
        return torch.stack(parts, axis)
    if empty is None:
        raise ValueError("no step was taken, and the shape of what is stacked is unknown")
    shape = list(empty.shape)
    shape.insert(axis if axis >= 0 else axis + len(shape) + 1, 0)
    return torch.empty(shape, dtype=empty.dtype, device=device)


def _copied(results: Sequence[Any]) -> tuple[Any, ...]:
    """Return results that share no memory with the operands, which `torch.cond` forbids."""
    return tuple(r.clone() if isinstance(r, Tensor) else r for r in results)


def _device(values: Sequence[Any]) -> torch.device | None:
    """Return the device of the first tensor."""
    return next((value.device for value in values if isinstance(value, Tensor)), None)
