"""Sessions in ONNX Runtime: what runs, where, and the sentence when it cannot."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from simulated import FakeDriver, pretend, pretend_driver_only

from graftonnx.errors import ModelError, RuntimeProviderError
from graftonnx.metadata import Metadata, write_metadata
from graftonnx.providers import CATALOGUE, Provider, driver, nvidia
from graftonnx.providers.catalogue import Entry
from graftonnx.providers.settings import Settings
from graftonnx.runtime import blamed, open_session, with_outputs
from graftonnx.runtime.messages import sentence

IMAGES = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4) - 40


@pytest.fixture
def model() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]>
        tiny (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y, float[N, 3, 4, 4] n)
        { r = Relu(x)  y = Add(r, r)  n = Neg(r) }"""
    )


def test_outputs_come_in_the_order_asked_for(model: onnx.ModelProto) -> None:
    session = open_session(model, provider="cpu")
    n, y = session.run(IMAGES, outputs=["n", "y"])
    np.testing.assert_array_equal(y, 2 * np.maximum(IMAGES, 0))
    np.testing.assert_array_equal(n, -np.maximum(IMAGES, 0))
    np.testing.assert_array_equal(session.run(IMAGES)[0], y)


def test_an_output_that_its_operator_leaves_out_is_refused() -> None:
    """ONNX Runtime gives None for it."""
    model = onnx.parser.parse_model(
        """<ir_version: 11, opset_import: ["": 23]>
        net (float[1, 1, 2, 8] q) => (float[1, 1, 2, 8] y, float[1, 1, 2, 2] products)
        { y, , , products = Attention<qk_matmul_output_mode = -1>(q, q, q) }"""
    )
    q = np.ones((1, 1, 2, 8), np.float32)
    session = open_session(model, provider="cpu")
    assert session.run(q, outputs=["y"])[0].shape == q.shape
    with pytest.raises(ModelError, match=r"its output 'products' gets no value\. Export it again\."):
        session.run(q)


def test_a_session_says_what_it_takes_and_gives(model: onnx.ModelProto, tmp_path: Path) -> None:
    write_metadata(model, Metadata(labels=("cat", "dog")))
    onnx.save(model, tmp_path / "m.onnx")
    session = open_session(tmp_path / "m.onnx", provider="cpu")
    assert (session.name, session.provider, session.fallback) == ("m.onnx", "cpu", None)
    assert (session.input_names, session.output_names) == (("x",), ("y", "n"))
    assert session.input_shape == ("N", 3, 4, 4)
    assert session.output_shape("y") == ("N", 3, 4, 4)
    assert session.metadata.labels == ("cat", "dog")


def test_without_optimisation_every_node_computes_what_it_says() -> None:
    """0 x inf is NaN, and x - x at infinity too; an optimiser may not know."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 20]>
        g (float[N] x) => (float[N] y) <float zero = {0.0}>
        { a = Identity(x)  b = Mul(a, zero)  y = Add(b, x) }"""
    )
    (y,) = open_session(model, provider="cpu", optimise=False).run(np.array([1, np.inf], np.float32))
    np.testing.assert_array_equal(y, np.array([1, np.nan], np.float32))


@pytest.mark.parametrize(
    ("allowed", "there", "asked", "taken"), [({0, 1, 2}, 8, 0, 3), (set(range(8)), 8, 0, 0), ({0}, 8, 2, 2)]
)
def test_a_process_that_may_not_use_all_cores_does_not_take_a_thread_for_each(
    model: onnx.ModelProto,
    monkeypatch: pytest.MonkeyPatch,
    allowed: set[int],
    there: int,
    asked: int,
    taken: int,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: allowed, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: there)
    monkeypatch.setattr("sys.platform", "linux")
    options: list[ort.SessionOptions] = []
    create = ort.InferenceSession

    def spy(source: bytes, given: ort.SessionOptions, **others: object) -> ort.InferenceSession:
        options.append(given)
        return create(source, given, **others)

    monkeypatch.setattr(ort, "InferenceSession", spy)
    open_session(model, provider="cpu", threads=asked)
    assert [given.intra_op_num_threads for given in options] == [taken]


