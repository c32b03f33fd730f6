"""A network in the internal form, and what is found out about it, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnx

from graftonnx import notebook
from graftonnx.costs import macs, parameters
from graftonnx.graph import GraphView
from graftonnx.layouts import Layout, find_layouts
from graftonnx.metadata import Metadata, Preprocess
from graftonnx.shapes import spelled
from graftonnx.spine import Head, Spine, find_spine
from graftonnx.weights import Weights, whole


@dataclass(frozen=True)
class Network:
    """A classifier of images, of sound or of video, in the internal form.

    One opset, a channels-first float input (`[batch, C, L]`, `[batch, C, H, W]` or `[batch, C, D, H, W]`),
    constants as initializers, every shape known but for the batch. Never modified in place.

    Attributes:
        name: The file's name, without its folder.
        skeleton: The graph; large initializers are stubs.
        weights: The data of the stubs.
        input: The input; of several, as fused networks may have them, the first.
        input_shape: Its C and extents: C, L or C, H, W or C, D, H, W.
        head: Its own head: output, classes, and the feature tensor in front.
        preprocess: What the input expects, as far as we know.
        preprocess_reason: How we know.
        metadata: What the file said about itself.
        sha256: See :func:`graftonnx.weights.digest`.
        producer: What the file says made it.
        opset: What the file was written in.
        ir_version: Likewise.
        weight_type: In which the file holds its weights; inside they are float32.
        complete: Whether the head is still there; it is cut off when the input size is changed.
        notes: What was changed on the way in, in words.
        path: The file, if it came from one.
        file_nodes: Nodes in the file, before it was brought to the internal form; None if made in memory.
    """

    name: str
    skeleton: onnx.ModelProto
    weights: Weights = field(repr=False)
    input: str
    input_shape: tuple[int, ...]
    head: Head
    preprocess: Preprocess
    preprocess_reason: str
    metadata: Metadata = field(repr=False)
    sha256: str
    producer: str
    opset: int
    ir_version: int
    weight_type: str = "float32"
    complete: bool = True
    notes: tuple[str, ...] = ()
    path: Path | None = None
    file_nodes: int | None = None
    _indices: list[Index] = field(default_factory=list, repr=False, compare=False)

    @property
    def proto(self) -> onnx.ModelProto:
        """The whole model, weights included."""
        return whole(self.skeleton, self.weights)

    @property
    def view(self) -> GraphView:
        """An index over the skeleton's graph; made once for all networks that share the skeleton."""
        return self._index.view

    @property
    def nodes(self) -> int:
        """Number of nodes in the file; of a network that was made in memory, in its graph."""
        return len(self.skeleton.graph.node) if self.file_nodes is None else self.file_nodes

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """C and the extents of every input, in the graph's order."""
        shapes = self.view.shapes
        return {name: tuple(extent or 0 for extent in shapes[name][1:]) for name in self.view.inputs}

    @property
    def spine(self) -> Spine:
        """The values on every path from the input to the output, or to the feature where the head is cut."""
        target = self.head.output if self.complete else self.head.feature
        spines = self._index.spines
        if target not in spines:
            spines[target] = find_spine(self.view, self.view.inputs, target)
        return spines[target]

    @property
    def layouts(self) -> dict[str, Layout]:
        """Where channels and positions lie, in every value that holds features on a grid; made once, too."""
        index = self._index
        if index.layouts is None:
            index.layouts = find_layouts(self.skeleton, index.view, index.view.inputs)
        return index.layouts

    def _repr_html_(self) -> str:
        """Return what a person wants to know first as a table, for notebooks."""
        rows = [("input", f"{name} {spelled((None, *shape))}") for name, shape in self.input_shapes.items()]
        rows += [
            ("classes", str(self.head.classes) if self.complete else "its head is cut off"),
            ("feature", f"{self.head.feature} {spelled(self.view.shapes[self.head.feature])}"),
            ("parameters", f"{parameters(self.view):,}"),
            ("MACs", f"{macs(self.view) / 1e6:,.0f} M"),
        ]
        rows += [(f"branch {parent.branch}", parent.name) for parent in self.metadata.parents]
        rows += [("note", note) for note in self.notes]
        return notebook.table(rows, caption=self.name)

    @property
    def _index(self) -> Index:
        for index in self._indices:
            if index.skeleton is self.skeleton:
                return index
        self._indices.append(Index(self.skeleton, GraphView(self.skeleton.graph)))
        return self._indices[-1]


@dataclass
class Index:
    """What was found out about a skeleton, for all networks that share it: an index, spines by their ends."""

    skeleton: onnx.ModelProto
    view: GraphView
    spines: dict[str, Spine] = field(default_factory=dict)
    layouts: dict[str, Layout] | None = None
