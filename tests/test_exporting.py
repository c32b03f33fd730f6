"""The deployable file: lighter, labelled, the same numbers, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import plain_cnn, residual_cnn
from lookalikes import COLOURS, colour_network, fused_metadata, model, two_branches

import graftonnx
from graftonnx.blocks import SkipInit
from graftonnx.classifier import softmax
from graftonnx.errors import DataError, GraftError, ModelError, ParityError
from graftonnx.exporting import draft, export
from graftonnx.folding import Folded
from graftonnx.fusion import fuse
from graftonnx.metadata import InputConvention, Metadata, Preprocess, read_metadata
from graftonnx.model import from_proto
from graftonnx.reading import read_labels
from graftonnx.runtime import open_session
from graftonnx.weights import Weights

X = np.random.default_rng(5).random((3, 3, 12, 12), dtype=np.float32)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run folder whose network exchanges nothing."""
    (tmp_path / "run").mkdir()
    onnx.save(two_branches(), tmp_path / "run" / "model.onnx")
    return tmp_path / "run"


def save(proto: onnx.ModelProto, path: Path) -> Path:
    onnx.save(proto, path)
    return path


def test_a_run_folder_becomes_one_lighter_file_with_probabilities(trained: Path, tmp_path: Path) -> None:
    written = export(trained, tmp_path / "deploy.onnx")
    assert written.folded == Folded(identities=1, scales=1, preprocessing=4, skips=2)
    assert (written.nodes_before, written.nodes) == (24, 14)
    assert (written.output, written.labels) == ("probabilities", 4)
    assert written.bytes == (tmp_path / "deploy.onnx").stat().st_size < written.bytes_before
    assert written.difference <= written.tolerance == 1e-4
    (logits,) = open_session(trained / "model.onnx", provider="cpu").run(X)
    (found,) = open_session(tmp_path / "deploy.onnx", provider="cpu").run(X)
    # float32 rounding of softmax and of the folded weights
    np.testing.assert_allclose(found, softmax(logits), rtol=1e-4, atol=1e-6)


def test_the_file_says_what_it_is(trained: Path, tmp_path: Path) -> None:
    export(trained, tmp_path / "deploy.onnx")
    proto = onnx.load(tmp_path / "deploy.onnx")
    before = fused_metadata(4)
    assert read_metadata(proto) == before.model_copy(update={"activation": "softmax"})
    assert proto.producer_name == "graftonnx"
    assert [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == [
        "batch", 3, 12, 12,
    ]  # fmt: skip
    assert [d.dim_param or d.dim_value for d in proto.graph.output[0].type.tensor_type.shape.dim] == [
        "batch", 4,
    ]  # fmt: skip


def test_what_the_makers_left_in_the_nodes_does_not_leave_the_house(trained: Path, tmp_path: Path) -> None:
    assert b"/home/somebody" in (trained / "model.onnx").read_bytes()
    export(trained, tmp_path / "deploy.onnx")
    assert b"/home/somebody" not in (tmp_path / "deploy.onnx").read_bytes()


def test_the_logits_stay_without_softmax(trained: Path, tmp_path: Path) -> None:
    written = export(trained, tmp_path / "deploy.onnx", with_softmax=False)
    assert written.output == "logits"
    assert read_metadata(onnx.load(tmp_path / "deploy.onnx")).activation is None
    (expected,) = open_session(trained / "model.onnx", provider="cpu").run(X)
    (found,) = open_session(tmp_path / "deploy.onnx", provider="cpu").run(X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # float32 rounding of folded weights


@pytest.mark.parametrize(("skip_init", "skips"), [("zero", 4), ("paper", 0)])
def test_a_fused_network_loses_exactly_the_skips_that_stayed_zero(
    tmp_path: Path, skip_init: SkipInit, skips: int
) -> None:
    a = from_proto(residual_cnn(depth=3), "a.onnx", preprocess="imagenet")
    b = from_proto(plain_cnn((8, 16, 32), seed=1), "b.onnx", preprocess="caffe")
    fused = fuse(a, b, labels=("ant", "bee", "cat"), max_skips=2, skip_init=skip_init)
    graftonnx.save(fused, tmp_path / "fused.onnx")
    written = export(tmp_path / "fused.onnx", tmp_path / "deploy.onnx")
    assert (written.folded.skips, written.labels) == (skips, 3)
    operators = [node.op_type for node in onnx.load(tmp_path / "deploy.onnx").graph.node]
    assert not {"BatchNormalization", "Dropout", "Identity"} & set(operators)
    x = np.random.default_rng(3).random((2, 3, 16, 16), dtype=np.float32)
    (logits,) = open_session(fused.proto, provider="cpu", optimise=False).run(x)
    (found,) = open_session(tmp_path / "deploy.onnx", provider="cpu").run(x)
    # float32 rounding of softmax and of the folded weights
    np.testing.assert_allclose(found, softmax(logits), rtol=1e-4, atol=1e-6)


def test_skips_that_learned_something_stay(tmp_path: Path) -> None:
    source = save(two_branches(skip=0.5), tmp_path / "model.onnx")
    assert export(source, tmp_path / "deploy.onnx").folded.skips == 0


def test_equal_input_gives_equal_bytes(trained: Path, tmp_path: Path) -> None:
    export(trained, tmp_path / "one.onnx")
    export(trained, tmp_path / "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_an_exported_file_exported_again_stays_as_it_is(trained: Path, tmp_path: Path) -> None:
    export(trained, tmp_path / "one.onnx")
    written = export(tmp_path / "one.onnx", tmp_path / "two.onnx")
    assert written.folded == Folded()
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_a_softmax_inside_is_taken_off_on_request(trained: Path, tmp_path: Path) -> None:
    export(trained, tmp_path / "one.onnx")
    export(tmp_path / "one.onnx", tmp_path / "logits.onnx", with_softmax=False)
    export(trained, tmp_path / "expected.onnx", with_softmax=False)
    (found,) = open_session(tmp_path / "logits.onnx", provider="cpu").run(X)
    (expected,) = open_session(tmp_path / "expected.onnx", provider="cpu").run(X)
    np.testing.assert_array_equal(found, expected)


def test_labels_given_replace_those_inside(trained: Path, tmp_path: Path) -> None:
    export(trained, tmp_path / "deploy.onnx", labels=("ant", "bee", "cat", "dog"))
    assert read_metadata(onnx.load(tmp_path / "deploy.onnx")).labels == ("ant", "bee", "cat", "dog")


def test_a_classifier_of_another_maker_is_exported_with_its_preprocessing_given(tmp_path: Path) -> None:
    """Opset 9, batch fixed at 1, its own softmax, [N, K, 1, 1] output."""
    proto = onnx.parser.parse_model(
        """<ir_version: 4, opset_import: ["": 9]>
        old (float[1, 3, 6, 6] data) => (float[1, 5, 1, 1] prob)
        { c = Conv(data, w)  r = Relu(c)  d = Conv(r, v)  p = GlobalAveragePool(d)
          prob = Softmax<axis = 1>(p) }"""
    )
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 3, 3, 3)), ("v", (5, 4, 1, 1))):
        weight = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    source = save(proto, tmp_path / "old.onnx")
    written = export(source, tmp_path / "deploy.onnx", preprocess="imagenet")
    assert written.output == "probabilities"
    metadata = read_metadata(onnx.load(tmp_path / "deploy.onnx"))
    assert metadata.input is not None
    assert metadata.input.preprocess.mean == (0.485, 0.456, 0.406)
    (found,) = open_session(tmp_path / "deploy.onnx", provider="cpu").run(X[:, :, :6, :6].copy())
    assert found.shape == (3, 5)


