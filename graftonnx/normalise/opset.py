"""One opset for all: local functions are inlined, then onnx's version converter does the rest."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import onnx
from onnx import defs, inliner, shape_inference, version_converter

from graftonnx import limits
from graftonnx.errors import ModelError, UnsupportedOpError
from graftonnx.functions import check_scopes
from graftonnx.graph import bodies
from graftonnx.remarks import carry

OPSET = 18
"""The opset inside: `Resize` has `axes` (18), and ONNX Runtime's fusions know every operator of it."""

OLDEST = 7
"""Broadcasting as NumPy does begins here; older files describe other operators under the same names."""

LEGACY_RESIZE = 10
"""Up to here `Upsample` and `Resize` have one kind of coordinates, and no attribute that says which."""

IR_VERSION = 10
"""What we write. Read by ONNX Runtime since 1.18."""

_REFUSALS = (RuntimeError, ValueError, onnx.checker.ValidationError, shape_inference.InferenceError)
"""What onnx raises for a model that it cannot expand or convert."""

DEFAULT_DOMAINS = ("", "ai.onnx")

ADVICE = {"com.microsoft": "Give the file from before ONNX Runtime optimised it."}
"""What to do about operators of a domain."""


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the bodies of its local functions in place of their calls.

    Raises:
        ModelError: If a body does not fit a call, or graphs inside the result can read too many names.
    """
    if not model.functions:
        return model
    try:
        with limits.bounded("onnx's inliner"):
            model = inliner.inline_local_functions(model)
    except _REFUSALS as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ModelError(f"its local functions cannot be expanded: {reason}. Export it again.") from error
    check_scopes(model, {})
    return model


def declared_opset(model: onnx.ModelProto) -> int:
    """Return the opset of the default domain.

    Raises:
        ModelError: If the file declares none, or one that is out of range.
    """
    for entry in model.opset_import:
        if entry.domain in DEFAULT_DOMAINS:
            version = entry.version
            break
    else:
        raise ModelError(
            "it has no opset_import for the default domain, so its operators have no defined meaning. "
            "Export it again with a current exporter."
        )
    newest = defs.onnx_opset_version()
    if not OLDEST <= version <= newest:
        raise ModelError(
            f"its opset is {version}; supported are {OLDEST} to {newest}. "
            "Convert it with onnx.version_converter, or export it again."
        )
    return int(version)


def use_default_domain(model: onnx.ModelProto, kinds: Collection[str] | None = None) -> None:
    """Spell the default domain in one way, in place: `ai.onnx` becomes the empty word.

    Args:
        model: The network.
        kinds: The operators of its nodes, if they are known and it has no local functions.
    """
    for holder in (model, *model.functions):
        for entry in holder.opset_import:
            if entry.domain in DEFAULT_DOMAINS:
                entry.domain = ""
    for graph in (model.graph, *model.functions):
        _use_default_domain(graph, kinds)


def _use_default_domain(
    graph: onnx.GraphProto | onnx.FunctionProto, kinds: Collection[str] | None = None
) -> None:
    for node in graph.node:
        if node.HasField("domain") and node.domain in DEFAULT_DOMAINS:
            node.ClearField("domain")
    for body in bodies(graph, kinds):
        _use_default_domain(body)


def check_operators(model: onnx.ModelProto, opset: int, kinds: Collection[str] | None = None) -> None:
    """Refuse operators that the standard does not define at this opset.

    Args:
        model: The network.
        opset: Its opset.
        kinds: The operators of its nodes, if they are known.

    Raises:
        UnsupportedOpError: Naming the first such node.
    """
    standard = {node.domain for node in model.graph.node}.issubset(DEFAULT_DOMAINS)
    if standard and kinds is not None and all(defs.has(kind, opset, "") for kind in kinds):
        return
    defined: dict[str, bool] = {}
    for node in model.graph.node:
        kind = node.op_type
        if kind not in defined:
            defined[kind] = defs.has(kind, opset, "")
        if defined[kind] and node.domain in DEFAULT_DOMAINS:
            continue
        where = f"node '{node.name or (node.output[0] if node.output else '?')}'"
        if node.domain not in DEFAULT_DOMAINS:
            raise UnsupportedOpError(
                f"{where} is operator '{node.op_type}' of domain '{node.domain}', which is not part of the "
                f"ONNX standard. {ADVICE.get(node.domain, 'Export the network without it.')}"
            )
        raise UnsupportedOpError(
            f"{where} is operator '{node.op_type}', which ONNX does not define at opset {opset}. "
            "Export the network without it."
        )


def convert_opset(
    model: onnx.ModelProto, opset: int, kinds: Collection[str] | None = None
) -> onnx.ModelProto:
    """Return the skeleton `model`, written at `opset`, rewritten at :data:`OPSET`.

    What onnx's converter gets wrong or cannot do is mended around it: operators newer than :data:`OPSET` are
    replaced by the body that their standard defines, and `Upsample` and `Resize` of opset 10 and before keep
    their coordinates.

    Args:
        model: The skeleton.
        opset: Of its operators.
        kinds: The operators of its nodes, if they are known.

    Raises:
        ModelError: If there is no road between the two.
    """
    del model.opset_import[1:]
    model.opset_import[0].CopyFrom(onnx.helper.make_opsetid("", opset))
    model.ir_version = IR_VERSION
    before = model
    try:
        if opset > OPSET:
            model, kinds = _expand_newer(model, opset), None
            _drop_unit_dilations(model)
        if _same_operators(model, opset, kinds):
            model.opset_import[0].version = OPSET
            if model is not before:
                carry(before.graph, model.graph)
            return model
        with limits.bounded("onnx's version converter"):
            converted = version_converter.convert_version(model, OPSET)
        carry(before.graph, converted.graph)
    except _REFUSALS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split("failed: ")[-1]
        raise ModelError(
            f"it cannot be brought from opset {opset} to {OPSET}: {reason}. Export it at opset {OPSET}."
        ) from error
    if opset <= LEGACY_RESIZE:
        _keep_legacy_coordinates(converted)
    return converted


def _same_operators(model: onnx.ModelProto, opset: int, kinds: Collection[str] | None) -> bool:
    """Return whether every operator of the model is the same at :data:`OPSET`; then nothing is converted."""
    return all(
        defs.has(kind, OPSET, "")
        and defs.get_schema(kind, opset, "").since_version == defs.get_schema(kind, OPSET, "").since_version
        for kind in _kinds(model.graph, kinds)
    )


def _kinds(graph: onnx.GraphProto, kinds: Collection[str] | None = None) -> set[str]:
    """Return the operators of a graph and of the graphs inside it."""
    found = {node.op_type for node in graph.node} if kinds is None else set(kinds)
    return found.union(*(_kinds(body) for body in bodies(graph, found)))


def _expand_newer(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Replace operators that :data:`OPSET` does not know, or knows with another meaning, by their bodies."""
    return expand(
        model,
        {
            kind
            for kind in {node.op_type for node in model.graph.node}
            if defs.get_schema(kind, opset, "").since_version > OPSET
        },
        opset,
    )


