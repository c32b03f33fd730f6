"""From module to ONNX: names, kept nodes, dynamic batch, numbers, refusals."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from graftonnx import runtime, zoo
from graftonnx.errors import GraftError, ModelError, ParityError
from graftonnx.metadata import PRESETS, read_metadata
from graftonnx.models.onnx_export import to_onnx
from graftonnx.models.registry import ENTRIES, Entry, build

SIZES = {"squeezenet1_0": 64, "squeezenet1_1": 64, "inception_v3": 96, "custom16": 32}

Written = tuple[Entry, nn.Module, onnx.ModelProto]


@pytest.fixture(scope="module", params=ENTRIES, ids=lambda entry: entry.name)
def written(request: pytest.FixtureRequest) -> Written:
    """A network with running statistics of its own, and its ONNX form."""
    entry = request.param
    module = build(entry.name, classes=6, width=0.25 if entry.scalable else 1.0)
    generator = torch.Generator().manual_seed(3)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = torch.randn(layer.num_features, generator=generator) * 0.1
            layer.running_var = torch.rand(layer.num_features, generator=generator) + 0.5
    return entry, module, to_onnx(module, (3, SIZES[entry.name], SIZES[entry.name]), name=entry.name)


def op_counts(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_the_checker_accepts_the_whole_model(written: Written) -> None:
    onnx.checker.check_model(written[2], full_check=True)


def test_every_parameter_keeps_its_name_shape_and_values(written: Written) -> None:
    _, module, model = written
    initializers = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    state = {k: v.numpy() for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    ratios = {name for name in initializers if name.endswith(".ratio") or name == "dropout.ratio"}
    assert initializers.keys() - ratios == state.keys()
    np.testing.assert_equal({k: initializers[k] for k in state}, state)


def test_normalisation_dropout_and_convolutions_stay_nodes_of_their_own(written: Written) -> None:
    _, module, model = written
    kinds = {"Conv": nn.Conv2d, "BatchNormalization": nn.BatchNorm2d, "Dropout": nn.Dropout, "Relu": nn.ReLU}
    expected = {op: sum(isinstance(m, kind) for m in module.modules()) for op, kind in kinds.items()}
    assert {op: op_counts(model)[op] for op in kinds} == expected


def test_batch_normalisation_is_in_inference_form_with_its_epsilon(written: Written) -> None:
    _, module, model = written
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            layer = module.get_submodule(node.name)
            assert isinstance(layer, nn.BatchNorm2d)
            assert (len(node.input), len(node.output)) == (5, 1)
            assert attributes == {"epsilon": pytest.approx(layer.eps), "momentum": pytest.approx(0.9)}


def test_nodes_have_the_paths_of_their_modules(written: Written) -> None:
    _, module, model = written
    functions = {"Concat", "Add", "Flatten"}
    paths = [node.name for node in model.graph.node if node.op_type not in functions]
    leaves = {path for path, m in module.named_modules() if not list(m.children())}
    assert sorted(paths) == sorted(leaves)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)


def test_the_batch_is_dynamic_and_the_size_fixed(written: Written) -> None:
    entry, _, model = written
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph

    def sizes(value: onnx.ValueInfoProto) -> list[int | str]:
        return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]

    assert sizes(inferred.input[0]) == ["batch", 3, SIZES[entry.name], SIZES[entry.name]]
    assert sizes(inferred.output[0]) == ["batch", 6]
    assert [v.name for v in inferred.value_info if sizes(v)[0] != "batch"] == []


@pytest.mark.parametrize("batch", [1, 5])
def test_onnx_runtime_gives_pytorchs_logits(written: Written, batch: int) -> None:
    entry, module, model = written
    x = np.random.default_rng(batch).standard_normal(
        (batch, 3, SIZES[entry.name], SIZES[entry.name]), np.float32
    )
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    (found,) = runtime.open_session(model, provider="cpu").run(x)
    # float32 sums in another order; logits near zero are measured against the largest.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_mode_of_the_module_is_left_as_it_was() -> None:
    module = build("custom16", width=0.25).train()
    to_onnx(module, (3, 16, 16), name="custom16")
    assert module.training


class Calls(nn.Module):
    """A network that applies a function to its one layer's output."""

    def __init__(self, layer: nn.Module, times: int = 1) -> None:
        super().__init__()
        self.layer = layer
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = self.layer(x)
        return torch.sin(x) if self.times == 0 else torch.flatten(x, 1)


