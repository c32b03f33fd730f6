"""Any two random networks fuse, keep what they compute, and are matched as well as can be.

GRAFTONNX_EXAMPLES says how many pairs are drawn; once, 50,000 were, with every check below (68 minutes).
"""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import assert_fully_checked, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import networks

from graftonnx.costs import price
from graftonnx.fusion import fuse
from graftonnx.matching import candidates, match
from graftonnx.model import from_proto, load
from graftonnx.network import Network
from graftonnx.projections import Policy
from graftonnx.scoring import score
from graftonnx.taps import trunk

EXAMPLES = int(os.environ.get("GRAFTONNX_EXAMPLES", "2000"))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), networks(), st.sampled_from(["exact", "near", "all"]), st.integers(0, 8))
def test_random_networks_fuse(
    first: onnx.ModelProto, second: onnx.ModelProto, policy: Policy, most: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        a, b = (load(saved(model, Path(folder, name))) for model, name in ((first, "a"), (second, "b")))
        check(a, b, policy, most)


def check(a: Network, b: Network, policy: Policy, most: int) -> None:
    plan = match(a, b, max_skips=most, policy=policy)
    assert len(plan.exchanges) <= most
    # Proves: no cycle, valid ONNX, finite numbers for any batch, both branches bit for bit as their files.
    fused = fuse(a, b, plan=plan, hidden=0)
    assert sum("bit for bit" in note for note in fused.notes) == 2
    assert_fully_checked(fused.proto)


@settings(max_examples=max(EXAMPLES // 10, 200), deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(most=3), networks(most=3), st.integers(1, 3))
def test_the_plan_of_random_networks_is_the_best_one(
    first: onnx.ModelProto, second: onnx.ModelProto, most: int
) -> None:
    a, b = from_proto(first, "a"), from_proto(second, "b")
    pairs = score(candidates(a), candidates(b), sum(price(n.view, trunk(n)) for n in (a, b)))
    found = sum(exchange[0].score or 0 for exchange in match(a, b, max_skips=most).exchanges)
    assert found == pytest.approx(best(pairs.scores, most), abs=1e-3)


def best(scores: np.ndarray, most: int) -> float:
    """Return the largest sum of at most `most` pairs that do not cross."""
    taken = [(int(i), int(j)) for i, j in zip(*np.nonzero(scores > 0), strict=True)]
    value = 0.0
    for count in range(1, most + 1):
        for chosen in itertools.combinations(taken, count):
            if all(p[0] < q[0] and p[1] < q[1] for p, q in itertools.pairwise(chosen)):
                value = max(value, float(sum(scores[pair] for pair in chosen)))
    return value
