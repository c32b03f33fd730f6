"""Which nodes run where, and sessions that are not where they were asked to be."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest

from graftonnx.errors import RuntimeProviderError
from graftonnx.providers import CATALOGUE
from graftonnx.providers.catalogue import Entry
from graftonnx.providers.obstacles import obstacle
from graftonnx.runtime import Coverage, open_session


@pytest.fixture
def model() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]>
        tiny (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y, float[N, 3, 4, 4] n)
        { r = Relu(x)  y = Add(r, r)  n = Neg(r) }"""
    )


def test_a_session_says_which_nodes_run_where(model: onnx.ModelProto) -> None:
    coverage = open_session(model, provider="cpu").coverage
    assert str(coverage) == "3 of 3 nodes on CPU"
    assert coverage.operators == {"CPUExecutionProvider": {"Relu": 1, "Add": 1, "Neg": 1}}
    coverage.require(1.0, "tiny")


def test_what_is_left_to_others_is_listed() -> None:
    coverage = Coverage(
        "tensorrt",
        {
            "CPUExecutionProvider": {"Shape": 1, "Resize": 2},
            "TensorrtExecutionProvider": {"Conv": 200, "Relu": 27},
            "CUDAExecutionProvider": {"Gather": 1},
        },
    )
    assert str(coverage) == "227 of 231 nodes on TensorRT; on CPU: Resize x 2, Shape; on CUDA: Gather"
    coverage.require(0.98, "m.onnx")
    with pytest.raises(RuntimeProviderError) as caught:
        coverage.require(0.99, "m.onnx")
    assert caught.value.message == (
        "cannot run 'm.onnx' on TensorRT: 227 of 231 nodes on TensorRT; on CPU: Resize x 2, Shape; on "
        "CUDA: Gather; 99.0% of them are required, 98.3% are there. Lower --min-coverage, or replace "
        "these operators."
    )


def test_a_session_that_fell_back_without_a_word_is_refused(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No obstacle is seen beforehand, and ONNX Runtime then opens the session on the CPU."""
    if obstacle("cuda") is None:
        pytest.skip("CUDA works here")
    monkeypatch.setattr("graftonnx.runtime.opening.obstacle", lambda provider: None)
    with pytest.raises(RuntimeProviderError, match=r"ONNX Runtime could not load its CUDA provider\. Run"):
        open_session(model, provider="cuda")
    with pytest.raises(RuntimeProviderError, match="cannot run 'tiny' on TensorRT: ONNX Runtime says: "):
        open_session(model, provider="tensorrt")
    assert capfd.readouterr() == ("", "")


def test_a_provider_that_takes_no_node_is_refused(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = Coverage("openvino", {"CPUExecutionProvider": {"Relu": 3}})
    monkeypatch.setitem(CATALOGUE, "openvino", Entry("OpenVINO", "CPUExecutionProvider"))
    monkeypatch.setattr(Coverage, "covered", 0)
    monkeypatch.setattr("graftonnx.runtime.opening.obstacle", lambda provider: None)
    monkeypatch.setattr("graftonnx.runtime.opening.chain", lambda *wish: [("CPUExecutionProvider", {})])
    monkeypatch.setattr("graftonnx.runtime.opening.coverage", lambda inner, provider: idle)
    with pytest.raises(RuntimeProviderError, match="on OpenVINO: it takes none of the network's 3 nodes"):
        open_session(model, provider="openvino")
