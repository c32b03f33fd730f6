"""`graftonnx bundle` and `graftonnx verify` as a user meets them, and the bundle without graftonnx."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders import plain_cnn, residual_cnn
from click.testing import CliRunner, Result
from google.protobuf import text_format
from lookalikes import COLOURS, UNIT, colour_folder, colour_network
from onnx import helper, numpy_helper
from PIL import Image
from tritonclient.grpc import model_config_pb2

from graftonnx import documents
from graftonnx.bundling import verify
from graftonnx.bundling.sums import SUMS, write_sums
from graftonnx.bundling.triton import describe
from graftonnx.classifier import open_classifier
from graftonnx.cli import graftonnx
from graftonnx.comparison.record import Comparison, Contest, Request, Standing
from graftonnx.comparison.significance import Estimate
from graftonnx.data.opening import open_data
from graftonnx.data.splits import split as split_data
from graftonnx.errors import GraftError
from graftonnx.fusion import fuse
from graftonnx.metadata import PRESETS, HeadRecord, InputConvention, Metadata, read_metadata, write_metadata
from graftonnx.model import from_proto, save
from graftonnx.printable import markdown_code, markdown_text, printable
from graftonnx.training import TrainConfig
from graftonnx.training.run import RunRecord

CONTENTS = (
    "MODEL_CARD.md",
    "SHA256SUMS",
    "bundle.json",
    "labels.txt",
    "models/fp32.onnx",
    "predict.py",
    "requirements.txt",
    "selfcheck/example.png",
    "selfcheck/fp32.npz",
    "selfcheck/inputs.npz",
    "triton/colours/1/model.onnx",
    "triton/colours/config.pbtxt",
    "triton/colours/labels.txt",
)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(graftonnx, list(map(str, arguments)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two fused networks in a comparison, and its data."""
    folder = tmp_path_factory.mktemp("work")
    parents = [
        from_proto(proto, f"{name}|.onnx")
        for name, proto in (("first", residual_cnn(4, depth=1)), ("second", plain_cnn((4, 8), seed=1)))
    ]
    proto = fuse(*parents, classes=3, skip_init="paper").proto
    write_metadata(proto, read_metadata(proto).model_copy(update={"labels": COLOURS}))
    proto.metadata_props.add(key="a/license", value="MIT")
    run = folder / "compared" / "fused" / "seed0"
    run.mkdir(parents=True)
    save(proto, run / "model.onnx")
    data = open_data(colour_folder(folder / "data", dict.fromkeys(COLOURS, 10)))
    (run / "split.json").write_text(split_data(data, 0.4, seed=0).to_json())
    record = RunRecord(
        source=folder / "fused.onnx",
        source_sha256="0" * 64,
        data=str(folder / "data"),
        labels=COLOURS,
        images={"train": 18, "val": 12, "test": 0},
        input_size=(32, 32),
        config=TrainConfig(),
        device="cpu",
        precision="fp32",
        layout="contiguous",
        measured={},
        versions={"graftonnx": "0.1.0"},
    )
    (run / "config.yaml").write_text(documents.dump(record.model_dump(mode="json")))
    (folder / "compared" / "compare.json").write_text(comparison(folder).model_dump_json())
    return run


