"""What generated code calls for recurrent networks.

Weights have ONNX's shapes: w: [D, G * H, I], r: [D, G * H, H], b: [D, 2 * G * H] with D directions, G gates,
H hidden units and I features. Values over time are [T, N, ...], states are [D, N, H].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Activation: TypeAlias = tuple[str, float, float]
"""Name in lower case, alpha and beta."""

Step: TypeAlias = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""From the share of the input in the gates, [N, G * H], and the states, [N, H] each, to the new states."""

_ACTIVATIONS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "elu": lambda x, alpha, beta: F.elu(x, alpha),
    "hardsigmoid": lambda x, alpha, beta: torch.clamp(alpha * x + beta, 0, 1),
    "leakyrelu": lambda x, alpha, beta: F.leaky_relu(x, alpha),
    "relu": lambda x, alpha, beta: F.relu(x),
    "scaledtanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "sigmoid": lambda x, alpha, beta: torch.sigmoid(x),
    "softplus": lambda x, alpha, beta: F.softplus(x),
    "softsign": lambda x, alpha, beta: F.softsign(x),
    "tanh": lambda x, alpha, beta: torch.tanh(x),
    "thresholdedrelu": lambda x, alpha, beta: F.threshold(x, alpha, 0.0),
}

_LSTM_ORDER = (0, 2, 3, 1)
"""ONNX has input, output, forget, cell; PyTorch input, forget, cell, output."""

_GRU_ORDER = (1, 0, 2)
"""ONNX has update, reset, hidden; PyTorch reset, update, hidden."""


