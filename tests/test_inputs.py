"""Separate inputs: one image for each parent, from the plan to the deployable file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import grid_cnn, plain_cnn, residual_cnn, saved
from click.testing import CliRunner, Result
from PIL import Image

from graftonnx import proofs
from graftonnx.classifier import open_classifier, softmax
from graftonnx.cli import graftonnx
from graftonnx.conversion import to_torch
from graftonnx.errors import ModelError, PlanError
from graftonnx.exporting import export
from graftonnx.fusion import fuse
from graftonnx.images import as_input, decode, to_input
from graftonnx.matching import match
from graftonnx.metadata import PRESETS, read_metadata
from graftonnx.model import from_proto, load, resize, save
from graftonnx.network import Network
from graftonnx.parity import compare_module, random_inputs
from graftonnx.plan import from_yaml
from graftonnx.runtime import open_session, with_outputs
from graftonnx.taps import find_taps


@pytest.fixture
def a() -> Network:
    """RGB, 16 x 16."""
    return from_proto(residual_cnn(depth=3), "a.onnx", preprocess="caffe")


@pytest.fixture
def b() -> Network:
    """Grey, 24 x 24."""
    return from_proto(plain_cnn((8, 16, 32), seed=1, size=24, channels=1), "b.onnx")


@pytest.fixture
def fused(a: Network, b: Network) -> Network:
    return fuse(a, b, classes=5, inputs="separate")


@pytest.fixture
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.random((2, *shape), np.float32) for shape in ((3, 16, 16), (1, 24, 24))]


def run(model: onnx.ModelProto, images: list[np.ndarray], *names: str) -> list[np.ndarray]:
    session = open_session(with_outputs(model, names), provider="cpu", threads=1, optimise=False)
    return session.run(*images, outputs=names or None)


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }


def test_every_parent_has_an_input_of_its_own_shape_and_all_have_one_batch(fused: Network) -> None:
    assert shapes_of(fused.proto) == {"input_a": ["batch", 3, 16, 16], "input_b": ["batch", 1, 24, 24]}
    assert fused.input_shapes == {"input_a": (3, 16, 16), "input_b": (1, 24, 24)}
    names = {node.name for node in fused.view.nodes if node.name.startswith("preprocess/")}
    assert names == {f"preprocess/{step}" for step in ("a/order", "a/mul", "a/add", "b/identity")}


def test_sound_and_video_keep_their_shapes() -> None:
    for extents, other in (((64,), (80,)), ((8, 16, 16), (4, 16, 16))):
        parents = [from_proto(grid_cnn(size), f"{len(size)}.onnx") for size in (extents, other)]
        fused = fuse(*parents, classes=3, inputs="separate")
        assert fused.input_shapes == {"input_a": (2, *extents), "input_b": (2, *other)}


def test_each_branch_computes_what_its_parent_does_on_its_own_image(
    a: Network, b: Network, fused: Network, images: list[np.ndarray]
) -> None:
    caffe = PRESETS["caffe"]
    expected = [images[0][:, ::-1] * 255 - np.float32(caffe.mean).reshape(1, 3, 1, 1), images[1]]
    for network, parent, image in zip((a, b), fused.metadata.parents, expected, strict=True):
        made, feature = run(fused.proto, images, parent.input_value, parent.feature)
        np.testing.assert_allclose(made, image, rtol=1e-5, atol=1e-4)  # of numbers up to 150
        np.testing.assert_array_equal(feature, run(network.proto, [made], network.head.feature)[0])


def test_without_exchange_a_branch_sees_nothing_of_the_other_image_and_with_one_it_does(
    a: Network, b: Network, images: list[np.ndarray]
) -> None:
    changed = [images[0], images[1][:, :, ::-1]]
    for skip_init, sees in (("zero", False), ("paper", True)):
        fused = fuse(a, b, classes=5, inputs="separate", skip_init=skip_init)
        first, second = (run(fused.proto, given, "a/s2", "b/r2") for given in (images, changed))
        assert np.array_equal(first[0], second[0]) is not sees
        assert not np.array_equal(first[1], second[1])


def test_the_proofs_give_every_input_an_image_of_its_own(a: Network) -> None:
    twins = fuse(a, a, classes=5, inputs="separate")
    values = proofs.check_runs(twins.skeleton, twins.weights, {"a": "a/image", "b": "b/image"})
    assert not np.array_equal(values["a"], values["b"])
    assert "branch b equals a.onnx as it was loaded, bit for bit" in twins.notes


def test_a_plan_records_the_inputs_and_its_replay_is_the_same_file(
    a: Network, b: Network, tmp_path: Path
) -> None:
    plan = from_yaml(match(a, b, inputs="separate").to_yaml())
    assert plan.inputs == "separate"
    assert match(a, b).inputs == "shared"
    for name, network in (
        ("planned", fuse(a, b, plan=plan, classes=5)),
        ("asked", fuse(a, b, classes=5, inputs="separate")),
        ("changed", fuse(a, b, plan=match(a, b), classes=5, inputs="separate")),
    ):
        save(network, tmp_path / name)
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(contents) == 1
    assert list(fuse(a, b, plan=plan, classes=5, inputs="shared").input_shapes) == ["input"]


def test_the_file_says_which_input_is_whose_and_is_read_again(fused: Network, tmp_path: Path) -> None:
    save(fused, tmp_path / "fused.onnx")
    metadata = read_metadata(onnx.load(tmp_path / "fused.onnx"))
    assert [parent.input for parent in metadata.parents] == ["input_a", "input_b"]
    assert metadata.branch_inputs == {"input_a": "a", "input_b": "b"}
    again = load(tmp_path / "fused.onnx")
    assert (again.input_shapes, again.head) == (fused.input_shapes, fused.head)
    strides = {tap.name: tap.stride for tap in find_taps(again)}
    assert (strides["a/s1"], strides["b/r0"], strides["b/r1"]) == ((1, 1), (1, 1), (2, 2))
    assert strides["skips/1/b/sum"] == (2, 2)


def test_one_shared_input_is_nobodys_own(a: Network, b: Network) -> None:
    metadata = fuse(a, b, classes=5).metadata
    assert metadata.branch_inputs == {}
    assert "input" not in json.loads(metadata.model_dump_json(exclude_none=True))["parents"][0]


def test_the_module_takes_the_images_in_the_order_of_the_graph(fused: Network) -> None:
    model = fused.proto
    arrays = random_inputs(model)
    assert [array.shape for array in arrays] == [(2, 3, 16, 16), (2, 1, 24, 24)]
    assert compare_module(model, to_torch(fused), *arrays) < 1e-5  # sums in another order


def test_a_classifier_shows_every_input_the_same_image(fused: Network, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    save(fused, tmp_path / "fused.onnx")
    classifier = open_classifier(tmp_path / "fused.onnx", provider="cpu")
    assert classifier.size == (24, 24)
    (prediction,) = classifier.predict([path])
    planes = to_input(decode(path, (24, 24))[None])
    given = [as_input(planes, shape) for shape in ((3, 16, 16), (1, 24, 24))]
    expected = softmax(run(fused.proto, given)[0])
    np.testing.assert_allclose(prediction.probabilities, expected[0], rtol=1e-4)  # optimised kernels


def test_a_deployable_file_takes_pixels_for_every_input(fused: Network, tmp_path: Path) -> None:
    """Colours for one parent, luma for the other; both rounded to 8 bits, where the network has floats."""
    save(fused, tmp_path / "fused.onnx")
    export(tmp_path / "fused.onnx", tmp_path / "d.onnx", element="uint8", layout="nhwc", precision="fp16")
    classifier = open_classifier(tmp_path / "d.onnx", provider="cpu")
    assert [shape[1:] for shape in classifier.session.input_shapes] == [(16, 16, 3), (24, 24, 1)]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
    expected = open_classifier(tmp_path / "fused.onnx", provider="cpu").probabilities(pixels)
    # Half a step of 255 in each pixel, and float16's 5e-4.
    np.testing.assert_allclose(classifier.probabilities(pixels), expected, atol=1e-2)


def test_another_size_is_for_one_input(fused: Network, tmp_path: Path) -> None:
    save(fused, tmp_path / "fused.onnx")
    with pytest.raises(
        ModelError, match=r"it has 2 inputs, each of its own size; --size is for networks with"
    ):
        export(tmp_path / "fused.onnx", tmp_path / "d.onnx", size=(30, 30))


def test_the_deployable_file_keeps_the_inputs(fused: Network, tmp_path: Path) -> None:
    save(fused, tmp_path / "fused.onnx")
    made = export(tmp_path / "fused.onnx", tmp_path / "deploy.onnx")
    assert made.difference < 1e-5
    model = onnx.load(tmp_path / "deploy.onnx")
    assert shapes_of(model) == shapes_of(fused.proto)
    assert read_metadata(model).branch_inputs == {"input_a": "a", "input_b": "b"}
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)
    found = [
        open_classifier(tmp_path / name, provider="cpu").probabilities(pixels)
        for name in ("fused.onnx", "deploy.onnx")
    ]
    np.testing.assert_allclose(*found, rtol=1e-4)  # folded


def test_a_parent_with_several_inputs_is_refused(a: Network, fused: Network) -> None:
    said = (
        "'fused.onnx' has the inputs 'input_a', 'input_b'; expected a parent with one. Fuse its own parents"
    )
    for attempt in (
        lambda: match(a, fused),
        lambda: fuse(fused, classes=3),
        lambda: fuse(a, fused, classes=3, plan=match(a, a)),
    ):
        with pytest.raises(PlanError, match=said):
            attempt()
    with pytest.raises(ModelError, match="it has 2 inputs, each of its own size; expected one"):
        resize(fused, (32, 32))


def test_inputs_are_shared_or_separate_and_nothing_else(a: Network, b: Network) -> None:
    said = r"inputs \(='both'\) is not one of 'shared', 'separate'"
    with pytest.raises(ValueError, match=said):
        fuse(a, b, inputs="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=said):
        match(a, b, inputs="both")  # type: ignore[arg-type]


class TestOnTheCommandLine:
    @pytest.fixture
    def work(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        saved(residual_cnn(depth=3), tmp_path / "a.onnx")
        saved(plain_cnn((8, 16, 32), seed=1, size=24, channels=1), tmp_path / "b.onnx")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    @staticmethod
    def call(*arguments: str) -> Result:
        result = CliRunner().invoke(graftonnx, list(arguments))
        assert result.exit_code == 0, result.output
        return result

    def test_fuse_says_what_goes_in(self, work: Path) -> None:
        result = self.call("fuse", "a.onnx", "b.onnx", "--inputs", "separate", "-o", "fused.onnx")
        assert "b: b.onnx at 24x24, an input of its own" in result.stdout
        assert (
            "wrote fused.onnx: input_a [N, 3, 16, 16], input_b [N, 1, 24, 24] -> 4 classes" in result.stdout
        )

    def test_a_plan_that_match_wrote_is_replayed_byte_for_byte(self, work: Path) -> None:
        self.call("match", "a.onnx", "b.onnx", "--inputs", "separate", "-o", "plan.yaml")
        assert "\ninputs: separate\n" in (work / "plan.yaml").read_text()
        self.call("fuse", "a.onnx", "b.onnx", "--plan", "plan.yaml", "-o", "planned.onnx")
        self.call("fuse", "a.onnx", "b.onnx", "--inputs", "separate", "-o", "asked.onnx")
        assert (work / "planned.onnx").read_bytes() == (work / "asked.onnx").read_bytes()
        text = self.call(
            *("fuse", "a.onnx", "b.onnx", "--plan", "plan.yaml", "--inputs", "shared"),
            *("-o", "shared.onnx", "--json"),
        ).stdout
        assert json.loads(text)["inputs"] == {"input": ["batch", 3, 24, 24]}

    def test_inspect_and_check_take_the_file(self, work: Path) -> None:
        self.call("fuse", "a.onnx", "b.onnx", "--inputs", "separate", "-o", "fused.onnx")
        shown = self.call("inspect", "fused.onnx").stdout
        assert "input_b [N, 1, 24, 24]" in shown
        assert "b.onnx, 5,832 parameters, reads input_b" in shown
        facts = json.loads(self.call("inspect", "fused.onnx", "--json").stdout)
        assert facts["inputs"] == {"input_a": ["batch", 3, 16, 16], "input_b": ["batch", 1, 24, 24]}
        assert "random input [2, 3, 16, 16], [2, 1, 24, 24]" in self.call("check", "fused.onnx").stdout