def test_named_values_become_outputs_after_the_models_own(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    wider = with_outputs(model, ["r", "y", "x", "r"])
    session = open_session(wider, provider="cpu")
    assert session.output_names == ("y", "n", "r", "x")
    r, x = session.run(IMAGES, outputs=["r", "x"])
    np.testing.assert_array_equal(r, np.maximum(IMAGES, 0))
    np.testing.assert_array_equal(x, IMAGES)
    assert model.SerializeToString() == before


def test_an_unknown_value_is_refused_with_the_nearest_name(model: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match=r"cannot output 'rr': the graph computes no such value\. .*'r'\?"):
        with_outputs(model, ["rr"])


def test_a_model_above_protobufs_limit_runs_through_a_temporary_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The limit is lowered, so that the test needs kilobytes."""
    weight = np.random.default_rng(0).standard_normal((4, 1000)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])],
        "large",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 1000])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.float32([3]), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    write_metadata(model, Metadata(labels=("a",)))
    before = model.SerializeToString()
    x = np.eye(4, dtype=np.float32)
    monkeypatch.setattr("graftonnx.weights.PROTOBUF_LIMIT", 100)
    session = open_session(model, provider="cpu")
    np.testing.assert_array_equal(session.run(x)[0], weight + np.float32(3))
    assert session.metadata.labels == ("a",)
    assert model.SerializeToString() == before


class TestRefusals:
    def test_a_missing_file(self) -> None:
        with pytest.raises(ModelError, match=r"^cannot read 'absent.onnx': there is no such file\. Give"):
            open_session(Path("absent.onnx"))

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"cannot read '.*': it is a folder\. Give the path"):
            open_session(tmp_path)

    @pytest.mark.parametrize("content", [b"hello" * 100, b""])
    def test_a_file_that_is_not_onnx(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(
            ModelError, match=r"^cannot read '.*bad.onnx': it is not an ONNX file, or it is trunc"
        ):
            open_session(tmp_path / "bad.onnx", provider="cpu")

    def test_a_model_with_an_unknown_operator(self) -> None:
        model = onnx.parser.parse_model(
            """<ir_version: 10, opset_import: ["": 20, "odd": 1]>
            g (float[N] x) => (float[N] y) { y = odd.Twist(x) }"""
        )
        with pytest.raises(ModelError, match=r"^cannot load 'g': ONNX Runtime refuses it: .*Twist"):
            open_session(model, provider="cpu")

    def test_metadata_of_a_newer_version(self, model: onnx.ModelProto) -> None:
        model.metadata_props.add(key="graftonnx.format", value="99")
        with pytest.raises(ModelError, match=r"^cannot use 'tiny': its graftonnx metadata has format '99'"):
            open_session(model, provider="cpu")

    def test_the_wrong_number_of_inputs(self, model: onnx.ModelProto) -> None:
        with pytest.raises(ModelError, match=r"^cannot run 'tiny': 2 inputs given, expected 1 \('x'\)\."):
            open_session(model, provider="cpu").run(IMAGES, IMAGES)

    @pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 4), (2, 1, 4, 4)])
    def test_an_input_of_the_wrong_shape(self, model: onnx.ModelProto, shape: tuple[int, ...]) -> None:
        with pytest.raises(ModelError) as caught:
            open_session(model, provider="cpu").run(np.zeros(shape, np.float32))
        assert caught.value.message == (
            f"cannot run 'tiny': input 'x' has shape {list(shape)}, expected [N, 3, 4, 4]. "
            "Bring it to that shape."
        )

    def test_an_input_of_the_wrong_type(self, model: onnx.ModelProto) -> None:
        with pytest.raises(ModelError, match=r"input 'x' is float64, expected float32\. Convert it with"):
            open_session(model, provider="cpu").run(IMAGES.astype(np.float64))

    def test_an_unknown_output(self, model: onnx.ModelProto) -> None:
        with pytest.raises(ModelError, match=r"cannot run 'tiny': it has no output 'z'; .* are 'y', 'n'\."):
            open_session(model, provider="cpu").run(IMAGES, outputs=["z"])

    def test_a_failure_while_running_is_one_sentence_and_nothing_on_stderr(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        model = onnx.parser.parse_model(
            """<ir_version: 10, opset_import: ["": 20]>
            g (float[N] x, float[M] y) => (float[K] z) { z = Add(x, y) }"""
        )
        session = open_session(model, provider="cpu")
        with pytest.raises(ModelError, match=r"^cannot run 'g': ONNX Runtime says: .*Add node") as caught:
            session.run(np.zeros(2, np.float32), np.zeros(3, np.float32))
        assert "\n" not in caught.value.message
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        ("graph", "reason"),
        [
            (
                "(float[n, 3] x) => (float[m, 2] y) <int64[2] s = {4, 4}> { [bad] y = Reshape (x, s) }",
                "The input tensor cannot be reshaped to the requested shape. Input shape:{2,3}, requested "
                "shape:{4,4}",
            ),
            (
                "(float[n] x, float[m] z) => (float[k] y) { [bad] y = Add (x, z) }",
                "Attempting to broadcast an axis by a dimension other than 1. 2 by 3",
            ),
            (
                "(float[2, 3] x) => (float[2, 3] y) <float[2] w = {1, 2}> { [bad] y = Add (x, w) }",
                "Incompatible dimensions",
            ),
            (
                "(float[n] x) => (float[n] y) { [bad] y = Nope (x) }",
                "No Op registered for Nope with domain_version of 20",
            ),
            (
                "(int16[n] x) => (int16[n] y) { [bad] y = Elu (x) }",
                "Type 'tensor(int16)' of input parameter (x) of operator (Elu) in node (bad) is invalid",
            ),
            (
                "(bfloat16[n] x) => (bfloat16[n] y) { [bad] y = Erf (x) }",
                "Could not find an implementation for Erf(13)",
            ),
        ],
    )
    def test_the_node_that_is_blamed_and_the_reason(self, graph: str, reason: str) -> None:
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {graph}')
        arrays = (np.zeros(2, np.float32), np.zeros(3, np.float32))
        if len(model.graph.input) == 1:
            arrays = (np.zeros((2, 3), np.float32),)
        with pytest.raises(ModelError) as caught:
            open_session(model, provider="cpu", optimise=False).run(*arrays)
        assert blamed(caught.value) == ("bad", reason)

    def test_an_error_that_names_no_node_is_its_own_reason(self) -> None:
        assert blamed(ModelError("it is no model.")) == ("", "it is no model")

    def test_a_provider_that_does_not_exist(self, model: onnx.ModelProto) -> None:
        with pytest.raises(ValueError, match="expected one of auto, cpu, cuda"):
            open_session(model, provider="gpu")  # type: ignore[arg-type]


def refusal(model: onnx.ModelProto) -> str:
    """Ask for CUDA and return the sentence that comes back, within the two seconds promised."""
    start = time.perf_counter()
    with pytest.raises(RuntimeProviderError) as caught:
        open_session(model, provider="cuda")
    assert time.perf_counter() - start < 2
    return caught.value.message


class TestCuda:
    def test_without_a_driver_the_driver_is_named(
        self, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        pretend(monkeypatch, None)
        assert refusal(model) == (
            f"cannot run 'tiny' on CUDA: the NVIDIA driver is missing ({nvidia.DRIVER} cannot be "
            "loaded). Install the driver; in a container, start it with GPU access (docker run --gpus all). "
            "Or choose the provider 'cpu'."
        )
        assert capfd.readouterr() == ("", "")

    def test_a_driver_too_old_is_named_with_both_versions(
        self, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pretend(monkeypatch, FakeDriver(version=11040))
        assert (
            f"the NVIDIA driver supports CUDA 11, this onnxruntime-gpu is built for CUDA {ort.cuda_version}. "
            "Upgrade the driver, or install an onnxruntime-gpu for CUDA 11."
        ) in refusal(model)

    @pytest.mark.parametrize("driver", [FakeDriver(status=100), FakeDriver(devices=0)])
    def test_a_driver_without_a_gpu(
        self, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, driver: FakeDriver
    ) -> None:
        pretend(monkeypatch, driver)
        assert "the NVIDIA driver finds no usable GPU (CUDA error 100). Check nvidia-smi" in refusal(model)

    @pytest.mark.skipif(driver() is not None, reason="an NVIDIA driver is here: CUDA may work")
    def test_missing_libraries_are_named_and_onnx_runtime_is_silent(
        self, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """A driver is simulated; the CUDA libraries are truly absent, and ONNX Runtime would use the CPU."""
        pretend_driver_only(monkeypatch)
        message = refusal(model)
        assert "libcublas" in message
        assert f"cannot be loaded (this onnxruntime-gpu is built for CUDA {ort.cuda_version})" in message
        assert 'pip install "onnxruntime-gpu[cuda,cudnn]"' in message
        assert capfd.readouterr() == ("", "")

    @pytest.mark.skipif(driver() is not None, reason="an NVIDIA driver is here: CUDA may work")
    def test_auto_runs_on_the_cpu_and_remembers_why(
        self, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        pretend_driver_only(monkeypatch)
        session = open_session(model, provider="auto")
        assert session.provider == "cpu"
        assert session.fallback is not None
        assert "libcublas" in session.fallback
        np.testing.assert_array_equal(session.run(IMAGES)[0], 2 * np.maximum(IMAGES, 0))
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("provider", ["auto", "cpu"])
    def test_a_machine_without_a_gpu_has_nothing_to_remember(
        self, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, provider: Provider
    ) -> None:
        pretend(monkeypatch, None)
        session = open_session(model, provider=provider)
        assert (session.provider, session.fallback) == ("cpu", None)


class TestSettings:
    @pytest.fixture
    def openvino(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The CPU plays the part of OpenVINO."""
        monkeypatch.setitem(CATALOGUE, "openvino", Entry("OpenVINO", "CPUExecutionProvider"))
        monkeypatch.setattr("graftonnx.runtime.opening.obstacle", lambda provider: None)
        monkeypatch.setattr("graftonnx.runtime.opening.chain", lambda *wish: [("CPUExecutionProvider", {})])

    @pytest.mark.usefixtures("openvino")
    def test_the_folder_of_compiled_files_is_made(self, model: onnx.ModelProto, tmp_path: Path) -> None:
        settings = Settings(cache=tmp_path / "new" / "cache")
        assert open_session(model, provider="openvino", settings=settings).provider == "openvino"
        assert (tmp_path / "new" / "cache").is_dir()

    @pytest.mark.usefixtures("openvino")
    def test_a_folder_that_cannot_be_made(self, model: onnx.ModelProto, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(RuntimeProviderError) as caught:
            open_session(model, provider="openvino", settings=Settings(cache=tmp_path / "file"))
        assert caught.value.message == (
            f"cannot run 'tiny': no compiled files can be kept in '{tmp_path / 'file'}': File exists. Choose "
            "another --cache."
        )

    def test_a_name_with_a_dot_configures_the_session(self, model: onnx.ModelProto) -> None:
        """ONNX Runtime refuses this entry on the CPU, so it has arrived."""
        settings = Settings(options={"session.disable_cpu_ep_fallback": "1"})
        with pytest.raises(ModelError, match="disabled fallback to the CPU EP via session configuration"):
            open_session(model, provider="cpu", settings=settings)

    def test_an_option_that_the_cpu_does_not_have(self, model: onnx.ModelProto) -> None:
        with pytest.raises(RuntimeProviderError) as caught:
            open_session(model, provider="cpu", settings=Settings(options={"use_tf32": "1"}))
        assert caught.value.message == (
            "cannot run 'tiny': the provider 'cpu' has no option 'use_tf32'. Leave it out, or name the "
            "provider that has it."
        )

    def test_an_option_for_a_gpu_is_not_dropped_where_auto_finds_none(
        self, model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pretend(monkeypatch, None)
        with pytest.raises(RuntimeProviderError, match="the provider 'cpu' has no option 'use_tf32'"):
            open_session(model, provider="auto", settings=Settings(options={"use_tf32": "1"}))


def test_importing_the_package_does_not_import_onnx_runtime() -> None:
    code = "import sys, graftonnx.cli; print('onnxruntime' in sys.modules, 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            "/a/onnxruntime/core/upsamplebase.h:370 onnxruntime::UpsampleMode onnxruntime::UpsampleBase::"
            "StringToUpsampleMode(const std::string&) mode attribute is X. It can only be linear (or cubic).",
            "mode attribute is X. It can only be linear (or cubic).",
        ),
        (
            "/a/onnxruntime/text/string_normalizer.cc:235 onnxruntime::StringNormalizer::Locale::Locale("
            "const std::string&)::<lambda()> Failed to construct locale",
            "Failed to construct locale.",
        ),
        (
            "/a/onnxruntime/x.cc:1 void onnxruntime::F<T>::operator()(int (*)(T), U) [with T = int] bad",
            "bad.",
        ),
    ],
)
def test_what_onnx_runtime_says_is_told_without_its_source(said: str, shown: str) -> None:
    text = f"Exception during initialization: {said}"
    assert sentence(RuntimeError(text)) == f"Exception during initialization: {shown}"