def lstm(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, h: Tensor | None, c: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM with PyTorch's own kernel; return y: [T, D, N, H] and the last states."""
    _check(x, w, r, b, h, c)
    states = (_state(h, x, r), _state(c, x, r))
    y, last_h, last_c = torch.lstm(
        _flipped(x, reverse), states, _parameters(w, r, b, _LSTM_ORDER), *_settings(w, b)
    )
    return _by_direction(y, w, reverse), last_h, last_c


def gru(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, h: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Run a GRU that resets after the matrix product; return y: [T, D, N, H] and the last state."""
    _check(x, w, r, b, h)
    y, last = torch.gru(
        _flipped(x, reverse), _state(h, x, r), _parameters(w, r, b, _GRU_ORDER), *_settings(w, b)
    )
    return _by_direction(y, w, reverse), last


def rnn(
    x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, h: Tensor | None, reverse: bool, relu: bool
) -> tuple[Tensor, Tensor]:
    """Run an RNN with tanh or relu; return y: [T, D, N, H] and the last state."""
    _check(x, w, r, b, h)
    run = torch.rnn_relu if relu else torch.rnn_tanh
    y, last = run(_flipped(x, reverse), _state(h, x, r), _parameters(w, r, b, (0,)), *_settings(w, b))
    return _by_direction(y, w, reverse), last


def lstm_steps(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor | None,
    c: Tensor | None,
    p: Tensor | None,
    reverse: bool,
    activations: Sequence[Activation],
    clip: float | None,
    coupled: bool,
) -> tuple[Tensor, ...]:
    """Run an LSTM step by step; return y: [T, D, N, H] and the last states.

    Args:
        x: [T, N, I].
        w: See the module.
        r: See the module.
        b: See the module.
        lengths: [N], the steps of each sequence; what lies behind is zero.
        h: First output.
        c: First cell.
        p: Peepholes [D, 3 * H]: input, output, forget.
        reverse: Whether a single direction starts at the end.
        activations: Of the gates, the cell and the output, for each direction.
        clip: Bounds the inputs of the gates' activations.
        coupled: Whether the forget gate is 1 - input gate.
    """

    def cell(d: int) -> Step:
        gate, inner, outer = activations[3 * d : 3 * d + 3]
        peep_i, peep_o, peep_f = (0, 0, 0) if p is None else p[d].chunk(3)

        def step(gates: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h, c = states
            i, o, f, new = (gates + h @ r[d].t()).chunk(4, 1)
            i = _activate(i + peep_i * c, gate, clip)
            f = 1 - i if coupled else _activate(f + peep_f * c, gate, clip)
            c = f * c + i * _activate(new, inner, clip)
            return _activate(o + peep_o * c, gate, clip) * _activate(c, outer, None), c

        return step

    shares = [_input_share(x, w[d], None if b is None else b[d]) for d in range(w.shape[0])]
    return _unrolled(shares, lengths, (_state(h, x, r), _state(c, x, r)), cell, reverse)


def gru_steps(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor | None,
    reverse: bool,
    activations: Sequence[Activation],
    clip: float | None,
    reset_after: bool,
) -> tuple[Tensor, ...]:
    """Run a GRU step by step; return y: [T, D, N, H] and the last state.

    Args:
        x: [T, N, I].
        w: See the module.
        r: See the module.
        b: See the module.
        lengths: [N], the steps of each sequence; what lies behind is zero.
        h: First output.
        reverse: Whether a single direction starts at the end.
        activations: Of the gates and of the output, for each direction.
        clip: Bounds the inputs of the activations.
        reset_after: Whether the reset gate multiplies after the matrix product.
    """

    def cell(d: int) -> Step:
        gate, inner = activations[2 * d : 2 * d + 2]
        hidden = r.shape[2]
        gates_r, hidden_r = r[d][: 2 * hidden], r[d][2 * hidden :]
        state_b = r.new_zeros(3 * hidden) if b is None else b[d].chunk(2)[1]
        gates_b, hidden_b = state_b[: 2 * hidden], state_b[2 * hidden :]

        def step(gates: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (h,) = states
            share, new = gates[:, : 2 * hidden], gates[:, 2 * hidden :]
            update, reset = _activate(share + h @ gates_r.t() + gates_b, gate, clip).chunk(2, 1)
            if reset_after:
                new = new + reset * (h @ hidden_r.t() + hidden_b)
            else:
                new = new + (reset * h) @ hidden_r.t() + hidden_b
            return ((1 - update) * _activate(new, inner, clip) + update * h,)

        return step

    halves = [None if b is None else b[d].chunk(2)[0] for d in range(w.shape[0])]
    shares = [F.linear(x, w[d], halves[d]) for d in range(w.shape[0])]
    return _unrolled(shares, lengths, (_state(h, x, r),), cell, reverse)


def rnn_steps(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor | None,
    reverse: bool,
    activations: Sequence[Activation],
    clip: float | None,
) -> tuple[Tensor, ...]:
    """Run an RNN step by step; arguments and result as :func:`gru_steps`, one activation a direction."""

    def cell(d: int) -> Step:
        return lambda gates, states: (_activate(gates + states[0] @ r[d].t(), activations[d], clip),)

    shares = [_input_share(x, w[d], None if b is None else b[d]) for d in range(w.shape[0])]
    return _unrolled(shares, lengths, (_state(h, x, r),), cell, reverse)


def _unrolled(
    shares: Sequence[Tensor],
    lengths: Tensor | None,
    first: tuple[Tensor, ...],
    cell: Callable[[int], Step],
    reverse: bool,
) -> tuple[Tensor, ...]:
    """Run every direction step by step; return y: [T, D, N, H] and the last states: [D, N, H]."""
    results = []
    for d, share in enumerate(shares):
        backwards = reverse or d == 1
        results.append(_direction(share, lengths, tuple(s[d] for s in first), cell(d), backwards))
    y = torch.stack([y for y, _ in results], 1)
    return y, *(torch.stack(parts) for parts in zip(*(last for _, last in results), strict=True))


def _direction(
    share: Tensor, lengths: Tensor | None, states: tuple[Tensor, ...], step: Step, backwards: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Run one direction; share: [T, N, G * H] -> y: [T, N, H] and the last states."""
    steps = range(share.shape[0])
    outputs = []
    for t in reversed(steps) if backwards else steps:
        new = step(share[t], states)
        if lengths is None:
            states, y = new, new[0]
        else:
            inside = (t < lengths).unsqueeze(1)
            states = tuple(torch.where(inside, n, s) for n, s in zip(new, states, strict=True))
            y = torch.where(inside, new[0], torch.zeros_like(new[0]))
        outputs.append(y)
    if lengths is not None:
        # An empty sequence ends with zeros in ONNX Runtime; the standard does not say.
        states = tuple(torch.where((lengths > 0).unsqueeze(1), s, torch.zeros_like(s)) for s in states)
    if not outputs:
        return share.new_zeros(0, *states[0].shape), states
    return torch.stack(outputs[::-1] if backwards else outputs), states


def _activate(x: Tensor, activation: Activation, clip: float | None) -> Tensor:
    name, alpha, beta = activation
    return _ACTIVATIONS[name](x if clip is None else x.clamp(-clip, clip), alpha, beta)


def _input_share(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """Return the part of the gates that does not depend on the state; w: [G * H, I], b: [2 * G * H]."""
    if b is None:
        return F.linear(x, w)
    of_input, of_state = b.chunk(2)
    return F.linear(x, w, of_input + of_state)


def _check(x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, *states: Tensor | None) -> None:
    """Refuse shapes that do not fit each other: PyTorch's kernels write where they must not.

    Args:
        x: [T, N, I].
        w: [D, G * H, I].
        r: [D, G * H, H].
        b: [D, 2 * G * H].
        *states: [D, N, H] each.
    """
    if torch.compiler.is_compiling():
        return
    directions, rows, hidden = r.shape
    wanted = [("weights", w, (directions, rows, x.shape[2])), ("biases", b, (directions, 2 * rows))]
    wanted += [("first state", state, (directions, x.shape[1], hidden)) for state in states]
    for what, tensor, shape in wanted:
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"the shape of the {what} is {list(tensor.shape)}, expected {list(shape)}")


def _state(state: Tensor | None, x: Tensor, r: Tensor) -> Tensor:
    return x.new_zeros(r.shape[0], x.shape[1], r.shape[2]) if state is None else state.to(x).contiguous()


def _flipped(x: Tensor, reverse: bool) -> Tensor:
    return x.flip(0) if reverse else x


def _by_direction(y: Tensor, w: Tensor, reverse: bool) -> Tensor:
    """Turn y: [T, N, D * H] into [T, D, N, H]."""
    return _flipped(y.reshape(y.shape[0], y.shape[1], w.shape[0], -1).transpose(1, 2), reverse)


def _settings(w: Tensor, b: Tensor | None) -> tuple[Any, ...]:
    """Return has_biases, num_layers, dropout, train, bidirectional and batch_first of PyTorch's kernels."""
    return b is not None, 1, 0.0, torch.is_grad_enabled(), w.shape[0] == 2, False


def _parameters(w: Tensor, r: Tensor, b: Tensor | None, order: Sequence[int]) -> list[Tensor]:
    """Return PyTorch's list of weights, direction by direction."""
    matrices = [_ordered(w, order).unbind(0), _ordered(r, order).unbind(0)]
    if b is not None:
        twice = (*order, *(len(order) + gate for gate in order))
        matrices += zip(*(part.chunk(2) for part in _ordered(b, twice).unbind(0)), strict=True)
    listed = [part for parts in zip(*matrices, strict=True) for part in parts]
    return _in_one_piece(listed) if w.is_cuda else listed


def _ordered(weight: Tensor, order: Sequence[int]) -> Tensor:
    """Return the gates of weight: [D, G * H, ...] in another order."""
    if tuple(order) == tuple(range(len(order))):
        return weight
    gates = weight.chunk(len(order), 1)
    return torch.cat([gates[gate] for gate in order], 1)


def _in_one_piece(listed: list[Tensor]) -> list[Tensor]:
    """Return the same weights as views of one tensor, all matrices first, which spares cuDNN a copy."""
    places = sorted(range(len(listed)), key=lambda place: -listed[place].ndim)
    flat = torch.cat([listed[place].reshape(-1) for place in places])
    pieces = torch.split(flat, [listed[place].numel() for place in places])
    views = dict(zip(places, pieces, strict=True))
    return [views[place].view(tensor.shape) for place, tensor in enumerate(listed)]