def comparison(folder: Path) -> Comparison:
    """Return what `graftonnx compare` might have found."""
    estimate = Estimate(value=0.9, low=0.8, high=0.95)
    names = ("a", "b", "average", "concatenated", "fused")
    return Comparison(
        request=Request(
            source=folder / "fused.onnx", source_sha256="0" * 64, data=str(folder), config=TrainConfig()
        ),
        seeds=(0,),
        part="val",
        images=(12,),
        redrawn=False,
        basis="Over images.",
        config=TrainConfig(),
        device="cpu",
        precision="fp32",
        layout="contiguous",
        networks=tuple(
            Standing(
                name=name, description=f"what {name} is", accuracies=(0.9,), accuracy=estimate, parameters=1,
                macs=1, bytes=1, latency=1e-3, train_seconds=1.0,
            )
            for name in names
        ),
        better_parent="a",
        contests=(Contest(rival="a", difference=estimate, p=0.5, by_images=()),),
        verdict="The skips did not help here.",
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(run: Path) -> Path:
    """The bundle of the run; not to be changed."""
    output = run.parents[2] / "colours"
    result = invoke("bundle", run, "-o", output, "-q", "--licence", "b=Apache-2.0")
    assert result.exit_code == 0, result.output
    return output


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(whole, tmp_path / "colours")


@pytest.fixture(scope="session")
def three_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import from that holds NumPy, ONNX Runtime and Pillow, and nothing else."""
    folder = tmp_path_factory.mktemp("packages")
    for name in ("numpy", "onnxruntime", "PIL"):
        package = Path(__import__(name).__file__).parent
        libraries = package.with_name(f"{ {'PIL': 'pillow'}.get(name, name) }.libs")
        for path in (package, libraries):
            if path.exists():
                (folder / path.name).symlink_to(path)
    return folder


def predict(bundle: Path, packages: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the bundle's predict.py without this environment's packages, from another folder."""
    return subprocess.run(
        [sys.executable, "-S", bundle.resolve() / "predict.py", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(packages)},
        cwd=packages,
        capture_output=True,
        text=True,
        check=False,
    )


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


TOLERANCES: dict[str, Any] = {
    "two tolerances": np.full(2, 1e-3),
    "no tolerance": np.zeros(0),
    "tolerance as text": np.array("0.001"),
    "complex tolerance": np.array(1e-3j),
    "infinite tolerance": np.array(np.inf),
    "tolerance that is no number": np.array(np.nan),
    "large tolerance": np.array(1.1e-3),
    "negative tolerance": np.array(-1e-3),
}
"""Of a selfcheck in float32."""

PROBABILITIES: dict[str, Callable[[Any], Any]] = {
    "probabilities as text": lambda found: found.astype(str),
    "probabilities as records": lambda found: found.astype([("a", "f4")]),
    "probabilities as dates": lambda found: found.astype(int).astype("M8[s]"),
    "complex probabilities": lambda found: found.astype(np.complex64),
    "probabilities that are no numbers": lambda found: found * np.nan,
    "infinite probabilities": lambda found: found + np.inf,
    "large probabilities": lambda found: found + 1,
    "probabilities of fewer images": lambda found: found[1:],
}


class TestMaking:
    def test_the_folder_holds_what_it_should_and_nothing_is_left_beside_it(self, whole: Path) -> None:
        files = sorted(p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file())
        assert files == sorted(CONTENTS)
        assert sorted(path.name for path in whole.parent.iterdir()) == ["colours", "compared", "data"]
        assert (whole / "labels.txt").read_text() == "red\ngreen\nblue\n"
        script = (whole / "predict.py").read_text().splitlines()
        assert len([line for line in script if line]) <= 42

    def test_the_sums_are_those_of_the_usual_tool(self, whole: Path) -> None:
        done = subprocess.run(
            ["sha256sum", "--check", "--strict", SUMS], cwd=whole, check=True, capture_output=True
        )
        assert done.stdout.count(b": OK\n") == len(CONTENTS) - 1

    def test_the_card_says_where_it_comes_from_and_how_good_it_is(self, whole: Path, run: Path) -> None:
        card = (whole / "MODEL_CARD.md").read_text()
        accuracy = json.loads(invoke("eval", run, "--data", run.parents[2] / "data", "--json").stdout)["top1"]
        size = (whole / "models" / "fp32.onnx").stat().st_size / 1e6
        assert f"| fp32: `models/fp32.onnx` | {size:.1f} MB | " in card
        assert f" ms | {accuracy:.2%} | " in card
        assert "top-5" not in card  # of three classes
        assert "on 12 validation images of data." in card
        parents = read_metadata(onnx.load(run / "model.onnx")).parents
        for parent, licence in zip(parents, ("MIT", "Apache-2.0"), strict=True):
            name = parent.name.replace("|", "\\|")
            assert f"| {parent.branch} | {name} | `{parent.sha256}` | {licence} | {parent.producer}" in card
        assert "on data: 18 training images, 12 validation images." in card
        assert "| fused: what fused is | 90.00% [80.00, 95.00] |" in card
        assert "The skips did not help here." in card
        assert "licence of" not in card.partition("## Limits")[2]

    def test_texts_of_a_run_and_a_comparison_are_no_markup_in_the_card(
        self, run: Path, tmp_path: Path
    ) -> None:
        hostile = "<b>x</b>`\n# y\n[z](javascript:1)|\x1b\u202e"
        shutil.copytree(run.parents[1], tmp_path / "compared")
        copy = tmp_path / "compared" / "fused" / "seed0"
        proto = onnx.load(copy / "model.onnx")
        metadata = read_metadata(proto)
        parents = tuple(parent.model_copy(update={"sha256": hostile}) for parent in metadata.parents)
        head = HeadRecord(kind="file", file=hostile)
        write_metadata(proto, metadata.model_copy(update={"head": head, "parents": parents}))
        onnx.save(proto, copy / "model.onnx")
        record = documents.load((copy / "config.yaml").read_text())
        record |= {"source": hostile, "source_sha256": hostile, "versions": {"graftonnx": hostile}}
        (copy / "config.yaml").write_text(documents.dump(record))
        found = json.loads((tmp_path / "compared" / "compare.json").read_text())
        found |= {"verdict": hostile, "basis": hostile}
        (tmp_path / "compared" / "compare.json").write_text(json.dumps(found))
        result = invoke("bundle", copy, "-o", tmp_path / "b", "-q")
        assert result.exit_code == 0, result.output
        card = (tmp_path / "b" / "MODEL_CARD.md").read_text()
        assert card.count(markdown_text(hostile)) == 4
        assert card.count(markdown_code(hostile)) == 3
        rest = card.replace(markdown_code(hostile), "").replace("\\|", "")
        assert ("<" in rest, "\n# y" in rest, "[z]" in rest, printable(card) == card) == (
            False, False, False, True,
        )  # fmt: skip
        found["better_parent"] = hostile
        (tmp_path / "compared" / "compare.json").write_text(json.dumps(found))
        result = invoke("bundle", copy, "-o", tmp_path / "c", "-q")
        assert (result.exit_code, "compare.json': it is damaged." in result.stderr) == (1, True)

    def test_as_json(self, run: Path, tmp_path: Path) -> None:
        record = json.loads(invoke("bundle", run, "-o", tmp_path / "b", "--json", "--name", "net.1").stdout)
        assert (record["path"], record["name"], record["split"]) == (str(tmp_path / "b"), "net.1", "val")
        (only,) = record["models"]
        assert (only["precision"], only["fidelity"], only["bytes"] > 0, only["seconds"] > 0) == (
            "fp32", None, True, True,
        )  # fmt: skip
        assert (tmp_path / "b" / "triton" / "net.1").is_dir()

    def test_every_precision_of_8_bit_images_is_measured_and_checked(
        self, run: Path, tmp_path: Path, three_packages: Path
    ) -> None:
        names = ("int8", "fp16", "bf16", "fp32")
        given = [word for name in names for word in ("--precision", name)]
        form = ("--input", "uint8", "--layout", "nhwc", "--accept-loss")
        result = invoke("bundle", run, "-o", tmp_path / "b", *given, *form, "-q")
        assert result.exit_code == 0, result.output
        assert [line.partition(":")[0] for line in result.stdout.splitlines()[:-1]] == list(names)
        checked = json.loads(invoke("verify", tmp_path / "b", "--json").stdout)["models"]
        assert [(model["precision"], model["tolerance"]) for model in checked] == [
            ("int8", 5e-2), ("fp16", 1e-2), ("bf16", 1e-2), ("fp32", 1e-3),
        ]  # fmt: skip
        card = (tmp_path / "b" / "MODEL_CARD.md").read_text()
        assert "| precision | size | one image | answers as before | top-1 | loss |" in card
        assert "- `input`: uint8 [batch, 16, 16, 3], RGB in 0..255" in card
        for name in names:
            folder = "b" if name == "int8" else f"b_{name}"
            text = (tmp_path / "b" / "triton" / folder / "config.pbtxt").read_text()
            config = text_format.Parse(text, model_config_pb2.ModelConfig())
            assert config.input[0].data_type == model_config_pb2.TYPE_UINT8
            assert list(config.input[0].dims) == [16, 16, 3]
            done = predict(tmp_path / "b", three_packages, "--precision", name)
            assert (done.returncode, done.stderr) == (0, ""), done.stdout

    def test_without_data_nothing_is_said_of_accuracy(self, run: Path, tmp_path: Path) -> None:
        shutil.copy(run / "model.onnx", tmp_path / "m.onnx")
        result = invoke("bundle", tmp_path / "m.onnx", "-o", tmp_path / "b")
        assert result.exit_code == 0, result.output
        assert "top-1" not in result.stdout
        assert result.stderr.endswith("Note: its accuracy was not measured: give --data.\n")
        card = (tmp_path / "b" / "MODEL_CARD.md").read_text()
        assert "not measured" in card
        assert "The licence of second\\|.onnx is not known" in card

    def test_triton_reads_its_configuration(self, whole: Path) -> None:
        text = (whole / "triton" / "colours" / "config.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert (config.name, config.backend, config.max_batch_size) == ("colours", "onnxruntime", 64)
        assert config.HasField("dynamic_batching")
        (image,), (answer,) = config.input, config.output
        assert (image.name, image.data_type, list(image.dims)) == (
            "input",
            model_config_pb2.TYPE_FP32,
            [3, 16, 16],
        )
        assert (answer.name, answer.data_type, list(answer.dims), answer.label_filename) == (
            "probabilities", model_config_pb2.TYPE_FP32, [3], "labels.txt",
        )  # fmt: skip

    def test_a_fixed_batch_is_not_left_to_triton(self, tmp_path: Path) -> None:
        onnx.save(colour_network(batch="2"), tmp_path / "m.onnx")
        text = text_format.MessageToString(describe(tmp_path / "m.onnx", "m"))
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
        assert (list(config.input[0].dims), list(config.output[0].dims)) == ([2, 3, 8, 8], [2, 3])

    def test_a_bundle_is_replaced_only_with_force(self, bundle: Path, run: Path) -> None:
        refused = invoke("bundle", run, "-o", bundle)
        assert (refused.exit_code, refused.stderr) == (
            1,
            f"Error: cannot write the bundle to '{bundle}': it is not empty. Choose another -o, or pass "
            "--force to "
            "replace the bundle in it.\n",
        )
        (bundle / "labels.txt").write_text("changed")
        assert invoke("bundle", run, "-o", bundle, "--force").exit_code == 0
        assert invoke("verify", bundle).exit_code == 0

    def test_what_is_no_bundle_is_never_replaced(self, run: Path, tmp_path: Path) -> None:
        (tmp_path / "holidays").mkdir()
        (tmp_path / "holidays" / "1.jpg").write_bytes(b"sea")
        result = invoke("bundle", run, "-o", tmp_path / "holidays", "--force")
        assert result.exit_code == 1
        assert "it is not empty, and what it holds is no bundle. Choose another -o." in result.stderr
        assert (tmp_path / "holidays" / "1.jpg").read_bytes() == b"sea"

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ((), "it has no class names. Give others with --labels FILE."),
            (("a", "b\nc", "d"), "the class name 'b\\nc' is not one line."),
            (("a", "b", "a"), "2 classes are called 'a'. Give others with --labels FILE."),
        ],
    )
    def test_a_failure_leaves_nothing(self, tmp_path: Path, labels: tuple[str, ...], message: str) -> None:
        onnx.save(colour_network(UNIT.model_copy(update={"labels": labels})), tmp_path / "m.onnx")
        result = invoke("bundle", tmp_path / "m.onnx", "-o", tmp_path / "b")
        assert (result.exit_code, message in result.stderr) == (1, True)
        assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (("absent", "-o", "b"), 1, "cannot read 'absent': there is no such file or run folder."),
            (("m.onnx", "-o", "no/b"), 1, "the folder 'no' does not exist. Create it first."),
            (("m.onnx", "-o", "m.onnx"), 1, "cannot write the bundle to 'm.onnx': it is a file."),
            (("m.onnx", "-o", "b", "--name", "../x"), 1, "cannot name the network '../x': give letters,"),
            (
                ("m.onnx", "-o", "b", "--licence", "MIT"),
                2,
                "'MIT' is no licence of a branch; give BRANCH=LICENCE",
            ),
            (("m.onnx", "-o", "b", "--precision", "fp8"), 2, "Invalid value for '--precision'"),
        ],
    )
    def test_refusals(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        arguments: tuple[str, ...],
        code: int,
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        onnx.save(colour_network(), "m.onnx")
        result = invoke("bundle", *arguments)
        assert (result.exit_code, message in result.stderr) == (code, True), result.stderr
        assert not Path("b").exists()


class TestVerifying:
    def test_a_bundle_is_what_it_was_wherever_it_lies(self, bundle: Path) -> None:
        result = invoke("verify", bundle)
        assert result.exit_code == 0, result.output
        first, second, last = result.stdout.splitlines()
        assert first == "13 files are what they were"
        assert second.startswith("fp32: valid ONNX; probabilities within ")
        assert last == f"Verified {bundle}: colours."
        record = json.loads(invoke("verify", bundle, "--json").stdout)
        assert (record["files"], record["models"][0]["difference"] <= 1e-6) == (13, True)

    @pytest.mark.parametrize("name", [name for name in CONTENTS if name != SUMS])
    def test_a_flipped_byte_is_found(self, bundle: Path, name: str) -> None:
        path = bundle / name
        content = path.read_bytes()
        for position in {0, len(content) // 3, len(content) - 1}:
            path.unlink()
            path.write_bytes(flipped(content, position))
            result = invoke("verify", bundle)
            assert (result.exit_code, result.stderr) == (
                1,
                f"Error: cannot trust '{bundle}': changed since {SUMS} was written: '{name}'. Copy the "
                "bundle anew "
                "from where it came from.\n",
            )

    def test_a_flipped_byte_anywhere_in_the_sums_is_found(self, bundle: Path) -> None:
        content = (bundle / SUMS).read_bytes()
        for position in range(len(content)):
            (bundle / SUMS).write_bytes(flipped(content, position))
            with pytest.raises(GraftError, match=rf"^cannot trust '{bundle}': .* from where it came from\.$"):
                verify(bundle)

    def test_files_that_are_missing_or_too_many_are_named(self, bundle: Path) -> None:
        (bundle / "labels.txt").rename(bundle / "Labels.txt")
        assert "missing, but in SHA256SUMS: 'labels.txt'." in invoke("verify", bundle).stderr
        shutil.copy(bundle / "Labels.txt", bundle / "labels.txt")
        assert "not in SHA256SUMS: 'Labels.txt'." in invoke("verify", bundle).stderr

    @pytest.mark.parametrize(
        "name",
        [
            "numpy.py", "numpy.so", "PIL/__init__.py", "README.md", "models/fp16.onnx", "models/fp32.onnx.py",
            "selfcheck/fp16.npz", "triton/colours/2/model.onnx", "triton/colours/1/model.py",
            "triton/colours/configs/x.pbtxt", "triton/other/config.pbtxt", "triton/model.py",
        ],
    )  # fmt: skip
    def test_a_file_that_no_bundle_has_is_refused(self, bundle: Path, name: str) -> None:
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text("import os")
        write_sums(bundle)
        result = invoke("verify", bundle)
        assert (result.exit_code, result.stderr) == (
            1, f"Error: cannot trust '{bundle}': no part of a bundle: '{name}'. Make the bundle anew.\n",
        )  # fmt: skip

    @pytest.mark.parametrize("name", [name for name in CONTENTS if name not in (SUMS, "bundle.json")])
    def test_a_file_that_every_bundle_has_must_be_there(self, bundle: Path, name: str) -> None:
        (bundle / name).unlink()
        if not any((bundle / name).parent.iterdir()):
            (bundle / name).parent.rmdir()
        write_sums(bundle)
        result = invoke("verify", bundle)
        assert (result.exit_code, f"missing: '{name}'. Make" in result.stderr) == (1, True), result.stderr

    @pytest.mark.parametrize("name", ["predict.py", "requirements.txt"])
    def test_a_program_that_another_version_wrote_is_named(self, bundle: Path, name: str) -> None:
        assert "not as this version" not in invoke("verify", bundle).stderr
        (bundle / name).write_text((bundle / name).read_text() + "\n")
        write_sums(bundle)
        result = invoke("verify", bundle)
        assert result.exit_code == 0
        assert result.stderr.startswith(f"Note: not as this version of graftonnx writes it: {name}. Another ")
        assert json.loads(invoke("verify", bundle, "--json").stdout)["foreign"] == [name]

    def test_an_initializer_among_the_inputs_is_no_input(self, bundle: Path) -> None:
        def add(proto: onnx.ModelProto) -> None:
            proto.graph.initializer.append(numpy_helper.from_array(np.int64([1]), "kept"))
            proto.graph.input.append(helper.make_tensor_value_info("kept", onnx.TensorProto.INT64, [1]))

        change_networks(bundle, add)
        write_sums(bundle)
        result = invoke("verify", bundle)
        assert result.exit_code == 0, result.stderr

    @pytest.mark.parametrize("change", ["type", "outputs"])
    def test_outputs_that_are_not_served_are_refused(self, bundle: Path, change: str) -> None:
        def add(proto: onnx.ModelProto) -> None:
            (output,) = proto.graph.output
            proto.graph.node.append(
                helper.make_node("Cast", [output.name], ["wide"], to=onnx.TensorProto.DOUBLE)
            )
            wide = helper.make_tensor_value_info("wide", onnx.TensorProto.DOUBLE, ["batch", 3])
            if change == "type":
                del proto.graph.output[:]
            proto.graph.output.append(wide)

        change_networks(bundle, add)
        write_sums(bundle)
        message = {
            "type": "'wide' is double, expected float, float16 or uint8.",
            "outputs": "it has 2 outputs",
        }
        result = invoke("verify", bundle)
        assert (result.exit_code, message[change] in result.stderr) == (1, True), result.stderr

    def test_external_data_belong_to_a_bundle(self, bundle: Path) -> None:
        proto = onnx.load(bundle / "models" / "fp32.onnx")
        for path in ("models/fp32.onnx", "triton/colours/1/model.onnx"):
            (bundle / path).unlink()
        onnx.save(
            proto, bundle / "models" / "fp32.onnx", save_as_external_data=True, location="fp32.onnx.data",
            size_threshold=0,
        )  # fmt: skip
        served = bundle / "triton" / "colours" / "1"
        shutil.copy(bundle / "models" / "fp32.onnx", served / "model.onnx")
        shutil.copy(bundle / "models" / "fp32.onnx.data", served)
        write_sums(bundle)
        result = invoke("verify", bundle)
        assert result.exit_code == 0, result.stderr
        (served / "fp32.onnx.data").write_bytes(b"other")
        write_sums(bundle)
        assert "is not '" in invoke("verify", bundle).stderr

    def test_links_and_empty_folders_are_refused(self, bundle: Path, tmp_path: Path) -> None:
        (bundle / "triton" / "other").mkdir()
        assert "an empty folder: 'triton/other'." in invoke("verify", bundle).stderr
        (bundle / "triton" / "other").rmdir()
        (bundle / "labels.txt").rename(tmp_path / "labels.txt")
        (bundle / "labels.txt").symlink_to(tmp_path / "labels.txt")
        assert "a link or a device: 'labels.txt'." in invoke("verify", bundle).stderr

    @pytest.mark.parametrize(
        ("put", "message"),
        [
            (os.mkfifo, "SHA256SUMS': it is no regular file."),
            (
                lambda path: path.symlink_to("/dev/zero"),
                "SHA256SUMS': it is no regular file.",
            ),
            (Path.mkdir, "SHA256SUMS': Is a directory. Give the folder of a bundle."),
        ],
        ids=["pipe", "device", "folder"],
    )
    def test_sums_that_are_no_plain_file_are_not_read(
        self, bundle: Path, put: Callable[[Path], None], message: str
    ) -> None:
        (bundle / SUMS).unlink()
        put(bundle / SUMS)
        result = invoke("verify", bundle)
        assert (result.exit_code, message in result.stderr) == (1, True), result.stderr

    def test_sums_without_end_are_refused(self, bundle: Path) -> None:
        with (bundle / SUMS).open("ab") as file:
            file.truncate(1 << 40)
        result = invoke("verify", bundle)
        assert (result.exit_code, "it has 1048576 MiB, at most 16 MiB are read." in result.stderr) == (
            1,
            True,
        )

    @pytest.mark.parametrize("name", ["no-folder", "data"])
    def test_what_is_no_bundle_is_refused(self, run: Path, name: str) -> None:
        result = invoke("verify", run.parents[2] / name)
        assert result.exit_code == 1
        assert f"{SUMS}': No such file or directory. Give the folder of a bundle." in result.stderr

    @pytest.mark.parametrize(
        "change",
        ["network", "one network", "crash", "fill", "labels", "triton labels", "config", "input", "damage"],
    )
    def test_files_that_do_not_fit_each_other_are_refused(self, bundle: Path, change: str) -> None:
        message = TAMPERINGS[change](bundle)
        write_sums(bundle)
        result = invoke("verify", bundle)
        assert (result.exit_code, message in result.stderr) == (1, True), result.stderr

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([], "labels.txt': it has no class names. Make the bundle anew."),
            (["red"], "labels in its metadata: 1, expected 3, one for each class."),
            (["red", "green", "blue", "grey"], "labels in its metadata: 4, expected 3, one for each class."),
            (["red", "red", "red"], "labels.txt': 3 classes are called 'red'. Make the bundle anew."),
        ],
        ids=["none", "one", "more", "equal"],
    )
    def test_labels_that_are_not_one_for_each_class_are_refused(
        self, bundle: Path, labels: list[str], message: str
    ) -> None:
        def relabel(proto: onnx.ModelProto) -> None:
            entry = next(entry for entry in proto.metadata_props if entry.key == "graftonnx.labels")
            entry.value = json.dumps(labels)

        change_networks(bundle, relabel)
        for folder in (bundle, bundle / "triton" / "colours"):
            (folder / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
        write_sums(bundle)
        result = invoke("verify", bundle)
        assert (result.exit_code, message in result.stderr) == (1, True), result.stderr

    @pytest.mark.parametrize("change", ["no images", "many images", *TOLERANCES, *PROBABILITIES])
    def test_a_selfcheck_that_checks_nothing_or_never_ends_is_refused(
        self, bundle: Path, change: str
    ) -> None:
        inputs, outputs = (bundle / "selfcheck" / name for name in ("inputs.npz", "fp32.npz"))
        images, answers = np.load(inputs)["images"], dict(np.load(outputs))
        message = "its probabilities "
        if change in TOLERANCES:
            answers["tolerance"] = TOLERANCES[change]
            message = "its tolerance is no number from 0 to 0.001."
        elif change in PROBABILITIES:
            answers["probabilities"] = PROBABILITIES[change](answers["probabilities"])
        else:
            count = 0 if change == "no images" else 65
            images = np.zeros((count, *images.shape[1:]), np.uint8)
            answers["probabilities"] = np.zeros((count, 3), np.float32)
            message = f"it has {count} images, expected 1 to 64."
        np.savez_compressed(inputs, images=images)
        np.savez_compressed(outputs, **answers)
        write_sums(bundle)
        result = invoke("verify", bundle)
        assert (result.exit_code, message in result.stderr) == (1, True), result.stderr


def change_networks(bundle: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    """Change both copies of the network."""
    proto = onnx.load(bundle / "models" / "fp32.onnx")
    change(proto)
    for path in (bundle / "models" / "fp32.onnx", bundle / "triton" / "colours" / "1" / "model.onnx"):
        path.unlink()
        onnx.save(proto, path)


def change_network(bundle: Path) -> str:
    """Move a weight of the head, in both copies."""

    def move(proto: onnx.ModelProto) -> None:
        weight = next(tensor for tensor in proto.graph.initializer if tensor.name.startswith("head/"))
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(0.5), weight.name))

    change_networks(bundle, move)
    return "gives other probabilities than were recorded: they differ by "


