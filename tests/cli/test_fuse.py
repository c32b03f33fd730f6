"""`inspect`, `match` and `fuse` as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Builder, plain_cnn, residual_cnn, saved, token_net
from click.testing import CliRunner, Result
from onnx import numpy_helper
from PIL import Image

from graftonnx.cli import graftonnx
from graftonnx.metadata import read_metadata, write_metadata
from graftonnx.plan import read_plan


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the parents a.onnx and b.onnx, and the current directory."""
    saved(residual_cnn(depth=3), tmp_path / "a.onnx")
    saved(plain_cnn((8, 16, 32), seed=1), tmp_path / "b.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(graftonnx, list(arguments))


def test_inspect_prints_taps_and_feature(work: Path) -> None:
    result = call("inspect", "a.onnx")
    assert result.exit_code == 0
    assert "feature     s2 [N, 8, 16, 16]" in result.stdout
    assert "s0.inner" in result.stdout


def test_inspect_as_json_is_json_and_complete(work: Path) -> None:
    facts = json.loads(call("inspect", "b.onnx", "--json").stdout)
    assert facts["input"]["shape"] == ["batch", 3, 16, 16]
    assert facts["feature"] == {"name": "r2", "shape": ["batch", 32, 4, 4]}
    assert facts["parameters"] == 3 * 8 * 9 + 8 * 16 * 9 + 16 * 32 * 9 + 32 * 4 + 4
    assert facts["macs"] == 3 * 8 * 9 * 256 + 8 * 16 * 9 * 64 + 16 * 32 * 9 * 16 + 32 * 4
    assert [tap["name"] for tap in facts["taps"]] == ["r0", "r1"]


def test_the_batch_of_a_fused_file_is_no_news(work: Path) -> None:
    saved(token_net(size=8), work / "a.onnx")
    assert "batch made dynamic" in call("inspect", "a.onnx").stdout
    call("fuse", "a.onnx", "-o", "f.onnx")
    model = onnx.load("a.onnx")
    write_metadata(model, read_metadata(onnx.load("f.onnx")))
    onnx.save(model, "fused.onnx")
    told = call("inspect", "fused.onnx")
    assert told.exit_code == 0
    assert "batch made dynamic" not in told.stdout


def test_inspect_shows_another_input_size(work: Path) -> None:
    facts = json.loads(call("inspect", "b.onnx", "--input-size", "24x32", "--json").stdout)
    assert facts["input"]["shape"] == ["batch", 3, 24, 32]


def test_match_prints_exchanges_and_reasons_and_writes_the_plan(work: Path) -> None:
    result = call("match", "a.onnx", "b.onnx", "-o", "plan.yaml", "--max-skips", "1")
    assert result.exit_code == 0
    assert "1 exchanges" in result.stdout
    assert "is exchanged with" in result.stdout
    assert len(read_plan(work / "plan.yaml").skips) == 2


FAR = "; `--policy all` also takes grids that differ by more than two"


def test_match_names_the_way_out_where_all_grids_are_too_far_apart(work: Path) -> None:
    saved(plain_cnn((8, 16), size=64), work / "b.onnx")
    result = call("match", "a.onnx", "b.onnx")
    assert "note: nothing is exchanged; the branches meet in the head only" + FAR in result.stderr
    assert "0 exchanges" in result.stdout
    assert "and tap" not in result.stdout
    widened = call("match", "a.onnx", "b.onnx", "--policy", "all")
    assert "nothing is exchanged" not in widened.stderr
    assert "and tap" in widened.stdout


def test_match_names_no_way_out_where_nothing_was_asked_for(work: Path) -> None:
    result = call("match", "a.onnx", "b.onnx", "--max-skips", "0")
    assert "note: nothing is exchanged; the branches meet in the head only\n" in result.stderr


def test_a_direction_taken_out_of_a_plan_is_shown_as_none(work: Path) -> None:
    call("match", "a.onnx", "b.onnx", "-o", "plan.yaml", "--max-skips", "1")
    plan = read_plan(work / "plan.yaml")
    kept = next(skip for skip in plan.skips if skip.target.startswith("a/"))
    (work / "plan.yaml").write_text(plan.model_copy(update={"skips": (kept,)}).to_yaml())
    result = call("fuse", "a.onnx", "b.onnx", "--dry-run", "--plan", "plan.yaml")
    (row,) = [line.split("│") for line in result.stdout.splitlines() if kept.target in line][:1]
    assert [cell.strip() for cell in row[4:6]] == [str(kept.projection), "none"]


def test_match_as_json_is_the_plan(work: Path) -> None:
    plan = json.loads(call("match", "a.onnx", "b.onnx", "--json").stdout)
    assert plan["version"] == 1
    assert {skip["target"].split("/")[0] for skip in plan["skips"]} == {"a", "b"}


def test_fuse_writes_a_valid_file_that_explains_itself(work: Path) -> None:
    (work / "labels.txt").write_text("cat\ndog\nbird\n\n")
    result = call(
        *("fuse", "a.onnx", "b.onnx", "-o", "fused.onnx", "--labels", "labels.txt"),
        *("--preprocess", "a=imagenet", "b=inception"),
    )
    assert result.exit_code == 0, result.output
    assert "branch a equals a.onnx bit for bit; branch b equals b.onnx bit for bit" in result.stdout
    model = onnx.load("fused.onnx")
    onnx.checker.check_model(model, full_check=True)
    metadata = read_metadata(model)
    assert metadata.labels == ("cat", "dog", "bird")
    assert [parent.preprocess.std for parent in metadata.parents] == [(0.229, 0.224, 0.225), (0.5,)]


def test_fuse_accepts_explicit_preprocessing_numbers(work: Path) -> None:
    result = call(
        *("fuse", "a.onnx", "-o", "f.onnx", "--classes", "3"),
        *("--preprocess", "a=bgr,scale=255,mean=104:117:123,std=2"),
    )
    assert result.exit_code == 0, result.output
    (parent,) = read_metadata(onnx.load("f.onnx")).parents
    assert parent.preprocess.mean == (104, 117, 123)
    assert (parent.preprocess.order, parent.preprocess.scale, parent.preprocess.std) == ("bgr", 255, (2,))


def test_guessed_preprocessing_is_said_on_stderr(work: Path) -> None:
    result = call("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--classes", "3")
    assert "note: preprocessing of a guessed 'imagenet'" in result.stderr
    assert "note:" not in result.stdout


def test_a_guess_is_said_by_match_kept_in_the_plan_and_said_by_fuse(work: Path) -> None:
    note = "note: preprocessing of b guessed 'imagenet': made by "
    assert note in call("match", "a.onnx", "b.onnx", "-o", "plan.yaml", "--preprocess", "a=unit").stderr
    reasons = [parent.preprocess_reason for parent in read_plan(work / "plan.yaml").parents.values()]
    assert reasons[0] == "given"
    assert reasons[1].startswith("guessed 'imagenet'")
    planned = call("fuse", "a.onnx", "b.onnx", "--dry-run", "--plan", "plan.yaml")
    assert note in planned.stderr
    assert "preprocessing of a" not in planned.stderr


def test_what_somebody_set_is_no_guess_any_more(work: Path) -> None:
    call("match", "a.onnx", "b.onnx", "-o", "plan.yaml")
    text = (work / "plan.yaml").read_text()
    assert text.count("0.485") == 2
    (work / "plan.yaml").write_text(text.replace("0.485", "0.5", 1))
    result = call(
        *("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--plan", "plan.yaml", "--preprocess", "b=unit")
    )
    assert "preprocessing of" not in result.stderr
    parents = read_metadata(onnx.load("f.onnx")).parents
    assert [parent.preprocess.mean for parent in parents] == [(0.5, 0.456, 0.406), (0,)]


def test_fuse_with_a_plan_gives_the_same_file_as_without(work: Path) -> None:
    call("match", "a.onnx", "b.onnx", "-o", "plan.yaml")
    assert call("fuse", "a.onnx", "b.onnx", "-o", "one.onnx", "--classes", "3").exit_code == 0
    assert (
        call("fuse", "a.onnx", "b.onnx", "-o", "two.onnx", "--classes", "3", "--plan", "plan.yaml").exit_code
        == 0
    )
    assert (work / "one.onnx").read_bytes() == (work / "two.onnx").read_bytes()


def test_fuse_says_when_a_plan_was_made_for_another_file(work: Path) -> None:
    call("match", "a.onnx", "b.onnx", "-o", "plan.yaml")
    saved(residual_cnn(depth=3, seed=5), work / "a.onnx")
    result = call("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--classes", "3", "--plan", "plan.yaml")
    assert result.exit_code == 0
    assert "note: a (a.onnx) is not the file that the plan was made for" in result.stderr


@pytest.mark.parametrize("command", [["fuse", "--plan"], ["view"]])
def test_parents_in_another_order_than_the_plans_are_refused(work: Path, command: list[str]) -> None:
    call("match", "a.onnx", "b.onnx", "-o", "plan.yaml")
    result = call(
        *command, "plan.yaml", "b.onnx", "a.onnx", "-o", "f.onnx" if "fuse" in command else "f.html"
    )
    assert result.exit_code == 1
    assert "the plan has a.onnx first. Give the files in its order: a.onnx b.onnx." in result.stderr
    assert "note:" not in result.stderr
    assert not list(work.glob("f.*"))


def test_a_dry_run_prints_the_plan_and_writes_nothing(work: Path) -> None:
    before = set(work.iterdir())
    result = call("fuse", "a.onnx", "b.onnx", "--dry-run", "-o", "fused.onnx")
    assert result.exit_code == 0
    assert "exchanges" in result.stdout
    assert set(work.iterdir()) == before


def test_fuse_as_json_reports_cost_and_proofs(work: Path) -> None:
    facts = json.loads(call("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--classes", "3", "--json").stdout)
    assert facts["proofs"] == [
        "valid ONNX",
        "runs with batch 1 and 3",
        "branch a equals a.onnx bit for bit",
        "branch b equals b.onnx bit for bit",
    ]
    assert facts["macs"] > facts["parents_macs"] > 0
    assert facts["bytes"] == (work / "f.onnx").stat().st_size


def test_skip_init_paper_adds_plainly(work: Path) -> None:
    saved(residual_cnn(depth=3, seed=2), work / "b.onnx")
    assert call("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--skip-init", "paper").exit_code == 0
    names = {tensor.name for tensor in onnx.load("f.onnx").graph.initializer}
    assert not any(name.startswith("skips/") for name in names)


def test_max_skips_limits_the_exchanges(work: Path) -> None:
    plan = json.loads(call("fuse", "a.onnx", "b.onnx", "--dry-run", "--max-skips", "1", "--json").stdout)
    assert len(plan["skips"]) == 2


@pytest.mark.parametrize("into", ["a", "b"])
def test_skips_lead_into_the_branches_asked_for(work: Path, into: str) -> None:
    done = call("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--classes", "3", "--into", into, "--json")
    facts = json.loads(done.stdout)
    assert {skip["target"][0] for skip in facts["plan"]["skips"]} == {into}
    assert facts["exchanges"] == len(facts["plan"]["skips"]) > 0
    assert {"branch a equals a.onnx bit for bit", "branch b equals b.onnx bit for bit"} <= set(
        facts["proofs"]
    )
    call("match", "a.onnx", "b.onnx", "-o", "plan.yaml", "--into", into)
    call("fuse", "a.onnx", "b.onnx", "-o", "g.onnx", "--classes", "3", "--plan", "plan.yaml")
    assert (work / "f.onnx").read_bytes() == (work / "g.onnx").read_bytes()


def test_skips_into_every_branch_are_the_default(work: Path) -> None:
    plain = call("match", "a.onnx", "b.onnx", "--json").stdout
    assert call("match", "a.onnx", "b.onnx", "--json", "--into", "b, a").stdout == plain


def test_a_parent_that_cannot_run_at_the_size_keeps_its_own_and_says_so(work: Path) -> None:
    net = Builder()
    value = net.block("image", "r0", 3, 8)
    value = net.node("Add", [value, net.weight("a weight for each place", 1, 8, 16, 16)], "sum")
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    saved(net.model("scores", ["batch", 4]), work / "a.onnx")
    result = call("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--input-size", "20", "--classes", "3")
    assert result.exit_code == 0, result.output
    assert "note: a (a.onnx) keeps 16x16: it cannot run at 20x20 pixels" in result.stderr


def test_one_parent_alone_is_reported_as_one(work: Path) -> None:
    result = call("fuse", "a.onnx", "-o", "f.onnx", "--classes", "3")
    assert result.exit_code == 0
    assert "exchanges" not in result.stdout
    assert "proved: valid ONNX; runs with batch 1 and 3; branch a equals a.onnx bit for bit" in result.stdout


def test_another_input_size_is_proven_against_the_parent_as_loaded(work: Path) -> None:
    result = call("fuse", "a.onnx", "-o", "f.onnx", "--classes", "3", "--input-size", "24")
    assert "branch a equals a.onnx as it was loaded, bit for bit" in result.stdout


def test_the_order_of_parents_in_a_plan_does_not_matter(work: Path) -> None:
    saved(plain_cnn((8, 16, 32), seed=1, size=20), work / "b.onnx")
    call("match", "a.onnx", "b.onnx", "-o", "plan.yaml")
    plan = read_plan(work / "plan.yaml")
    turned = plan.model_copy(update={"parents": dict(reversed(plan.parents.items()))})
    (work / "plan.yaml").write_text(turned.to_yaml())
    result = call("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--classes", "3", "--plan", "plan.yaml")
    assert result.exit_code == 0, result.output


def test_a_plan_for_other_parents_names_those_that_it_wants(work: Path) -> None:
    call("match", "a.onnx", "b.onnx", "-o", "plan.yaml")
    result = call("fuse", "a.onnx", "-o", "f.onnx", "--classes", "3", "--plan", "plan.yaml")
    assert result.exit_code == 1
    assert "is for 2 parents, 1 are given. Give a.onnx, b.onnx, in this order, or make" in result.stderr
    assert not (work / "f.onnx").exists()


@pytest.mark.parametrize("option", [["--max-skips", "0"], ["--input-size", "20"], ["--into", "a"]])
def test_what_the_plan_says_cannot_be_said_beside_it(work: Path, option: list[str]) -> None:
    call("match", "a.onnx", "b.onnx", "-o", "plan.yaml")
    result = call("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--plan", "plan.yaml", *option)
    assert result.exit_code == 2
    assert f"{option[0]} and --plan exclude each other" in result.stderr


BAD = [
    (["fuse", "a.onnx", "b.onnx", "-o", ".", "--force"], 2, "is a directory."),
    (
        ["match", "a.onnx", "b.onnx", "-o", ".", "--force"],
        1,
        "it is a folder. Give the name of a file in it.",
    ),
    (
        ["match", "a.onnx", "b.onnx", "--preprocess", "a=mean=1:2"],
        1,
        "2 numbers in mean, its input 3 channels",
    ),
    (["fuse", "a.onnx", "b.onnx"], 2, "Missing option '-o' / '--output'."),
    (["fuse"], 2, "Missing argument 'A [B ...]'."),
    (["fuse", *["a.onnx"] * 27, "-o", "f.onnx"], 2, "27 parents given; expected 1 to 26"),
    (["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--skip-init", "lsq"], 2, "needs images: pass --calibrate"),
    (["fuse", "a.onnx", "-o", "f.onnx", "--max-skips", "2"], 2, "one network exchanges nothing"),
    (["fuse", "a.onnx", "-o", "f.onnx", "--into", "a"], 2, "one network exchanges nothing"),
    (
        ["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--into", "a,c"],
        2,
        "--into 'a,c': there is no branch 'c'",
    ),
    (["match", "a.onnx", "b.onnx", "--into", "c"], 2, "the parents are a, b in the order given."),
    (["match", "a.onnx", "b.onnx", "--into", ""], 2, "'' does not name branches; expected their letters"),
    (["match", "a.onnx", "b.onnx", "--into", "a,,b"], 2, "expected their letters, as a or a,c."),
    (["match", "a.onnx", "b.onnx", "--into", "a,a"], 2, "'a,a' names branch 'a' twice; give each once"),
    (["fuse", "a.onnx", "-o", "f.onnx", "--calibrate", "images"], 2, "one network exchanges nothing"),
    (["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--seed", "-1"], 2, "-1 is not in the range x>=0"),
    (["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--input-size", "99999"], 2, "1 to 32768 pixels"),
    (["match", "a.onnx", "b.onnx", "--max-flops", "5x"], 2, "'5x' is no amount; expected as +5% or +1M"),
    (["match", "a.onnx", "b.onnx", "--calibrate", "gone"], 1, "cannot read images from 'gone': there is no"),
    (["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--classes", "0"], 2, "0 is not in the range x>=2."),
    (["fuse", "a.onnx", "gone.onnx", "-o", "f.onnx"], 1, "cannot read 'gone.onnx': there is no such file."),
    (["fuse", "a.onnx", "text.onnx", "-o", "f.onnx"], 1, "cannot read 'text.onnx': it is not an ONNX file"),
    (["fuse", "a.onnx", "cut.onnx", "-o", "f.onnx"], 1, "it is not an ONNX file, or it is truncated"),
    (["fuse", "a.onnx", "table.onnx", "-o", "f.onnx"], 1, "its input 'image' is float [N, 8]; expected"),
    (["fuse", "a.onnx", "b.onnx", "-o", "here.onnx"], 1, "cannot write 'here.onnx': it exists. Choose"),
    (["fuse", "a.onnx", "b.onnx", "-o", "no/such/f.onnx"], 1, "the folder 'no/such' does not exist."),
    (
        ["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--labels", "gone.txt"],
        1,
        "cannot read labels from 'gone.txt'",
    ),
    (
        ["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--labels", "one.txt"],
        1,
        "one name; expected two or more",
    ),
    (
        ["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--labels", "twice.txt"],
        1,
        "'cat' stands in lines 1 and 3",
    ),
    (["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--plan", "gone.yaml"], 1, "cannot read plan 'gone.yaml'"),
    (["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--preprocess", "c=raw"], 2, "there is no branch 'c'"),
    (["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--preprocess", "a=vgg"], 2, "'vgg' is neither a preset"),
    (
        ["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--preprocess", "raw"],
        2,
        "expected <branch>=<convention>",
    ),
    (["fuse", "a.onnx", "-o", "f.onnx", "--preprocess", "a=std=1:x"], 2, "(found 'x')."),
    (["fuse", "a.onnx", "-o", "f.onnx", "--preprocess", "a=std=0"], 2, "greater than or equal to 0.000001"),
    (["fuse", "a.onnx", "-o", "f.onnx", "--preprocess", "a=mean=1e308"], 2, "less than or equal to 1000000"),
    (["fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--input-size", "big"], 2, "'big' is not a size"),
    (["match", "a.onnx"], 2, "1 parents given; expected two or more: graftonnx match A B [C ..."),
    (["inspect", "gone.onnx"], 1, "cannot read 'gone.onnx': there is no such file."),
]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"), BAD, ids=lambda v: "-".join(v)[-40:] if isinstance(v, list) else ""
)
def test_bad_input_gets_one_sentence_and_writes_nothing(
    work: Path, arguments: list[str], code: int, sentence: str
) -> None:
    whole = (work / "b.onnx").read_bytes()
    (work / "text.onnx").write_text("not a network")
    (work / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (work / "here.onnx").write_text("precious")
    (work / "one.txt").write_text("cat\n")
    (work / "twice.txt").write_text("cat\ndog\ncat\n")
    net = Builder()
    net.node("Gemm", ["image", net.weight("w", 4, 8)], "scores", transB=1)
    saved(net.model("scores", ["batch", 4], image=["batch", 8]), work / "table.onnx")
    before = {path: path.read_bytes() for path in work.iterdir()}
    result = call(*arguments)
    assert result.exit_code == code
    assert sentence in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert {path: path.read_bytes() for path in work.iterdir()} == before


@pytest.mark.shared
@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("refuse_face_detection_pytorch1.2_opset9.onnx", "it is not a classifier: its outputs are 'scores'"),
        (
            "refuse_iris_mlp_pytorch1.7_opset11.onnx",
            "its input 'input' is float [N, 4]; expected a float image",
        ),
        ("refuse_mnist_brevitas_quant_opset9.onnx", "is operator 'Quant', which ONNX does not define"),
        ("refuse_mnist_no_opset_import.onnx", "it has no opset_import for the default domain"),
        ("refuse_super_resolution_customops_opset11.onnx", "of domain 'ai.onnx.contrib', which is not part"),
    ],
)
def test_real_files_that_cannot_be_fused_are_refused_in_one_sentence(
    work: Path, shared_models: Path, file: str, sentence: str
) -> None:
    result = call("fuse", "a.onnx", str(shared_models / file), "-o", "f.onnx")
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (work / "f.onnx").exists()


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    result = call("fues")
    assert result.exit_code == 2
    assert "No such command 'fues'. Did you mean 'fuse'?" in result.stderr


