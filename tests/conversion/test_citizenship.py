"""A converted module is a PyTorch module like any other: compiled, exported, copied, cast."""

from __future__ import annotations

import copy
import gc
import io
import linecache
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conversion.small_models import model, random
from torch import fx, nn

from graftonnx.conversion import to_torch, write_back
from graftonnx.runtime import open_session

RESHAPING = model(
    "h = Conv<pads=[1,1,1,1]>(x, w, c) i = Relu(h) n = Shape(i) b = Gather<axis=0>(n, zero)"
    " u = Unsqueeze(b, zeros) t = Concat<axis=0>(u, minus) j = Reshape(i, t) y = MatMul(j, m)",
    {
        "w": random(4, 3, 3, 3),
        "c": random(4),
        "m": random(256, 5),
        "zero": np.array(0, np.int64),
        "zeros": np.array([0], np.int64),
        "minus": np.array([-1], np.int64),
    },
)
"""Takes its batch from Shape, as exporters write `x.view(x.size(0), -1)`."""

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
"""Other kernels sum float32 in another order."""


@pytest.fixture
def module() -> fx.GraphModule:
    return to_torch(RESHAPING)


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.from_numpy(random(5, 3, 8, 8, seed=1))


def test_torch_export_keeps_the_batch_free(module: fx.GraphModule, batch: torch.Tensor) -> None:
    program = torch.export.export(module, (batch[:2],), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.testing.assert_close(program.module()(batch), module(batch), **TOLERANCE)


def test_dynamo_takes_the_whole_graph(module: fx.GraphModule, batch: torch.Tensor) -> None:
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    torch.testing.assert_close(compiled(batch), module(batch), **TOLERANCE)


@pytest.mark.slow
def test_the_onnx_exporter_takes_it(module: fx.GraphModule, batch: torch.Tensor, tmp_path: Path) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            module, (batch[:2],), dynamo=True, dynamic_shapes=({0: torch.export.Dim("n")},), verbose=False
        )
    assert program is not None
    program.save(str(tmp_path / "again.onnx"))
    (found,) = open_session(tmp_path / "again.onnx", provider="cpu").run(batch.numpy())
    torch.testing.assert_close(torch.from_numpy(found), module(batch).detach(), **TOLERANCE)


def test_a_pickled_module_writes_itself_back(module: fx.GraphModule, batch: torch.Tensor) -> None:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert torch.equal(again(batch), module(batch))
    assert again.code == module.code
    assert write_back(again).SerializeToString() == RESHAPING.SerializeToString()


def test_state_loads_into_a_copy(module: fx.GraphModule, batch: torch.Tensor) -> None:
    twin = copy.deepcopy(module)
    for parameter in twin.parameters():
        nn.init.zeros_(parameter)
    twin.load_state_dict(dict(module.state_dict()))
    assert torch.equal(twin(batch), module(batch))


def test_channels_last_gives_the_same_numbers(module: fx.GraphModule, batch: torch.Tensor) -> None:
    expected = module(batch)
    found = module.to(memory_format=torch.channels_last)(batch.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, **TOLERANCE)
    assert write_back(module).SerializeToString() == RESHAPING.SerializeToString()


def test_autocast_to_bfloat16_trains(module: fx.GraphModule, batch: torch.Tensor) -> None:
    expected = module(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = module.train()(batch)
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.3)  # bfloat16 has three digits
    found.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())


def test_double_precision_weights_come_back_in_the_type_of_the_file(module: fx.GraphModule) -> None:
    written = write_back(module.double())
    assert written.SerializeToString() == RESHAPING.SerializeToString()
    onnx.checker.check_model(written)


def test_what_is_no_more_leaves_no_source_behind() -> None:
    module = to_torch(model("y = Relu (x)"))
    files = [type(module).forward.__code__.co_filename]
    module.recompile()
    twin = copy.deepcopy(module)
    files += [type(copied).forward.__code__.co_filename for copied in (module, twin)]
    assert len(set(files)) == 3
    assert all("relu" in "".join(linecache.getlines(file)) for file in files)
    assert torch.equal(twin(-torch.ones(1, 3, 8, 8)), torch.zeros(1, 3, 8, 8))
    del module, twin
    gc.collect()
    assert [file for file in files if file in linecache.cache or linecache.getlines(file)] == []
