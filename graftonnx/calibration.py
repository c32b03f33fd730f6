"""Ask unlabelled images which taps hold similar features, and how one is best made from the other.

Similarity is linear centred kernel alignment (Kornblith et al., arXiv 1905.00414), with the unbiased estimate
of the Hilbert-Schmidt independence criterion over small batches (Nguyen et al., arXiv 2010.15327), so that
memory does not grow with the number of images. Projections are fitted by ridge regression, as the layers that
stitch networks together are (Bansal et al., arXiv 2106.07682).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from graftonnx import images
from graftonnx.alignment import Scores
from graftonnx.data.folders import FolderTree
from graftonnx.errors import DataError, ModelError
from graftonnx.heads import HeadDesign
from graftonnx.layouts import Layout
from graftonnx.matching import candidates, fused_size, planned
from graftonnx.network import Network
from graftonnx.plan import Plan, Projection, Skip
from graftonnx.proofs import explained
from graftonnx.reading import beside
from graftonnx.runtime import open_session, with_outputs
from graftonnx.splice import splice
from graftonnx.weights import whole

MINIBATCH = 16
"""Images whose features are compared with each other."""

MOST_IMAGES = 256
"""Images that are read; of more, those at even distances."""

LEAST_IMAGES = 2 * MINIBATCH

_MOST_BYTES = 1 << 28
"""Of activations that are held at once."""

RIDGE = 1e-3
"""Penalty on the weights, relative to the mean square of the features."""

Floats = NDArray[np.float32]


class Calibration:
    """Networks that run on the same unlabelled images.

    Args:
        parents: By branch letter.
        pixels: uint8 [n, H, W, 3], RGB, at the size of :func:`graftonnx.matching.fused_size`.

    Raises:
        ValueError: If there are fewer than `MINIBATCH` images.
    """

    def __init__(self, parents: Mapping[str, Network], pixels: images.Pixels) -> None:
        self._parents = parents
        self._pixels = pixels
        if len(pixels) < MINIBATCH:
            raise ValueError(f"{len(pixels)} images given; {MINIBATCH} or more are needed")

    def is_of(self, parents: Mapping[str, Network]) -> bool:
        """Return whether these are the networks that run here."""
        own = self._parents
        return own.keys() == parents.keys() and all(own[x].skeleton is parents[x].skeleton for x in own)

    def similarity(self) -> dict[tuple[str, str], Scores]:
        """Return the similarity of every two taps of different branches.

        Returns:
            For each two branches [I, J], 0..1, in the order of :func:`graftonnx.matching.candidates`.
        """
        sizes_of = {
            letter: {f"{letter}/{tap.name}": math.prod(tap.shape) for tap in candidates(network)}
            for letter, network in self._parents.items()
        }
        taps = {letter: list(sizes) for letter, sizes in sizes_of.items()}
        sizes = {name: size for part in sizes_of.values() for name, size in part.items()}
        grams: dict[str, list[Scores]] = {name: [] for name in sizes}
        for group in _groups(sizes):
            for values in self._run(group):
                for name, features in values.items():
                    grams[name].append(_gram(features))
        stacked = {name: np.stack(parts) for name, parts in grams.items()}
        own = {name: _hsic(parts[None], parts[None])[0, 0] for name, parts in stacked.items()}
        found = {}
        for x, y in itertools.combinations(self._parents, 2):
            shared = _hsic(_all(stacked, taps[x]), _all(stacked, taps[y]))
            scale = np.sqrt(np.outer([own[name] for name in taps[x]], [own[name] for name in taps[y]]))
            found[x, y] = np.clip(shared / np.maximum(scale, 1e-30), 0.0, 1.0)
        return found

    def projections(self, plan: Plan) -> dict[Skip, Floats]:
        """Fit the projection of every skip to its target: the weight [C', C] of least squares.

        What the 1x1 Conv sees is fitted, and of a Conv with a larger window the mean of what it sees.

        Args:
            plan: The skips; their taps exist.
        """
        layouts = {
            f"{letter}/{name}": layout
            for letter, network in self._parents.items()
            for name, layout in network.layouts.items()
        }
        fits = {
            skip: _Fit(layouts[skip.source], layouts[skip.target], skip.projection) for skip in plan.skips
        }
        for exchange in plan.exchanges:
            for values in self._run(sorted({exchange[0].source, exchange[0].target})):
                for skip in exchange:
                    fits[skip].add(values[skip.source], values[skip.target])
        return {skip: fit.weight() for skip, fit in fits.items()}

    @functools.cached_property
    def _side_by_side(self) -> onnx.ModelProto:
        """The parents behind one image, without exchanges."""
        plan = Plan(
            input_size=fused_size(list(self._parents.values())),
            parents={letter: planned(network) for letter, network in self._parents.items()},
        )
        return whole(*splice(self._parents, plan, HeadDesign(2, hidden=0), skip_init="zero", seed=0))

    def _run(self, names: Sequence[str]) -> Iterator[dict[str, Floats]]:
        """Yield the contents of some values, minibatch by minibatch.

        Raises:
            DataError: If one is not finite.
            ModelError: If a network does not run.
        """
        session = open_session(with_outputs(self._side_by_side, names), provider="cpu")
        for start in range(0, len(self._pixels) - MINIBATCH + 1, MINIBATCH):
            batch = images.to_input(self._pixels[start : start + MINIBATCH])
            try:
                values = dict(zip(names, session.run(batch, outputs=names), strict=True))
            except ModelError as error:
                raise explained(error, self._side_by_side, self._parents) from error
            for name, found in values.items():
                if not np.isfinite(found).all():
                    raise DataError(
                        f"cannot calibrate: '{name}' is not finite on the images. Check the weights of that "
                        "parent and --preprocess, or leave out --calibrate."
                    )
            yield values


def read_images(folder: Path, size: tuple[int, ...]) -> images.Pixels:
    """Read the visible images in a folder and below it; they need no labels.

    Args:
        folder: Where they are.
        size: Height and width, in pixels.

    Raises:
        DataError: If there are too few, one cannot be read or a folder, or the networks do not take images.
    """
    if len(size) != 2:
        raise DataError(
            f"cannot calibrate with '{folder}': the networks take signals of {len(size)} extents, and images "
            "have height and width. Leave out --calibrate."
        )
    if not folder.is_dir():
        raise DataError(f"cannot read images from '{folder}': there is no such folder.{beside(folder)}")
    paths = sorted(folder / name for name in FolderTree(folder).images(""))
    if len(paths) < LEAST_IMAGES:
        raise DataError(
            f"cannot calibrate with '{folder}': it holds {len(paths)} images, expected {LEAST_IMAGES} or "
            "more. Add some, or leave out --calibrate."
        )
    count = min(len(paths), MOST_IMAGES) // MINIBATCH * MINIBATCH
    chosen = [paths[place * len(paths) // count] for place in range(count)]
    # Neighbours are alike where folders are classes; a minibatch should hold all kinds.
    order = np.random.default_rng(0).permutation(count)
    height, width = size
    return images.decode_many([chosen[place] for place in order], (height, width))


def _groups(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Part values so that the activations of each group fit into memory."""
    group: list[str] = []
    total = 0
    for name, size in sizes.items():
        needed = 4 * size * MINIBATCH
        if group and total + needed > _MOST_BYTES:
            yield group
            group, total = [], 0
        group.append(name)
        total += needed
    if group:
        yield group


def _gram(features: Floats) -> Scores:
    """Return the products of every two images' features, [m, m], with zeros on the diagonal."""
    flat = features.reshape(len(features), -1)
    gram = (flat @ flat.T).astype(np.float64)
    np.fill_diagonal(gram, 0.0)
    return gram


def _all(stacked: Mapping[str, Scores], names: Sequence[str]) -> Scores:
    return np.stack([stacked[name] for name in names]) if names else np.zeros((0, 1, 1, 1))


def _hsic(first: Scores, second: Scores) -> Scores:
    """Return the unbiased estimate for every two taps, averaged over minibatches.

    Args:
        first: [I, B, m, m]: for each tap and minibatch the Gram matrix with zeros on its diagonal.
        second: [J, B, m, m].
    """
    total = np.zeros((len(first), len(second)))
    for a, b in zip(first.swapaxes(0, 1), second.swapaxes(0, 1), strict=True):
        m = a.shape[-1]
        rows_a, rows_b = a.sum(2), b.sum(2)
        trace = a.reshape(len(a), -1) @ b.reshape(len(b), -1).T
        sums = np.outer(rows_a.sum(1), rows_b.sum(1)) / ((m - 1) * (m - 2))
        total += (trace + sums - 2 / (m - 2) * rows_a @ rows_b.T) / (m * (m - 3))
    mean: Scores = total / max(first.shape[1], 1)
    return mean


class _Fit:
    """Ridge regression of a target's channels on a projected source's, position by position."""

    def __init__(self, source: Layout, target: Layout, projection: Projection) -> None:
        self._layouts = source, target
        self._projection = projection
        self._inner = np.zeros((source.channels, source.channels))
        self._outer = np.zeros((source.channels, target.channels))

    def add(self, source: Floats, target: Floats) -> None:
        """Take a minibatch into account."""
        source_layout, target_layout = self._layouts
        maps = _on_grid(_maps(source, source_layout), self._projection, target_layout.grid)
        x, y = _rows(maps), _rows(_maps(target, target_layout))
        self._inner += x.T @ x
        self._outer += x.T @ y

    def weight(self) -> Floats:
        """Return the weight [C', C]."""
        penalty = RIDGE * np.trace(self._inner) / len(self._inner) + 1e-12
        solution = np.linalg.solve(self._inner + penalty * np.eye(len(self._inner)), self._outer)
        return np.ascontiguousarray(solution.T, np.float32)


def _maps(values: Floats, layout: Layout) -> Floats:
    """Return a tensor as [N, C, *grid], without its class tokens."""
    if layout.kind == "channels_first":
        return values
    if layout.kind == "tokens":
        values = values[:, layout.prefix :].reshape(len(values), *layout.grid, layout.channels)
    return np.moveaxis(values, -1, 1)


def _on_grid(maps: Floats, projection: Projection, grid: tuple[int, ...]) -> Floats:
    """Return maps on the grid of the target, as the 1x1 Conv of a projection sees them."""
    pads = list(zip(projection.pads[: len(grid)], projection.pads[len(grid) :], strict=True))
    for axis, points in enumerate(grid):
        if projection.kind == "resize":
            maps = _resized(maps, axis + 2, points)
        else:
            window = projection.kernel[axis], projection.stride[axis], pads[axis]
            maps = _averaged(maps, axis + 2, *window, with_pads=projection.kind == "conv")
    return maps


def _resized(maps: Floats, axis: int, points: int) -> Floats:
    """Return maps of other extents along an axis, as a linear Resize makes them."""
    extent = maps.shape[axis]
    places = np.clip((np.arange(points) + 0.5) * extent / points - 0.5, 0, extent - 1)
    lower = places.astype(np.int64)
    share = _along(axis, maps.ndim, places - lower)
    first, second = (maps.take(at, axis) for at in (lower, np.minimum(lower + 1, extent - 1)))
    result: Floats = first + share * (second - first)
    return result


def _averaged(
    maps: Floats, axis: int, kernel: int, stride: int, pads: tuple[int, int], *, with_pads: bool
) -> Floats:
    """Return the mean of each window along an axis; `with_pads`, of the zeros around the maps too."""
    if (kernel, stride, pads) == (1, 1, (0, 0)):
        return maps
    counted = np.full(maps.shape[axis] + sum(pads), with_pads)
    counted[pads[0] : pads[0] + maps.shape[axis]] = True
    padded = np.pad(maps, [pads if i == axis else (0, 0) for i in range(maps.ndim)])
    starts = np.arange(0, len(counted) - kernel + 1, stride)
    sums: Floats = sliding_window_view(padded, kernel, axis).take(starts, axis).sum(-1)
    sums /= _along(axis, maps.ndim, sliding_window_view(counted, kernel)[starts].sum(-1))
    return sums


def _along(axis: int, dimensions: int, values: NDArray[Any]) -> Floats:
    """Return numbers along an axis in a form that broadcasts over the others."""
    return values.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(dimensions)])


def _rows(maps: Floats) -> NDArray[np.float64]:
    """Return [positions of all images, C]."""
    return np.moveaxis(maps, 1, -1).reshape(-1, maps.shape[1]).astype(np.float64)