def test_help_imports_neither_torch_nor_onnxruntime_nor_onnx() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from graftonnx.cli import graftonnx; "
        "result = CliRunner().invoke(graftonnx, ['--help']); assert result.exit_code == 0; "
        "heavy = {'torch', 'lightning', 'onnxruntime', 'onnx', 'numpy', 'matplotlib', 'pydantic'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "name",
    ["inspect", "match", "fuse", "train", "compare", "export", "bundle", "verify", "eval", "predict", "zoo"],
)
def test_the_help_of_every_command_imports_neither_torch_nor_onnxruntime(name: str) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from graftonnx.cli import graftonnx; "
        f"result = CliRunner().invoke(graftonnx, ['{name}', '--help']); assert result.exit_code == 0; "
        "print(sorted({'torch', 'lightning', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_budget_is_a_share_or_a_number(work: Path) -> None:
    def skips(*options: str) -> int:
        result = call("match", "a.onnx", "b.onnx", "--json", *options)
        assert result.exit_code == 0, result.output
        return len(json.loads(result.stdout)["skips"])

    assert skips() > skips("--max-params", "+200") > 0
    assert skips("--max-flops", "100%") == skips("--max-params", "1M") == skips()
    assert skips("--max-flops", "0") == skips("--max-params", "0%") == 0
    assert skips("--policy", "exact") < skips("--policy", "all")


