"""Normalisation and dropout."""

from __future__ import annotations

import numpy as np
from torch import fx, nn
from torch.nn import functional as F

from graftonnx.conversion import formulas
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.layers import BatchNorm, DropoutByInput, DropoutWithMask, ignore_count
from graftonnx.conversion.ops.conv import own_weights
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value, Weight, to_tensor
from graftonnx.errors import UnsupportedOpError

_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@op("BatchNormalization", since=7)
def batch_normalization_7(
    g: Builder,
    x: Value,
    scale: Value,
    b: Value,
    mean: Value,
    var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
) -> Result:
    """Normalise each channel. x: [N, C, ...], the others: [C] -> x's shape."""
    if not spatial:
        raise UnsupportedOpError("spatial=0 (statistics for each activation) has no PyTorch form.")
    return batch_normalization(g, x, scale, b, mean, var, epsilon=epsilon, momentum=momentum)


@op("BatchNormalization", since=9)
def batch_normalization_9(
    g: Builder,
    x: Value,
    scale: Value,
    b: Value,
    mean: Value,
    var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
) -> Result:
    """Normalise each channel. x: [N, C, ...], the others: [C] -> x's shape."""
    return batch_normalization(g, x, scale, b, mean, var, epsilon=epsilon, momentum=momentum)


