"""The deployable file while it is made: folded, in its form, labelled; later in its precision."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import onnx

from graftonnx.classifier import Classifier, known_preprocess
from graftonnx.errors import DataError, ModelError
from graftonnx.exporting.form import Form
from graftonnx.exporting.inputs import set_inputs
from graftonnx.exporting.opsets import resize_all_axes, to_opset
from graftonnx.exporting.outputs import single_output
from graftonnx.exporting.pictures import Pictures
from graftonnx.exporting.precision import convert
from graftonnx.exporting.sameness import Sameness, check_same
from graftonnx.feeds import image_shape
from graftonnx.folding import fold_skeleton
from graftonnx.graph import GraphView
from graftonnx.metadata import (
    InputConvention,
    Metadata,
    Preprocess,
    read_metadata,
    write_metadata,
)
from graftonnx.model import load, save_skeleton
from graftonnx.normalise.inference import infer_shapes
from graftonnx.normalise.opset import OPSET, convert_opset, declared_opset
from graftonnx.normalise.sizes import Sizes
from graftonnx.runtime import open_session
from graftonnx.weights import Weights, exceeds_protobuf, read, whole


class Draft:
    """A network on its way from training to deployment.

    Args:
        path: The network.
        preprocess: What its input expects, where it does not say so itself.
        form: What the file shall look like.
        labels: Class names that replace those in the network.

    Attributes:
        model: The skeleton of the file.
        nodes_before: Nodes in the network.
        folded: What was taken out.
        known: Class names of the network; where its own do not fit it, those that replace them.

    Raises:
        ModelError: If the network cannot be read, is no image classifier, or was exported in another form.
        UnsupportedOpError: If an operator cannot be said in that opset.
        DataError: If the labels do not fit.
    """

    def __init__(
        self, path: Path, preprocess: Preprocess | str | None, form: Form, labels: tuple[str, ...] | None
    ) -> None:
        self._path, self._form = path, form
        model, weights = read(path)
        metadata = read_metadata(model)
        self._convention = known_preprocess(path, metadata, preprocess)
        self.nodes_before = len(model.graph.node)
        try:
            _check_source(model, metadata)
            if metadata.input is None:
                network = load(path, preprocess=self._convention)
                model, weights = network.skeleton, network.weights
            opset = declared_opset(model)
            if opset < OPSET:
                model = convert_opset(model, opset)
            model = infer_shapes(model)
            self._shapes = [image_shape(path.name, shape) for shape in _input_shapes(model)]
            self._expects = set_inputs(model, weights, self._convention, form)
            splits = form.precision in ("fp32", "bf16")
            model, self.folded = fold_skeleton(model, weights, split_concats=splits)
            self._logits, self._uncovered = single_output(model, with_softmax=form.with_softmax)
            self.model = to_opset(infer_shapes(model), weights, form.opset or opset)
            if form.precision == "int8":
                self.model = resize_all_axes(self.model, weights)
        except ModelError as error:
            raise error.at(f"cannot export '{path}'") from error
        self._weights: Weights = weights
        self._describe(metadata, labels)

    def check_same(self) -> Sameness:
        """Check that the file is valid and computes what the network computes.

        Raises:
            ModelError: If it is not valid.
            ParityError: If it gives other numbers.
        """
        self._check()
        return check_same(
            self._path,
            self._shapes,
            self._convention,
            (self.model, self._weights),
            self._expects.preprocess,
            self._logits,
            uncovered=self._uncovered,
        )

    def convert(self, pictures: Pictures) -> tuple[str, ...]:
        """Bring the file to its precision; return the nodes that stay float32 since they do harm otherwise.

        Args:
            pictures: What the range of values is taken from.

        Raises:
            UnsupportedOpError: If it cannot be said in that precision.
        """
        held = [(entry.key, entry.value) for entry in self.model.metadata_props]
        precision = self._form.precision
        try:
            self.model, self._weights, kept = convert(
                self.model, self._weights, precision, self._expects.preprocess, pictures
            )
        except ModelError as error:
            raise error.at(f"cannot export '{self._path}'") from error
        del self.model.metadata_props[:]
        for key, value in held:
            self.model.metadata_props.add(key=key, value=value)
        write_metadata(self.model, read_metadata(self.model).model_copy(update={"precision": precision}))
        self._sign()
        self._check()
        return kept

    def classifier(self, sizes: Sizes | None = None) -> Classifier:
        """Return the file, ready to run on the CPU.

        Args:
            sizes: What the values of the network take that it was made of.
        """
        session = open_session(self.model, weights=self._weights, provider="cpu", sizes=sizes)
        return Classifier(session, self._expects.preprocess, softmax=self._form.with_softmax)

    def save(self, output: Path, *, force: bool) -> None:
        """Write the file atomically; beyond 2 GB the weights go into a file beside it."""
        save_skeleton(self.model, self._weights, output, force=force)

    def _describe(self, metadata: Metadata, labels: tuple[str, ...] | None) -> None:
        """Write into the file what its users need to know, and strip what its makers left in its nodes."""
        classes = self.model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        names = metadata.labels if labels is None else labels
        self.known = metadata.labels if len(metadata.labels) in (0, classes) else names
        if names and len(names) != classes:
            raise DataError(
                f"cannot label the network: {len(names)} labels given, it has {classes} classes. "
                "Give one each class."
            )
        described = Metadata(
            input=self._expects,
            labels=names,
            parents=metadata.parents,
            plan=metadata.plan,
            head=metadata.head,
            activation="softmax" if self._form.with_softmax else None,
        )
        write_metadata(self.model, described)
        self._sign()
        for node in self.model.graph.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")

    def _sign(self) -> None:
        self.model.producer_name, self.model.producer_version = "graftonnx", version("graftonnx")

    def _check(self) -> None:
        """Let onnx check the file completely, types and shapes included; it cannot beyond 2 GB."""
        if exceeds_protobuf(self.model, self._weights):
            return
        try:
            onnx.checker.check_model(whole(self.model, self._weights), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"cannot export '{self._path}': the result is not valid ONNX: {reason} Please report this."
            ) from error


def _check_source(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Refuse a file that was exported in a form from which there is no way back.

    Raises:
        ModelError: Saying which.
    """
    convention = metadata.input or InputConvention()
    if metadata.precision is not None:
        raise ModelError(
            f"it was exported in {metadata.precision} already. Export the run, or a float32 file."
        )
    kinds = {value.type.tensor_type.elem_type for value in model.graph.input}
    if convention.layout != "nchw" or convention.size is not None or onnx.TensorProto.UINT8 in kinds:
        raise ModelError("it was exported with other inputs already. Export the run instead.")


def _input_shapes(model: onnx.ModelProto) -> list[tuple[int | None, ...]]:
    view = GraphView(model.graph)
    return [view.shapes.get(name, ()) for name in view.inputs]
