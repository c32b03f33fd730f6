"""Sessions with buffers of their own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from graftonnx.errors import ModelError
from graftonnx.providers.obstacles import obstacle
from graftonnx.providers.settings import Settings
from graftonnx.runtime import open_session

IMAGES = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4) - 40


@pytest.fixture
def model() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]>
        tiny (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y, float[N, 3, 4, 4] n)
        { r = Relu(x)  y = Add(r, r)  n = Neg(r) }"""
    )


def test_a_binding_computes_what_the_session_does_in_its_own_buffers(model: onnx.ModelProto) -> None:
    session = open_session(model, provider="cpu")
    binding = session.bind(np.zeros_like(IMAGES))
    first = binding.run(IMAGES)
    for found, expected in zip(first, session.run(IMAGES), strict=True):
        np.testing.assert_array_equal(found, expected)
    second = binding.run(-IMAGES)
    np.testing.assert_array_equal(second[0], session.run(-IMAGES)[0])
    assert second[0] is first[0]


def test_computing_takes_what_was_written_last(model: onnx.ModelProto) -> None:
    binding = open_session(model, provider="cpu").bind(IMAGES)
    binding.compute()
    np.testing.assert_array_equal(binding.read()[0], 2 * np.maximum(IMAGES, 0))
    binding.write(IMAGES + 1)
    binding.compute()
    np.testing.assert_array_equal(binding.read()[0], 2 * np.maximum(IMAGES + 1, 0))


def test_threads_have_bindings_of_their_own(model: onnx.ModelProto) -> None:
    session = open_session(model, provider="cpu", threads=1)
    batches = [IMAGES + k for k in range(4)]

    def work(batch: np.ndarray) -> bool:
        binding = session.bind(batch)
        expected = 2 * np.maximum(batch, 0)
        return all(np.array_equal(binding.run(batch)[0], expected) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, batches))


@pytest.mark.parametrize(
    ("array", "found"),
    [(IMAGES[:1], "float32 [1, 3, 4, 4]"), (IMAGES.astype(np.float64), "float64 [2, 3, 4, 4]")],
)
def test_another_shape_or_type_is_refused(model: onnx.ModelProto, array: np.ndarray, found: str) -> None:
    binding = open_session(model, provider="cpu").bind(IMAGES)
    with pytest.raises(ModelError) as caught:
        binding.run(array)
    assert caught.value.message == (
        f"cannot run 'tiny': inputs {found} were given to buffers made for float32 [2, 3, 4, 4]. Bind "
        "the session anew for other shapes."
    )


@pytest.mark.gpu
@pytest.mark.skipif(obstacle("cuda") is not None, reason="no usable CUDA device")
class TestOnAGpu:
    def test_what_was_asked_is_what_runs(self, model: onnx.ModelProto) -> None:
        session = open_session(model, provider="cuda")
        assert session.provider == "cuda"
        assert session.provider_options["use_tf32"] == "0"
        assert session.coverage.share == 1
        np.testing.assert_array_equal(session.run(IMAGES)[0], 2 * np.maximum(IMAGES, 0))

    def test_a_real_network_gives_the_numbers_of_the_cpu(self) -> None:
        path = Path(__file__).parent.parent / "models" / "squeezenet-cifar100.onnx"
        gpu, cpu = (open_session(path, provider=provider) for provider in ("cuda", "cpu"))
        images = np.random.default_rng(0).random((8, *cpu.input_shape[1:]), np.float32)
        np.testing.assert_allclose(gpu.run(images)[0], cpu.run(images)[0], rtol=1e-3, atol=1e-3)
        assert gpu.coverage.share == 1

    @pytest.mark.skipif(obstacle("tensorrt") is not None, reason="no usable TensorRT")
    def test_tensorrt_keeps_its_engine(self, model: onnx.ModelProto, tmp_path: Path) -> None:
        settings = Settings(cache=tmp_path / "cache", batches=(1, 2))
        session = open_session(model, provider="tensorrt", settings=settings)
        np.testing.assert_array_equal(session.run(IMAGES)[0], 2 * np.maximum(IMAGES, 0))
        assert list((tmp_path / "cache").glob("*.engine"))

    @pytest.mark.parametrize("cuda_graph", [False, True])
    def test_bound_buffers_and_graphs_of_two_batch_sizes(
        self, model: onnx.ModelProto, cuda_graph: bool
    ) -> None:
        session = open_session(model, provider="cuda", settings=Settings(cuda_graph=cuda_graph))
        bindings = [session.bind(IMAGES), session.bind(IMAGES[:1])]
        for shift in range(5):
            for binding, images in zip(bindings, (IMAGES + shift, IMAGES[:1] - shift), strict=True):
                np.testing.assert_array_equal(binding.run(images)[0], 2 * np.maximum(images, 0))