def change_one_network(bundle: Path) -> str:
    change_network(bundle)
    served = bundle / "triton" / "colours" / "1" / "model.onnx"
    served.write_bytes(served.read_bytes() + b"")
    proto = onnx.load(served)
    proto.producer_name = "another"
    onnx.save(proto, served)
    return f"'{served}' is not '{bundle / 'models' / 'fp32.onnx'}'"


def crash(bundle: Path) -> str:
    """Put a network in the place that ends the process in onnx's checker."""
    kinds = [("Foo", "own", "a", "x"), ("LabelEncoder", "ai.onnx.ml", "x", "y")]
    nodes = [helper.make_node(op, [given], [made], domain=domain) for op, domain, given, made in kinds]
    values = [[helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 2])] for name in "ay"]
    imports = [helper.make_opsetid(domain, 1) for domain in ("own", "ai.onnx.ml")]
    path = bundle / "models" / "fp32.onnx"
    path.unlink()
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", *values), opset_imports=imports), path)
    return "(LabelEncoder) reads a value whose type the file does not state"


def fill(bundle: Path) -> str:
    """Put a network in the place of which a value is larger than memory."""
    path = bundle / "models" / "fp32.onnx"
    path.unlink()
    onnx.save(plain_cnn(size=40_000), path)
    return f"cannot run '{path}': the bytes of its value 'r0.conv'"


