"""Spectra, and the windows they are taken through."""

from __future__ import annotations

from graftonnx.conversion import spectra
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.ops.constant import torch_type
from graftonnx.conversion.registry import op
from graftonnx.conversion.source import dtype_name
from graftonnx.conversion.values import Result, Value


@op("DFT", since=17)
def dft_17(
    g: Builder,
    x: Value,
    dft_length: Value = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Result:
    """Discrete Fourier transform along `axis`. x: [..., 1 or 2] -> [..., 2]."""
    length = None if dft_length is None else g.ints(dft_length, "dft_length")
    return g.call(spectra.dft, g.tensor(x), length, [axis], bool(inverse), bool(onesided))


@op("DFT", since=20)
def dft(
    g: Builder,
    x: Value,
    dft_length: Value = None,
    axis: Value = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Result:
    """Discrete Fourier transform along an axis. x: [..., 1 or 2] -> [..., 2]."""
    length = None if dft_length is None else g.ints(dft_length, "dft_length")
    along = [-2] if axis is None else g.numbers(axis)
    return g.call(spectra.dft, g.tensor(x), length, along, bool(inverse), bool(onesided))


@op("STFT", since=17)
def stft(
    g: Builder,
    signal: Value,
    frame_step: Value,
    window: Value = None,
    frame_length: Value = None,
    *,
    onesided: int = 1,
) -> Result:
    """Spectra of frames. signal: [N, L, 1 or 2], window: [length] -> [N, frames, frequencies, 2]."""
    length = None if frame_length is None else g.ints(frame_length, "frame_length")
    step = g.ints(frame_step, "frame_step")
    return g.call(spectra.stft, g.tensor(signal), step, window, length, bool(onesided))


@op("HannWindow", since=17)
@op("HammingWindow", since=17)
@op("BlackmanWindow", since=17)
def window(g: Builder, size: Value, *, output_datatype: int = 1, periodic: int = 1) -> Result:
    """A sum of cosines over one period. size: [] -> [size]."""
    weights = spectra.WINDOWS[g.node.op_type]
    return g.call(spectra.window, size, weights, bool(periodic), torch_type(dtype_name(output_datatype)))


@op("MelWeightMatrix", since=17)
def mel_weight_matrix(
    g: Builder,
    num_mel_bins: Value,
    dft_length: Value,
    sample_rate: Value,
    lower_edge_hertz: Value,
    upper_edge_hertz: Value,
    *,
    output_datatype: int = 1,
) -> Result:
    """Triangles that gather frequencies into mel bins -> [dft_length // 2 + 1, num_mel_bins]."""
    edges = (g.frozen(lower_edge_hertz), g.frozen(upper_edge_hertz))
    kind = torch_type(dtype_name(output_datatype))
    return g.call(spectra.mel_weights, num_mel_bins, dft_length, sample_rate, *edges, kind)