@op("BatchNormalization", since=14)
def batch_normalization(
    g: Builder,
    x: Value,
    scale: Value,
    b: Value,
    mean: Value,
    var: Value,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Result:
    """Normalise each channel. x: [N, C, ...], the others: [C] -> x's shape.

    The module follows `train()` and `eval()`, whatever `training_mode` the exporter left. ONNX's momentum is
    the share of the old statistics, PyTorch's that of the new ones.
    """
    if g.wanted > 1:
        if not training_mode:
            raise UnsupportedOpError("its running statistics are outputs, but training_mode is 0.")
        many = g.call(formulas.batch_norm_training, g.tensor(x), scale, b, mean, var, epsilon, momentum)
        return tuple(g.item(many, i) for i in range(3))
    if training_mode and not (isinstance(mean, Weight) and isinstance(var, Weight)):
        return g.call(formulas.batch_norm_of_batch, g.tensor(x), scale, b, epsilon)
    if not (isinstance(mean, Weight) and isinstance(var, Weight)):
        return g.call(F.batch_norm, g.tensor(x), mean, var, scale, b, False, 1 - momentum, epsilon)
    if mean.uses > 1 or var.uses > 1:
        raise UnsupportedOpError("its running statistics belong to several nodes.")
    own = own_weights(scale, b, mean, var)
    share = round(1 - momentum, 9)
    shape = g.shape(x)
    if own is not None and shape is not None and len(shape) in _BATCH_NORMS:
        layer = _BATCH_NORMS[len(shape)](mean.array.size, epsilon, share, device="meta")
        # Only a cumulative average needs the count, and no ONNX initializer holds it.
        layer.num_batches_tracked = None
        layer.register_load_state_dict_post_hook(ignore_count)  # type: ignore[no-untyped-call]  # torch has no types here
        return g.layer(layer, x, weights=own)
    tied = BatchNorm(to_tensor(mean.array), to_tensor(var.array), epsilon, share)
    return g.layer(tied, x, scale, b, weights=[None, None, mean, var])


@op("InstanceNormalization", since=6)
def instance_normalization(g: Builder, x: Value, scale: Value, b: Value, *, epsilon: float = 1e-5) -> Result:
    """Normalise each plane. x: [N, C, ...], scale, b: [C] -> x's shape."""
    return g.call(formulas.instance_norm, g.tensor(x), scale, b, epsilon)


@op("LayerNormalization", since=17)
def layer_normalization(
    g: Builder,
    x: Value,
    scale: Value,
    b: Value = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Result:
    """Normalise over the axes from `axis` on. x: [...], scale, b: x's last axes -> x's shape."""
    rank = g.rank(x)
    axis = axis + rank if axis < 0 else axis
    if stash_type != 1:
        raise UnsupportedOpError(f"stash_type is {stash_type}, expected 1 (float32).")
    shape = g.shape(scale) or ()
    fixed = len(shape) == rank - axis and shape == (g.shape(x) or ())[axis:] and None not in shape
    if g.wanted > 1 or not fixed:
        many = g.call(formulas.layer_norm, g.tensor(x), axis, scale, b, epsilon)
        return tuple(g.item(many, i) for i in range(3))
    own = own_weights(scale, b)
    if own is not None:
        layer = nn.LayerNorm(shape, epsilon, bias=b is not None, device="meta")
        return g.layer(layer, x, weights=own)
    return g.call(F.layer_norm, g.tensor(x), shape, scale, b, epsilon)


@op("RMSNormalization", since=23)
def rms_normalization(
    g: Builder, x: Value, scale: Value, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Result:
    """Divide by the root mean square over the axes from `axis` on. x: [...] -> x's shape."""
    if stash_type != 1:
        raise UnsupportedOpError(f"stash_type is {stash_type}, expected 1 (float32).")
    rank = g.rank(x)
    return g.call(formulas.rms_norm, g.tensor(x), axis + rank if axis < 0 else axis, scale, epsilon)


@op("GroupNormalization", since=18)
def group_normalization_18(
    g: Builder, x: Value, scale: Value, bias: Value, *, epsilon: float = 1e-5, num_groups: int
) -> Result:
    """Normalise groups of channels. x: [N, C, ...], scale, bias: [num_groups] -> x's shape."""
    return g.call(formulas.group_norm_by_group, g.tensor(x), scale, bias, num_groups, epsilon)


@op("GroupNormalization", since=21)
def group_normalization(
    g: Builder,
    x: Value,
    scale: Value,
    bias: Value,
    *,
    epsilon: float = 1e-5,
    num_groups: int,
    stash_type: int = 1,
) -> Result:
    """Normalise groups of channels. x: [N, C, ...], scale, bias: [C] -> x's shape."""
    if stash_type != 1:
        raise UnsupportedOpError(f"stash_type is {stash_type}, expected 1 (float32).")
    own = own_weights(scale, bias)
    if own is not None:
        layer = nn.GroupNorm(num_groups, own[0].array.size, epsilon, device="meta")
        return g.layer(layer, x, weights=own)
    return g.call(F.group_norm, g.tensor(x), num_groups, scale, bias, epsilon)


@op("LRN", since=1)
def lrn(
    g: Builder, x: Value, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> Result:
    """Divide by the energy of neighbouring channels. x: [N, C, ...] -> x's shape."""
    channels = next(iter((g.shape(x) or ())[1:]), None) or 0
    plain = size % 2 and size < 2 * channels - 1
    call = F.local_response_norm if plain else formulas.local_response_norm
    return g.call(call, g.tensor(x), size, alpha, beta, bias)


@op("MeanVarianceNormalization", since=9)
def mean_variance_normalization(
    g: Builder, x: Value, *, axes: list[int] | tuple[int, ...] = (0, 2, 3)
) -> Result:
    """Subtract the mean and divide by the standard deviation over `axes`. x: [...] -> x's shape."""
    return g.call(formulas.mean_variance_norm, g.tensor(x), list(axes))


@op("LpNormalization", since=1)
def lp_normalization(g: Builder, x: Value, *, axis: int = -1, p: int = 2) -> Result:
    """Divide by the p-norm along `axis`; zero stays zero. x: [...] -> x's shape."""
    return g.call(formulas.lp_normalize, g.tensor(x), axis, p)


@op("Dropout", since=7)
def dropout_7(g: Builder, x: Value, *, ratio: float = 0.5) -> Result:
    """Drop elements in training. x: [...] -> x's shape, and the mask if wanted."""
    return _dropout(g, x, ratio)


@op("Dropout", since=12)
def dropout(
    g: Builder, x: Value, ratio: Value = None, training_mode: Value = None, *, seed: int | None = None
) -> Result:
    """Drop elements in training. x: [...], ratio: [] -> x's shape, and the mask if wanted.

    The module follows `train()` and `eval()`, whatever `training_mode` the exporter left; only one that is
    computed when the model runs decides itself. PyTorch's generator is seeded for all layers together, so
    `seed` has no counterpart.
    """
    by_input = isinstance(training_mode, fx.Node)
    if isinstance(ratio, fx.Node) or by_input:
        share = np.array(0.5, np.float32) if ratio is None else ratio
        both = g.layer(DropoutByInput(), x, g.frozen(share), *([training_mode] if by_input else []))
        return g.item(both, 0), g.item(both, 1)
    return _dropout(g, x, 0.5 if ratio is None else g.host(ratio, "ratio").item())


def _dropout(g: Builder, x: Value, ratio: float) -> Result:
    if g.wanted == 1:
        return g.layer(nn.Dropout(ratio), x)
    both = g.layer(DropoutWithMask(ratio), x)
    return g.item(both, 0), g.item(both, 1)