def change_labels(bundle: Path) -> str:
    (bundle / "labels.txt").write_text("blue\ngreen\nred\n")
    return "contradicts itself: its labels are not those in 'fp32.onnx'"


def change_triton_labels(bundle: Path) -> str:
    (bundle / "triton" / "colours" / "labels.txt").write_text("blue\ngreen\nred\n")
    return "its labels.txt are not the bundle's"


def change_config(bundle: Path) -> str:
    path = bundle / "triton" / "colours" / "config.pbtxt"
    path.write_text(path.read_text().replace("dims: 16", "dims: 64"))
    return "input in its config.pbtxt does not fit the network fp32"


def change_input(bundle: Path) -> str:
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["inputs"]["input"]["matrix"].reverse()
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    return "contradicts itself: its inputs are not those in 'fp32.onnx'"


def damage(bundle: Path) -> str:
    (bundle / "selfcheck" / "inputs.npz").write_bytes(b"PK\3\4 torn")
    return f"cannot read '{bundle / 'selfcheck' / 'inputs.npz'}'"


TAMPERINGS: dict[str, Any] = {
    "network": change_network,
    "one network": change_one_network,
    "crash": crash,
    "fill": fill,
    "labels": change_labels,
    "triton labels": change_triton_labels,
    "config": change_config,
    "input": change_input,
    "damage": damage,
}


