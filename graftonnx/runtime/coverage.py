"""Which nodes of a network run where: ONNX Runtime leaves to the CPU what a provider cannot do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graftonnx.errors import RuntimeProviderError
from graftonnx.providers import CATALOGUE, Provider
from graftonnx.providers.catalogue import title

RECORD = "session.record_ep_graph_assignment_info"
"""The session entry that makes ONNX Runtime remember where it put each node."""


@dataclass(frozen=True)
class Coverage:
    """Where the nodes of a session run.

    Attributes:
        provider: The provider that was asked for.
        operators: For each provider, by ONNX Runtime's name, how many nodes of each operator it runs. Nodes
            are counted as they are when providers choose them: constants are folded, nodes that a provider
            merges afterwards still count one by one.
    """

    provider: Provider
    operators: Mapping[str, Mapping[str, int]]

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return sum(sum(counts.values()) for counts in self.operators.values())

    @property
    def covered(self) -> int:
        """The number of nodes that run on the provider."""
        return sum(self.operators.get(CATALOGUE[self.provider].name, {}).values())

    @property
    def share(self) -> float:
        """The share of nodes that run on the provider, 0..1; 1 for a network without nodes."""
        return self.covered / self.nodes if self.nodes else 1.0

    def __str__(self) -> str:
        """Return `228 of 231 nodes on CUDA; on CPU: Resize x 2, Shape`."""
        parts = [f"{self.covered} of {self.nodes} nodes on {CATALOGUE[self.provider].title}"]
        for name, counts in self.operators.items():
            if name == CATALOGUE[self.provider].name:
                continue
            ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            listed = ", ".join(f"{op} x {count}" if count > 1 else op for op, count in ranked)
            parts.append(f"on {title(name)}: {listed}")
        return "; ".join(parts)

    def require(self, share: float, name: str) -> None:
        """Refuse a session that runs too little on its provider.

        Args:
            share: The least share of nodes, 0..1.
            name: The network's, for the message.

        Raises:
            RuntimeProviderError: If fewer nodes run on the provider.
        """
        if self.share < share:
            raise RuntimeProviderError(
                f"cannot run '{name}' on {CATALOGUE[self.provider].title}: {self}; {share:.1%} of them are "
                f"required, {self.share:.1%} are there. Lower --min-coverage, or replace these operators."
            )


def coverage(inner: Any, provider: Provider) -> Coverage:
    """Return where the nodes of a session run.

    Args:
        inner: ONNX Runtime's session, opened with the entry `RECORD`.
        provider: The provider that was asked for.
    """
    operators: dict[str, Counter[str]] = {}
    for subgraph in inner.get_provider_graph_assignment_info():
        counts = operators.setdefault(subgraph.ep_name, Counter())
        counts.update(node.op_type for node in subgraph.get_nodes())
    return Coverage(provider, operators)