class TestReadLabels:
    def test_one_name_a_line(self, tmp_path: Path) -> None:
        (tmp_path / "labels.txt").write_bytes("\ufeffKäfer\r\n two words \r\n\r\n".encode())
        assert read_labels(tmp_path / "labels.txt") == ("Käfer", "two words")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", r"cannot read labels from '.*labels.txt': it is empty\. Give one name a line\."),
            (b"a\n\nb\n", r"line 2 is empty\. Give one name a line\."),
            (b"a\nb\na\n", r"'a' stands in lines 1 and 3\. Give each class a name of its own\."),
            (b"\xff\xfe\xfa", r"it is not UTF-8 text\."),
        ],
    )
    def test_a_file_that_does_not_name_classes(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "labels.txt").write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_labels(tmp_path / "labels.txt")

    def test_a_missing_file(self) -> None:
        with pytest.raises(DataError, match=r"cannot read labels from 'absent': No such file"):
            read_labels(Path("absent"))


class TestRefusals:
    """Nothing is written."""

    @pytest.fixture(autouse=True)
    def _nothing_is_written(self, tmp_path: Path) -> Iterator[None]:
        yield
        assert not list(tmp_path.glob("*deploy*"))

    def test_a_source_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"cannot read 'absent': there is no such file or run folder\."):
            export(Path("absent"), tmp_path / "deploy.onnx")

    def test_a_folder_that_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"the folder holds no 'model.onnx'\. Give the folder of a fin"):
            export(tmp_path, tmp_path / "deploy.onnx")

    def test_a_file_that_is_not_onnx(self, tmp_path: Path) -> None:
        (tmp_path / "a.onnx").write_bytes(b"no model " * 9)
        with pytest.raises(
            ModelError, match=r"cannot read '.*a.onnx': it is not an ONNX file, or it is trun"
        ):
            export(tmp_path / "a.onnx", tmp_path / "deploy.onnx")

    def test_a_file_that_does_not_say_what_its_input_expects(self, tmp_path: Path) -> None:
        source = save(plain_cnn((4, 8)), tmp_path / "a.onnx")
        with pytest.raises(
            ModelError,
            match=r"cannot use '.*a.onnx': it does not say how its input is to be preprocessed\. "
            r"Give --preprocess, one of imagenet, inception, caffe, unit, raw, or numbers; "
            r"from the file alone it is guessed 'imagenet': made by an unknown exporter\.",
        ):
            export(source, tmp_path / "deploy.onnx")

    def test_a_preprocessing_that_contradicts_the_file(self, trained: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"differently from what was given\. Leave --preprocess out\."):
            export(trained, tmp_path / "deploy.onnx", preprocess="imagenet")

    def test_labels_of_another_number(self, trained: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"2 labels given, it has 4 classes\. Give one each class\."):
            export(trained, tmp_path / "deploy.onnx", labels=("a", "b"))

    def test_a_missing_target_folder(self, trained: Path, tmp_path: Path) -> None:
        with pytest.raises(GraftError, match=r"the folder '.*absent' does not exist\. Create it first\."):
            export(trained, tmp_path / "absent" / "deploy.onnx")

    def test_a_network_that_diverged(self, tmp_path: Path) -> None:
        proto = model(
            """g (float[batch, 3, 8, 8] input) => (float[batch, 3] logits)
            { p = GlobalAveragePool(input) f = Flatten(p) logits = Mul(f, w) }""",
            {"w": np.float32(np.inf)},
            Metadata(input=InputConvention()),
        )
        with pytest.raises(ModelError, match=r"it gives numbers that are not finite for random images\."):
            export(save(proto, tmp_path / "a.onnx"), tmp_path / "deploy.onnx")

    def test_an_output_that_is_no_class_vector(self, tmp_path: Path) -> None:
        proto = model(
            "g (float[batch, 3, 8, 8] input) => (float[batch, 3, 8, 8] y) { y = Relu(input) }",
            {},
            Metadata(input=InputConvention()),
        )
        with pytest.raises(
            ModelError,
            match=r"cannot export '.*a.onnx': its output 'y' is \[N, 3, 8, 8\]; expected one number each cl",
        ):
            export(save(proto, tmp_path / "a.onnx"), tmp_path / "deploy.onnx")

    def test_a_fold_that_changes_the_numbers(
        self, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A broken folding is put in place of ours: it forgets one channel of one bias."""

        def broken(
            skeleton: onnx.ModelProto, weights: Weights, *, split_concats: bool
        ) -> tuple[onnx.ModelProto, Folded]:
            tensor = next(t for t in skeleton.graph.initializer if t.name == "a/conv1.bias")
            bias = onnx.numpy_helper.to_array(tensor) * np.float32([1, 1, 0, 1])
            tensor.CopyFrom(onnx.numpy_helper.from_array(bias, tensor.name))
            return skeleton, Folded()

        monkeypatch.setattr(draft, "fold_skeleton", broken)
        with pytest.raises(
            ParityError,
            match=r"cannot export '.*model.onnx': the folded network differs from it by .* of the largest "
            r"output, at most 1e-04 is rounding\. Nothing is written\. Please report this\.",
        ):
            export(trained, tmp_path / "deploy.onnx")


def test_an_existing_file_needs_force(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "deploy.onnx").write_bytes(b"old")
    with pytest.raises(GraftError, match=r"it exists\. Choose another -o, or pass --force\."):
        export(trained, tmp_path / "deploy.onnx")
    assert (tmp_path / "deploy.onnx").read_bytes() == b"old"
    export(trained, tmp_path / "deploy.onnx", force=True)
    assert onnx.load(tmp_path / "deploy.onnx").producer_name == "graftonnx"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "preprocess", "scales"),
    [
        ("resnet32_cifar10_torchscript_bn_opset13", "imagenet", 31),
        ("squeezenet1.1_caffe2_opset7", "caffe", 0),
        ("squeezenet1.1_caffe2_opset7_fp16", "caffe", 0),
        ("mobilenet_v1_0.25_keras_tf2onnx_opset15", "inception", 0),
        ("textangle_cls_paddle_opset10", "inception", 53),
        ("mnist_cntk_opset8", "unit", 2),
    ],
)
@pytest.mark.parametrize("with_softmax", [True, False])
def test_real_classifiers_are_folded_and_compute_the_same(
    shared_models: Path, tmp_path: Path, name: str, preprocess: str, scales: int, with_softmax: bool
) -> None:
    """The tolerance is stated where the comparison is made; the file itself is the reference."""
    source = shared_models / f"{name}.onnx"
    written = export(source, tmp_path / "d.onnx", preprocess=preprocess, with_softmax=with_softmax)
    assert written.folded.scales == scales
    assert written.output == ("probabilities" if with_softmax else "logits")


def test_preprocessing_of_metadata_is_part_of_the_comparison(tmp_path: Path) -> None:
    """A file that expects 0..255 gets 0..255 when both are compared."""
    metadata = Metadata(input=InputConvention(preprocess=Preprocess(scale=255.0)), labels=COLOURS)
    source = save(colour_network(metadata), tmp_path / "a.onnx")
    assert export(source, tmp_path / "d.onnx").difference < 1e-6
    assert read_metadata(onnx.load(tmp_path / "d.onnx")).input == metadata.input