class TestScript:
    def test_it_reproduces_the_selfcheck_with_three_packages(self, whole: Path, three_packages: Path) -> None:
        done = predict(whole, three_packages)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("probabilities differ by ")

    def test_it_fails_if_the_input_is_prepared_in_another_way(
        self, bundle: Path, three_packages: Path
    ) -> None:
        change_input(bundle)
        assert predict(bundle, three_packages).returncode == 1

    def test_it_answers_as_graftonnx_does_whatever_the_image(
        self, whole: Path, three_packages: Path, tmp_path: Path
    ) -> None:
        rng = np.random.default_rng(0)
        noise = Image.fromarray(rng.integers(0, 256, (40, 70, 3), np.uint8))
        turned = Image.Exif()
        turned[0x0112] = 6
        noise.save(tmp_path / "turned.jpg", exif=turned)
        noise.resize((700, 400)).save(tmp_path / "large.jpg")
        noise.convert("CMYK").save(tmp_path / "cmyk.jpg")
        noise.convert("P").save(tmp_path / "palette.gif")
        alpha = Image.fromarray(rng.integers(0, 256, (40, 70), np.uint8))
        Image.merge("RGBA", (*noise.split(), alpha)).save(tmp_path / "alpha.png")
        Image.merge("LA", (alpha, alpha)).save(tmp_path / "grey.png")
        Image.fromarray(rng.integers(0, 65536, (40, 70), np.uint16)).save(tmp_path / "deep.png")
        paths = sorted(tmp_path.iterdir())
        done = predict(whole, three_packages, *paths)
        assert (done.returncode, done.stderr) == (0, "")
        found = [line.split("\t") for line in done.stdout.splitlines()]
        expected = list(open_classifier(whole / "models" / "fp32.onnx", provider="cpu").predict(paths))
        assert [name for name, _, _ in found] == [str(path) for path in paths]
        for (_, label, probability), prediction in zip(found, expected, strict=True):
            assert prediction.probabilities is not None
            assert label == COLOURS[int(prediction.probabilities.argmax())]
            assert float(probability) == pytest.approx(float(prediction.probabilities.max()), abs=2e-6)

    @pytest.mark.parametrize("preset", ["imagenet", "caffe"])
    def test_it_prepares_the_input_as_the_network_wants(
        self, tmp_path: Path, three_packages: Path, preset: str
    ) -> None:
        onnx.save(
            colour_network(Metadata(input=InputConvention(preprocess=PRESETS[preset]), labels=COLOURS)),
            tmp_path / "m.onnx",
        )
        self.check(tmp_path / "m.onnx", tmp_path / "b", three_packages)

    def test_it_prepares_grey_and_separate_inputs(self, tmp_path: Path, three_packages: Path) -> None:
        grey = plain_cnn((8, 16), seed=1, size=24, channels=1)
        fused = fuse(
            from_proto(residual_cnn(4, depth=1), "a.onnx", preprocess="caffe"),
            from_proto(grey, "b.onnx"),
            classes=3,
            inputs="separate",
        )
        proto = fused.proto
        write_metadata(proto, read_metadata(proto).model_copy(update={"labels": COLOURS}))
        save(proto, tmp_path / "m.onnx")
        self.check(tmp_path / "m.onnx", tmp_path / "b", three_packages)

    def check(self, source: Path, bundle: Path, packages: Path) -> None:
        result = invoke("bundle", source, "-o", bundle)
        assert result.exit_code == 0, result.output
        done = predict(bundle, packages)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout

    @pytest.mark.pip
    @pytest.mark.skipif("GRAFTONNX_PIP" not in os.environ, reason="set GRAFTONNX_PIP=1 to install packages")
    def test_it_runs_in_a_new_environment(self, whole: Path, tmp_path: Path) -> None:
        venv.create(tmp_path / "new", with_pip=True)
        python = tmp_path / "new" / "bin" / "python"
        install = [python, "-m", "pip", "install", "-q", "-r", whole / "requirements.txt"]
        subprocess.run(install, check=True, capture_output=True)
        assert subprocess.run([python, whole / "predict.py"], check=False).returncode == 0


def test_two_precisions_behind_one_option_are_told_to_repeat_it(tmp_path: Path) -> None:
    result = invoke("bundle", "run", "-o", tmp_path / "b", "--precision", "fp32", "int8")
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "Got unexpected extra argument (int8). Repeat the option: --precision fp32 --precision int8.\n"
    )