def expand(model: onnx.ModelProto, kinds: Collection[str], opset: int) -> onnx.ModelProto:
    """Return a model with the bodies that the standard defines in the place of some operators.

    Args:
        model: A skeleton.
        kinds: The operators; those without such a body stay.
        opset: Of the model.
    """
    schemas: dict[str, Any] = {kind: defs.get_schema(kind, opset, "") for kind in sorted(kinds)}
    chosen = [
        ("", kind)
        for kind, schema in schemas.items()
        if schema.has_function or schema.has_context_dependent_function
    ]
    if not chosen:
        return model
    with limits.bounded("onnx's shape inference"):
        typed = shape_inference.infer_shapes(model)
    typed.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in typed.graph.initializer
    )
    return inliner.inline_selected_functions(typed, chosen, inline_schema_functions=True)


def _drop_unit_dilations(model: onnx.ModelProto) -> None:
    """Take `dilations` of ones from poolings: before opset 19 they have none.

    Raises:
        ModelError: If a pooling is really dilated.
    """
    for node in model.graph.node:
        if node.op_type != "AveragePool":
            continue
        for item in list(node.attribute):
            if item.name != "dilations":
                continue
            if any(extent != 1 for extent in item.ints):
                raise ModelError(
                    f"node '{node.name or node.output[0]}' (AveragePool) has dilations {list(item.ints)}, "
                    f"which opset {OPSET} cannot express. Export it without them."
                )
            node.attribute.remove(item)


def _keep_legacy_coordinates(model: onnx.ModelProto) -> None:
    """Give resizes of opset 10 and before the coordinates that they mean: asymmetric, rounded down."""
    for node in model.graph.node:
        if node.op_type != "Resize":
            continue
        kept = [
            item
            for item in node.attribute
            if item.name not in ("coordinate_transformation_mode", "nearest_mode")
        ]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
        node.attribute.append(onnx.helper.make_attribute("nearest_mode", "floor"))
