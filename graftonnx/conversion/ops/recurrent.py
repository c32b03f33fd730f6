"""Recurrent networks: PyTorch's own kernels where they compute the same, else step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from graftonnx.conversion import recurrent
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.recurrent import Activation
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError

_NUMBERS: dict[str, tuple[float | None, ...]] = {
    "affine": (None, None),
    "elu": (1.0,),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01,),
    "relu": (),
    "scaledtanh": (None, None),
    "sigmoid": (),
    "softplus": (),
    "softsign": (),
    "tanh": (),
    "thresholdedrelu": (None,),
}
"""Activation -> the defaults of its alpha and beta, as far as it has them; None if it has no default.

ThresholdedRelu has one in the standard, 1, but ONNX Runtime takes another.
"""

_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}

_LSTM = ("sigmoid", "tanh", "tanh")
_GRU = ("sigmoid", "tanh")


@dataclass(frozen=True)
class _Shape:
    """Settings that all recurrent operators have.

    Attributes:
        reverse: Whether a single direction starts at the end.
        activations: For each direction all of them.
        clip: Bounds the inputs of the activations; None if nothing does.
        batch_first: Whether the batch is the first axis of inputs and results.
    """

    reverse: bool
    activations: tuple[Activation, ...]
    clip: float | None
    batch_first: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all activations."""
        return tuple(name for name, _, _ in self.activations)

    def states(self, g: Builder, *values: Value) -> list[Value]:
        """Bring inputs into the order [T, N, ...] or [D, N, ...]."""
        return [g.call(torch.transpose, v, 0, 1) if self.batch_first and v is not None else v for v in values]

    def results(self, g: Builder, many: Value, count: int) -> Result:
        """Return the outputs in the order that the node has."""
        y, *last = (g.item(many, i) for i in range(count))
        if self.batch_first:
            y = g.call(torch.permute, y, (2, 0, 1, 3))
            last = [g.call(torch.transpose, state, 0, 1) for state in last]
        return y, *last


@op("LSTM", since=7)
def lstm(
    g: Builder,
    x: Value,
    w: Value,
    r: Value,
    b: Value = None,
    sequence_lens: Value = None,
    initial_h: Value = None,
    initial_c: Value = None,
    p: Value = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> Result:
    """Long short-term memory. x: [T, N, I] -> y: [T, D, N, H], y_h and y_c: [D, N, H]."""
    alike = _shape(direction, activations, _LSTM, activation_alpha, activation_beta, clip, layout)
    _check_hidden(g, r, hidden_size)
    x, h, c = alike.states(g, x, initial_h, initial_c)
    if sequence_lens is None and p is None and not input_forget and _is_plain(alike, _LSTM):
        many = g.call(recurrent.lstm, x, w, r, b, h, c, alike.reverse)
    else:
        many = g.call(
            recurrent.lstm_steps, x, w, r, b, sequence_lens, h, c, p,
            alike.reverse, alike.activations, alike.clip, bool(input_forget),
        )  # fmt: skip
    return alike.results(g, many, 3)


@op("GRU", since=7)
def gru(
    g: Builder,
    x: Value,
    w: Value,
    r: Value,
    b: Value = None,
    sequence_lens: Value = None,
    initial_h: Value = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> Result:
    """Gated recurrent unit. x: [T, N, I] -> y: [T, D, N, H], y_h: [D, N, H]."""
    alike = _shape(direction, activations, _GRU, activation_alpha, activation_beta, clip, layout)
    _check_hidden(g, r, hidden_size)
    x, h = alike.states(g, x, initial_h)
    if sequence_lens is None and linear_before_reset and _is_plain(alike, _GRU):
        many = g.call(recurrent.gru, x, w, r, b, h, alike.reverse)
    else:
        many = g.call(
            recurrent.gru_steps, x, w, r, b, sequence_lens, h,
            alike.reverse, alike.activations, alike.clip, bool(linear_before_reset),
        )  # fmt: skip
    return alike.results(g, many, 2)


@op("RNN", since=7)
def rnn(
    g: Builder,
    x: Value,
    w: Value,
    r: Value,
    b: Value = None,
    sequence_lens: Value = None,
    initial_h: Value = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> Result:
    """Recurrent network of one gate. x: [T, N, I] -> y: [T, D, N, H], y_h: [D, N, H]."""
    # The default has two activations whatever the direction.
    named = None if tuple(activations) == ("Tanh", "Tanh") else activations
    alike = _shape(direction, named, ("tanh",), activation_alpha, activation_beta, clip, layout)
    _check_hidden(g, r, hidden_size)
    x, h = alike.states(g, x, initial_h)
    relu = _is_plain(alike, ("relu",))
    if sequence_lens is None and (relu or _is_plain(alike, ("tanh",))):
        many = g.call(recurrent.rnn, x, w, r, b, h, alike.reverse, relu)
    else:
        many = g.call(
            recurrent.rnn_steps, x, w, r, b, sequence_lens, h, alike.reverse, alike.activations, alike.clip
        )
    return alike.results(g, many, 2)


def _is_plain(alike: _Shape, activations: tuple[str, ...]) -> bool:
    """Return whether PyTorch's kernels have these activations and this (lack of a) bound."""
    return alike.clip is None and alike.names in (activations, activations * 2)


def _shape(
    direction: str,
    activations: Sequence[str] | None,
    default: tuple[str, ...],
    alphas: Sequence[float] | None,
    betas: Sequence[float] | None,
    clip: float | None,
    layout: int,
) -> _Shape:
    """Read the attributes that all recurrent operators have."""
    if direction not in _DIRECTIONS:
        raise UnsupportedOpError(f"direction is '{direction}', expected forward, reverse or bidirectional.")
    count = len(default) * _DIRECTIONS[direction]
    names = [name.lower() for name in activations or default * _DIRECTIONS[direction]]
    if len(names) != count:
        raise UnsupportedOpError(f"it has {len(names)} activations, expected {count}.")
    # An absent `clip` and a clip of zero both mean that nothing is bounded.
    return _Shape(direction == "reverse", _with_numbers(names, alphas, betas), clip or None, bool(layout))


def _with_numbers(
    names: Sequence[str], alphas: Sequence[float] | None, betas: Sequence[float] | None
) -> tuple[Activation, ...]:
    """Give each activation that has an alpha or a beta the next one from the lists, or its default."""
    queues = (list(alphas or ()), list(betas or ()))
    result = []
    for name in names:
        if name not in _NUMBERS:
            raise UnsupportedOpError(f"the activation '{name}' is unknown. Known: {', '.join(_NUMBERS)}.")
        numbers = [0.0, 0.0]
        for index, default in enumerate(_NUMBERS[name]):
            number = queues[index].pop(0) if queues[index] else default
            if number is None:
                raise UnsupportedOpError(f"the activation '{name}' needs its alpha and beta.")
            numbers[index] = number
        result.append((name, numbers[0], numbers[1]))
    return tuple(result)


def _check_hidden(g: Builder, r: Value, hidden_size: int | None) -> None:
    shape = g.shape(r)
    found = None if shape is None else shape[-1]
    if hidden_size is not None and found is not None and found != hidden_size:
        raise UnsupportedOpError(f"hidden_size is {hidden_size}, but R has {found} columns.")
