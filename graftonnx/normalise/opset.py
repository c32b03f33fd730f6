"""One opset for all: local functions are inlined, then onnx's version converter does the rest."""

from __future__ import annotations

import onnx
from onnx import defs, inliner, version_converter

from graftonnx.errors import ModelError, UnsupportedOpError

OPSET = 18
"""The opset inside: `Resize` has `axes` (18), and ONNX Runtime's fusions know every operator of it."""

OLDEST = 7
"""Broadcasting as NumPy does begins here; older files describe other operators under the same names."""

IR_VERSION = 10
"""What we write. Read by ONNX Runtime since 1.18."""

DEFAULT_DOMAINS = ("", "ai.onnx")


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the bodies of its local functions in place of their calls."""
    return inliner.inline_local_functions(model) if model.functions else model


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


def check_operators(model: onnx.ModelProto, opset: int) -> None:
    """Refuse operators that the standard does not define at this opset.

    Raises:
        UnsupportedOpError: Naming the first such node.
    """
    for node in model.graph.node:
        where = f"node '{node.name or (node.output[0] if node.output else '?')}'"
        if node.domain not in DEFAULT_DOMAINS:
            raise UnsupportedOpError(
                f"{where} is operator '{node.op_type}' of domain '{node.domain}', which is not part of the "
                "ONNX standard. Export the network without it."
            )
        if not defs.has(node.op_type, opset, ""):
            raise UnsupportedOpError(
                f"{where} is operator '{node.op_type}', which ONNX does not define at opset {opset}. "
                "Export the network without it."
            )


def convert_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the skeleton `model`, written at `opset`, rewritten at :data:`OPSET`.

    Raises:
        ModelError: If onnx's converter has no road between the two.
    """
    del model.opset_import[1:]
    model.opset_import[0].CopyFrom(onnx.helper.make_opsetid("", opset))
    model.ir_version = IR_VERSION
    if opset == OPSET:
        return model
    if all(
        defs.get_schema(node.op_type, opset, "").since_version
        == defs.get_schema(node.op_type, OPSET, "").since_version
        for node in model.graph.node
        if defs.has(node.op_type, OPSET, "")
    ) and all(defs.has(node.op_type, OPSET, "") for node in model.graph.node):
        model.opset_import[0].version = OPSET
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"it cannot be brought from opset {opset} to {OPSET}: {reason}. Export it at opset {OPSET}."
        ) from error
