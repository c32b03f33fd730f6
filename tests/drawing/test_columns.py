"""A branch as a column of blocks."""

from __future__ import annotations

import onnx
import pytest
from builders import fire_cnn, plain_cnn, residual_cnn
from hypothesis import given, settings
from random_networks import networks

from graftonnx.costs import macs, parameters
from graftonnx.drawing.columns import Block, find_blocks
from graftonnx.model import from_proto
from graftonnx.taps import find_taps, trunk


def blocks_of(model: onnx.ModelProto) -> tuple[Block, ...]:
    network = from_proto(model, "net.onnx")
    return find_blocks(network.view, trunk(network), [tap.name for tap in find_taps(network)])


def test_a_block_holds_what_leads_to_its_tap_and_to_none_before() -> None:
    blocks = blocks_of(residual_cnn(depth=1))
    assert [block.tap for block in blocks] == ["stem", "s0.inner", "s0"]
    assert [[operator.value for operator in block.operators] for block in blocks] == [
        ["stem.conv", "stem"],
        ["s0.inner.conv", "s0.inner"],
        ["s0.second", "s0.sum", "s0"],
    ]
    assert [block.before for block in blocks] == [(), (0,), (0, 1)]
    assert blocks[2].shape == (None, 8, 16, 16)


def test_parallel_blocks_read_the_same_one() -> None:
    blocks = {block.tap: block for block in blocks_of(fire_cnn())}
    assert next(iter(blocks)) == "stem"
    assert blocks["left"].before == blocks["right"].before == (0,)
    assert set(blocks["joined"].before) == {1, 2}


@given(networks())
@settings(max_examples=25, deadline=None)
def test_blocks_part_the_trunk_and_read_only_earlier_ones(model: onnx.ModelProto) -> None:
    network = from_proto(model, "net.onnx")
    positions = trunk(network)
    blocks = blocks_of(model)
    values = [operator.value for block in blocks for operator in block.operators]
    assert sorted(values) == sorted(network.view.made[position][0] for position in positions)
    assert all(before < index for index, block in enumerate(blocks) for before in block.before)
    assert all(block.operators[-1].value == block.tap for block in blocks)
    assert sum(block.macs for block in blocks) == macs(network.view, positions)
    assert sum(block.parameters for block in blocks) == parameters(network.view, positions)


def test_what_the_outside_reads_ends_a_block() -> None:
    network = from_proto(residual_cnn(depth=1), "net.onnx")
    positions = [p for p in trunk(network) if network.view.made[p][0] != "s0.second"]
    blocks = find_blocks(network.view, positions, [])
    assert "s0.inner" in {block.tap for block in blocks}


def test_what_none_reads_ends_a_block() -> None:
    network = from_proto(residual_cnn(depth=2), "net.onnx")
    view = network.view
    positions = [p for p in trunk(network) if view.made[p][0] in {"s0.inner.conv", "s1.second"}]
    blocks = find_blocks(view, positions, [])
    assert [block.tap for block in blocks] == ["s0.inner.conv", "s1.second"]


@pytest.mark.parametrize(("stride", "expected"), [(1, "3\u00d73"), (2, "3\u00d73 /2")])
def test_windows_are_spelled(stride: int, expected: str) -> None:
    blocks = blocks_of(plain_cnn((4, 8), strides=(1, stride)))
    assert blocks[1].operators[0].about == expected
