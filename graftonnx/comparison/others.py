"""Other files that the same parents were fused to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graftonnx.comparison.record import AVERAGE, CONCATENATED, FUSED, Other
from graftonnx.errors import ModelError
from graftonnx.network import Network
from graftonnx.variants import read_fused


def read_others(paths: Sequence[Path], fused: Network, source: Path) -> list[tuple[Other, Network]]:
    """Read fused files that can share the runs of each parent alone, and of the concatenation.

    Args:
        paths: The files.
        fused: The fused network that they are compared with.
        source: Its file.

    Raises:
        ModelError: If one cannot be taken apart, was made from other parents or with another head, or has
            no name of its own.
    """
    letters = [parent.branch for parent in fused.metadata.parents]
    taken = {name: f"the network '{name}'" for name in (*letters, AVERAGE, CONCATENATED, FUSED)}
    others = []
    for path in paths:
        network, name = read_fused(path), path.stem
        _check_alike(network, path, fused, source)
        if name in taken:
            raise ModelError(
                f"cannot compare '{path}': its results would go by '{name}', which is {taken[name]}. "
                "Rename the file."
            )
        taken[name] = f"the name of '{path}'"
        others.append((Other(name=name, source=path.resolve(), source_sha256=network.sha256), network))
    return others


def _check_alike(network: Network, path: Path, fused: Network, source: Path) -> None:
    """Refuse a file whose branches or head are not those of the fused network."""
    pairs = {
        "parents": (_parents(network), _parents(fused)),
        "input size": (_size(network), _size(fused)),
        "classes": (str(network.head.classes), str(fused.head.classes)),
        "head": (str(network.metadata.head), str(fused.metadata.head)),
    }
    for what, (found, expected) in pairs.items():
        if found != expected:
            raise ModelError(
                f"cannot compare '{path}' with '{source}': {what} {found}, not {expected}. Fuse the same "
                "parents with the same head."
            )


def _parents(network: Network) -> str:
    return " and ".join(f"{p.name} (sha256 {p.sha256[:8]})" for p in network.metadata.parents)


def _size(network: Network) -> str:
    return "x".join(map(str, network.input_shape[1:]))
