"""What generated code calls for spectra and the windows they are taken through."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

WINDOWS = {
    "HannWindow": (0.5, 0.5, 0.0),
    "HammingWindow": (25 / 46, 21 / 46, 0.0),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}
"""Weights of the constant, of the cosine, and of the cosine of twice the angle."""


def dft(
    x: Tensor, length: Sequence[int] | None, axis: Sequence[int], inverse: bool, onesided: bool
) -> Tensor:
    """Transform x along an axis, in double precision: zeros of a spectrum are small beside its peaks.

    Args:
        x: [..., 1] real, or [..., 2] complex.
        length: How long the signal is made before, by zeros or cutting; None for as it is.
        axis: One axis; the last one holds real and imaginary part.
        inverse: Whether to go back from frequencies.
        onesided: Whether frequencies that mirror others are left out.

    Returns:
        [..., 2]; [..., 1] for an inverse that is one-sided.
    """
    along = axis[0] % x.ndim
    wide = x.double()
    real = x.shape[-1] == 1
    signal = wide.squeeze(-1) if real else torch.view_as_complex(wide.contiguous())
    count = None if length is None else length[0]
    if inverse and onesided:
        back: Tensor = torch.fft.irfft(signal, count, along)
        return back.unsqueeze(-1).to(x.dtype)
    if inverse:
        y = torch.fft.ifft(signal, count, along)
    elif onesided and real:
        y = torch.fft.rfft(signal, count, along)
    else:
        y = torch.fft.fft(signal, count, along)
        y = y.narrow(along, 0, y.shape[along] // 2 + 1) if onesided else y
    return torch.view_as_real(y).to(x.dtype)


def stft(
    signal: Tensor, step: Sequence[int], window: Tensor | None, length: Sequence[int] | None, onesided: bool
) -> Tensor:
    """Transform frames of a signal.

    Args:
        signal: [N, L, 1] real, or [N, L, 2] complex.
        step: From one frame to the next.
        window: [length], multiplied with each frame.
        length: Of a frame; None for the window's, or the signal's.
        onesided: Whether frequencies that mirror others are left out.

    Returns:
        [N, frames, frequencies, 2].
    """
    whole = signal.shape[1] if window is None else window.shape[0]
    count = whole if length is None else length[0]
    frames = signal.unfold(1, count, step[0]).transpose(2, 3)
    if window is not None:
        frames = frames * window.reshape(-1, 1)
    return dft(frames, None, [2], False, onesided)


def window(size: Tensor, weights: Sequence[float], periodic: bool, dtype: torch.dtype) -> Tensor:
    """Return a sum of cosines over one period. size: [], the number of elements."""
    count = int(size)
    angle = torch.arange(count, dtype=torch.float64, device=size.device) * 2 * math.pi
    angle = angle / (count if periodic else count - 1)
    constant, once, twice = weights
    return (constant - once * angle.cos() + twice * (2 * angle).cos()).to(dtype)


def mel_weights(
    bins: Tensor, length: Tensor, rate: Tensor, lowest: Tensor, highest: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return triangles that gather the frequencies of a spectrum into bins of equal width in mel.

    Args:
        bins: Their number.
        length: Of the transform.
        rate: Samples each second.
        lowest: Frequency in Hz where the first triangle starts.
        highest: Frequency in Hz of the end.
        dtype: Of the result.

    Returns:
        [length // 2 + 1, bins].
    """
    count, samples = int(bins), int(length)
    low, high = (2595 * math.log10(1 + float(edge) / 700) for edge in (lowest, highest))
    step = (high - low) / (count + 2)
    edges = [700 * (10 ** ((low + i * step) / 2595) - 1) for i in range(count + 2)]
    places = [int((samples + 1) * edge // int(rate)) for edge in edges]
    weights = torch.zeros(samples // 2 + 1, count, dtype=torch.float64, device=bins.device)
    for i in range(count):
        left, centre, right = places[i : i + 3]
        if centre == left:
            weights[centre, i] = 1
        for place in range(left, centre + 1 if centre > left else left):
            weights[place, i] = (place - left) / (centre - left)
        for place in range(centre, right):
            weights[place, i] = (right - place) / (right - centre)
    return weights.to(dtype)