class Unusual(nn.Module):
    """A network of two outputs, or one whose output comes from a method."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = nn.ReLU()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y: Tensor = torch.flatten(self.layer(x), 1)
        return (y, y) if self.outputs == 2 else y.abs()


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (Calls(nn.GELU()), "cannot write 'layer' as ONNX: GELU has no form here"),
        (Calls(nn.ReLU(), times=2), "cannot write 'layer' as ONNX: the network calls it twice"),
        (Calls(nn.ReLU(), times=0), "cannot write 'sin' as ONNX: .*sin.* has no form here"),
        (Calls(nn.AdaptiveAvgPool2d(2)), "cannot write 'layer' as ONNX: its output is 2, not 1x1"),
        (
            Calls(nn.Conv2d(3, 3, 3, padding="same")),
            "cannot write 'layer' as ONNX: its padding is not a number of zeros",
        ),
        (
            Calls(nn.MaxPool2d(3, 1, dilation=2)),
            "cannot write 'layer' as ONNX: its dilation is 2, not 1",
        ),
        (
            Calls(nn.BatchNorm2d(3, affine=False)),
            "cannot write 'layer' as ONNX: it lacks weights, running statistics or momentum",
        ),
        (Unusual(outputs=1), "cannot write 'abs_1' as ONNX: this call_method has no form here"),
        (Unusual(outputs=2), "cannot write 'output' as ONNX: this output has no form here"),
    ],
)
def test_what_has_no_form_is_refused(module: nn.Module, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        to_onnx(module, (3, 8, 8), name="refused")


def test_metadata_holds_the_input_convention_and_the_labels() -> None:
    module = build("custom16", classes=3, width=0.25)
    model = zoo.to_model(module, "c", input_size=16, preprocess=PRESETS["imagenet"], labels=("x", "y", "z"))
    metadata = read_metadata(model)
    assert metadata.input is not None
    assert metadata.input.preprocess == PRESETS["imagenet"]
    assert metadata.labels == ("x", "y", "z")


def test_labels_must_be_as_many_as_classes() -> None:
    module = build("custom16", classes=3, width=0.25)
    with pytest.raises(ModelError, match=r"^cannot label c: 2 labels for 3 classes\. Give one for each\.$"):
        zoo.to_model(module, "c", input_size=16, preprocess=PRESETS["unit"], labels=("x", "y"))


def test_a_model_that_differs_from_its_module_is_refused() -> None:
    module = build("custom16", width=0.25)
    model = to_onnx(module, (3, 16, 16), name="custom16")
    with torch.no_grad():
        module.get_parameter("classifier.bias").add_(0.1)
    with pytest.raises(
        ParityError, match=r"ONNX Runtime's logits differ from PyTorch's by .* at batch 1, expected at"
    ):
        zoo.check_parity(model, module)


def test_logits_that_are_not_finite_are_refused() -> None:
    module = build("custom16", width=0.25)
    nn.init.constant_(module.get_parameter("classifier.bias"), float("inf"))
    model = to_onnx(module, (3, 16, 16), name="custom16")
    with pytest.raises(ParityError, match=r"its logits are not finite\. Check the weights\.$"):
        zoo.check_parity(model, module)


def test_nothing_is_built_for_a_target_that_exists(tmp_path: Path) -> None:
    target = tmp_path / "c.onnx"
    target.write_text("precious")
    with pytest.raises(GraftError, match=r"it exists\. Choose another -o, or pass --force"):
        zoo.export_network("custom16", target)
    assert target.read_text() == "precious"


CAFFE_LAYERS = {"squeeze": "squeeze1x1", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}


def published_name(key: str, fires: dict[str, str], caffe: bool) -> str:
    """Return what the real files call the weight `key`."""
    path, kind = key.rsplit(".", 1)
    if path in ("features.0", "classifier.1"):
        layer = "conv1" if path == "features.0" else "conv10"
    else:
        fire, part = path.rsplit(".", 1)
        layer = f"{fires[fire]}/{CAFFE_LAYERS[part]}" if caffe else f"{fires[fire]}.{part}"
    return f"{layer}_{kind[0]}_0" if caffe else f"{layer}.{kind}"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "file", "size", "caffe"),
    [
        ("squeezenet1_0", "squeezenet1.0_torch_dynamo_opset18.onnx", 227, False),
        ("squeezenet1_1", "squeezenet1.1_caffe2_opset7.onnx", 224, True),
    ],
)
def test_published_weights_give_the_published_networks_answers(
    shared: Path, tmp_path: Path, name: str, file: str, size: int, caffe: bool
) -> None:
    """Real ImageNet weights under torchvision's keys, exported: the real file's answer on the same input."""
    real = onnx.load(shared / "models" / file)
    weights = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in real.graph.initializer}
    keys = list(build(name).state_dict())
    paths = dict.fromkeys(key.rsplit(".", 2)[0] for key in keys if key.count(".") == 3)
    fires = {path: f"fire{index}" for index, path in enumerate(paths, start=2)}
    torch.save({key: weights[published_name(key, fires, caffe)] for key in keys}, tmp_path / "w.pth")
    exported = zoo.export_network(name, tmp_path / "w.onnx", weights=tmp_path / "w.pth", input_size=size)
    assert exported.notes == ()
    x = np.random.default_rng(0).uniform(-100, 100, (1, 3, size, size)).astype(np.float32)
    (found,) = runtime.open_session(tmp_path / "w.onnx", provider="cpu").run(x)
    (expected,) = runtime.open_session(shared / "models" / file, provider="cpu").run(x)
    if caffe:
        found = np.exp(found - found.max()) / np.exp(found - found.max()).sum()
    # the same float32 arithmetic in two graphs: only the order of sums differs
    np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=1e-3, atol=1e-5 * np.abs(expected).max())
