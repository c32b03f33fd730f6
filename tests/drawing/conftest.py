"""Two small networks, a plan for them, their fused file, and a run of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import plain_cnn, residual_cnn
from training.fused import save_images

from graftonnx.fusion import fuse
from graftonnx.matching import match
from graftonnx.model import from_proto, save
from graftonnx.network import Network
from graftonnx.plan import Plan, write_plan
from graftonnx.training import TrainConfig, train

CONFIG = TrainConfig(
    epochs=1, batch_size=8, augment="none", precision="fp32", layout="contiguous", device="cpu", workers=1
)


@pytest.fixture(scope="session")
def parents() -> tuple[Network, Network]:
    return (
        from_proto(residual_cnn(depth=3), "a.onnx"),
        from_proto(plain_cnn((8, 16, 32), seed=1), "b.onnx"),
    )


@pytest.fixture(scope="session")
def plan(parents: tuple[Network, Network]) -> Plan:
    return match(*parents)


@pytest.fixture(scope="session")
def fused(parents: tuple[Network, Network], plan: Plan) -> Network:
    return fuse(*parents, plan=plan, classes=2, prove=False)


@pytest.fixture(scope="session")
def work(
    parents: tuple[Network, Network], plan: Plan, fused: Network, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with `a.onnx`, `b.onnx`, `plan.yaml`, `fused.onnx` and a finished `run`; not to be changed."""
    folder = tmp_path_factory.mktemp("drawing")
    for network in parents:
        save(network, folder / network.name)
    write_plan(plan, folder / "plan.yaml")
    save(fused, folder / "fused.onnx")
    train(folder / "fused.onnx", save_images(folder / "images"), folder / "run", CONFIG)
    return folder