def test_images_rank_pairs_and_fit_projections(work: Path) -> None:
    rng = np.random.default_rng(0)
    (work / "images" / "cat").mkdir(parents=True)
    for index in range(33):
        pixels = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((20, 20)).save(work / "images" / "cat" / f"{index}.png")
    options = ("--calibrate", "images", "--skip-init", "lsq")
    result = call("fuse", "a.onnx", "b.onnx", "-o", "f.onnx", "--classes", "3", *options)
    assert result.exit_code == 0, result.output
    assert "calibrating on 32 images of images" in result.stderr
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load("f.onnx").graph.initializer}
    weights = [array for name, array in tensors.items() if name.startswith("skips/")]
    assert weights
    assert all(np.abs(array).max() > 0 for array in weights)
    plan = json.loads(call("match", "a.onnx", "b.onnx", "--calibrate", "images", "--json", "-q").stdout)
    other = json.loads(call("match", "a.onnx", "b.onnx", "--json").stdout)
    assert [skip["score"] for skip in plan["skips"]] != [skip["score"] for skip in other["skips"]]


def test_three_parents_fuse_and_a_plan_of_theirs_is_replayed(work: Path) -> None:
    assert call("match", "a.onnx", "b.onnx", "a.onnx", "-o", "plan.yaml").exit_code == 0
    for name in ("one.onnx", "two.onnx"):
        result = call("fuse", "a.onnx", "b.onnx", "a.onnx", "-o", name, "--plan", "plan.yaml")
        assert result.exit_code == 0, result.output
    assert (work / "one.onnx").read_bytes() == (work / "two.onnx").read_bytes()
    assert "branch c equals a.onnx bit for bit" in " ".join(result.stdout.split())


def test_an_absurd_head_is_refused_in_a_sentence(work: Path) -> None:
    result = call("fuse", "a.onnx", "b.onnx", "--hidden", "1000000000", "-o", "fused.onnx")
    assert (result.exit_code, Path("fused.onnx").exists()) == (1, False)
    assert "Error: cannot build the head: 1000000000 hidden units" in result.stderr
