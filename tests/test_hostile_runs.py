"""Files that only turn against who runs them: memory, the processor, outputs and inputs of odd kinds."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from lookalikes import UNIT, colour_network, model, two_branches, write_image
from onnx import helper

from graftonnx.classifier import open_classifier
from graftonnx.drawing.picture import open_picture
from graftonnx.errors import ModelError
from graftonnx.model import from_proto
from graftonnx.normalise.sizes import check_sizes
from graftonnx.runtime.messages import _LONGEST, sentence


def run(path: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a command of graftonnx in a process of its own."""
    call = [sys.executable, "-m", "graftonnx", *map(str, words)]
    return subprocess.run(
        call,
        capture_output=True,
        text=True,
        check=False,
        cwd=path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def behind_a_crop(nodes: str, weights: dict[str, np.ndarray], **domains: int) -> onnx.ModelProto:
    """Return a network of which `s`, one number of the image, goes through nodes that make `o`, a number."""
    proto = model(
        f"""g (float[N, 3, 8, 8] input) => (float[N, 3] logits)
        {{ s = ReduceMax<keepdims = 0>(input)  {nodes}  p = GlobalAveragePool(input)  f = Flatten(p)
           logits = Add(f, o) }}""",
        weights,
        UNIT,
    )
    proto.opset_import.extend(helper.make_opsetid(name.replace("_", "."), v) for name, v in domains.items())
    return proto


TALL = np.ones((30_000, 1), np.float32)
FLAT = np.ones((1, 30_000), np.float32)


@pytest.mark.skipif("sys.platform != 'linux'")
@pytest.mark.parametrize(
    "proto",
    [
        behind_a_crop(
            "a = Mul(tall, s)  m = com.microsoft.FusedMatMul(a, flat)  o = ReduceMax<keepdims = 0>(m)",
            {"tall": TALL, "flat": FLAT},
            com_microsoft=1,
        ),
        behind_a_crop(
            'a = Mul(tall, s)  o = Einsum<equation = "ab,cb,ad,cd->">(a, tall, tall, tall)', {"tall": TALL}
        ),
    ],
    ids=["a shape that onnx does not know", "a value within an operator"],
)
def test_a_run_takes_no_more_memory_than_its_values(proto: onnx.ModelProto, tmp_path: Path) -> None:
    """30,000 x 30,000 numbers are 3.4 GB."""
    onnx.save(proto, tmp_path / "m.onnx")
    write_image(tmp_path / "1.png", (255, 0, 0))
    done = run(tmp_path, "predict", "m.onnx", "1.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "Error: cannot run 'm.onnx': ONNX Runtime takes more memory than the file should need; the limit is "
    )


def test_a_network_of_large_values_takes_a_part_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(colour_network(size=512), tmp_path / "m.onnx")
    for k in range(6):
        write_image(tmp_path / f"{k}.png", (40 * k, 0, 0))
    classifier = open_classifier(tmp_path / "m.onnx", provider="cpu")
    assert classifier.session.sizes is not None
    assert classifier.session.sizes.largest == 4 * 3 * 512 * 512
    whole = classifier.probabilities
    found: list[int] = []

    def counted(images: np.ndarray) -> np.ndarray:
        found.append(len(images))
        return whole(images)

    monkeypatch.setattr(classifier, "probabilities", counted)
    paths = [tmp_path / f"{k}.png" for k in range(6)]
    assert len(list(classifier.predict(paths, batch_size=6))) == 6
    monkeypatch.setattr("graftonnx.classifier.TOGETHER", 4 * classifier.session.sizes.largest)
    assert len(list(classifier.predict(paths, batch_size=6))) == 6
    assert found == [6, 3, 3]

    ran: list[int] = []
    monkeypatch.setattr(classifier.session, "bounded", lambda count: ran.append(count) or nullcontext())
    assert whole(np.zeros((6, 512, 512, 3), np.uint8)).shape == (6, 3)
    assert ran == [4, 2]


class TestDivisions:
    """In ONNX Runtime the smallest integer divided by -1 ends the process."""

    @pytest.mark.parametrize("kind", ["Div", "Mod"])
    @pytest.mark.parametrize("divisor", ["ones", "q"])
    def test_what_may_be_minus_one_is_refused(self, kind: str, divisor: str, tmp_path: Path) -> None:
        proto = behind_a_crop(
            f"i = Cast<to = 6>(s)  q = Add(i, least)  d = {kind}(q, {divisor})  o = Cast<to = 1>(d)",
            {"least": np.int32(-(2**31)), "ones": np.int32([-1])},
        )
        message = rf"its node 'd' \({kind}\) divides integers by what may be -1, which can end the process"
        with pytest.raises(ModelError, match=message):
            check_sizes(proto)
        onnx.save(proto, tmp_path / "m.onnx")
        with pytest.raises(ModelError, match=message):
            open_classifier(tmp_path / "m.onnx", provider="cpu")
        with pytest.raises(ModelError, match=message):
            from_proto(proto, "m")

    def test_one_inside_another_graph_is_refused(self) -> None:
        proto = behind_a_crop(
            """i = Cast<to = 6>(s)  c = Greater(s, zero)
               d = If(c) <then_branch = t () => (int32 e) { e = Div(i, ones) },
                          else_branch = u () => (int32 g) { g = Identity(i) }>
               o = Cast<to = 1>(d)""",
            {"zero": np.float32(0), "ones": np.int32(-1)},
        )
        with pytest.raises(ModelError, match=r"its node 'e' \(Div\) divides integers by what may be -1"):
            check_sizes(proto)

    @pytest.mark.parametrize(
        "nodes",
        [
            "i = Cast<to = 6>(s)  d = Div(i, two)  o = Cast<to = 1>(d)",
            "i = Cast<to = 6>(s)  d = Mod(i, two)  o = Cast<to = 1>(d)",
            "o = Div(s, least)",
            """h = Shape(input)  w = Slice(h, starts, ends)  v = Slice(h, ends, last)  d = Div(v, w)
               e = Cast<to = 1>(d)  o = ReduceMax<keepdims = 0>(e)""",
        ],
        ids=["constant", "remainder", "floats", "extents"],
    )
    def test_others_are_taken(self, nodes: str, tmp_path: Path) -> None:
        constants = {"starts": [1], "ends": [2], "last": [3]}
        weights = {name: np.int64(value) for name, value in constants.items()}
        proto = behind_a_crop(nodes, {"two": np.int32(2), "least": np.float32(-1), **weights})
        check_sizes(proto)
        onnx.save(proto, tmp_path / "m.onnx")
        open_classifier(tmp_path / "m.onnx", provider="cpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "g (float[N, 3, 8, 8] x) => (float[K] y) { p = GlobalAveragePool(x)  y = Reshape(p, all) }",
            r"its output is \['K'\]; expected \[N, classes\] with a fixed number of classes",
        ),
        (
            "g (float[N, 3, 8, 8] x) => (seq(float[N, 3]) y) { p = GlobalAveragePool(x)  f = Flatten(p)"
            "  y = SequenceConstruct(f) }",
            r"its output is \[\]; expected \[N, classes\]",
        ),
        (
            "g (string[N, 3, 8, 8] x) => (float[N, 3] y) { n = Cast<to = 1>(x)  p = GlobalAveragePool(n)"
            "  y = Flatten(p) }",
            r"its input 'x' is string, expected a tensor of numbers",
        ),
        ("g () => (float[1, 3] y) { y = Identity(three) }", r"it has no input, expected images\."),
    ],
    ids=["one axis", "a sequence", "texts", "no input"],
)
def test_what_takes_no_images_or_gives_no_classes_is_refused(text: str, message: str, tmp_path: Path) -> None:
    proto = model(text, {"all": np.int64([-1]), "three": np.ones((1, 3), np.float32)}, UNIT)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=f"^cannot use 'm.onnx': {message}"):
        open_classifier(tmp_path / "m.onnx", provider="cpu")


def test_one_row_for_several_images_is_refused(tmp_path: Path) -> None:
    """It says that it gives a row for each."""
    proto = model(
        """g (float[N, 3, 8, 8] x) => (float[N, 3] y)
        { m = ReduceMean(x, axes)  f = Flatten(m)  y = Mul(f, two) }""",
        {"axes": np.int64([0, 2, 3]), "two": np.float32(2)},
        UNIT,
    )
    onnx.save(proto, tmp_path / "m.onnx")
    classifier = open_classifier(tmp_path / "m.onnx", provider="cpu")
    assert classifier.probabilities(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 3)
    with pytest.raises(ModelError, match=r"it gives \[1, 3\], expected \[2, 3\], a row for each image\."):
        classifier.probabilities(np.zeros((2, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("text", ["/onnxruntime", "/onnxruntime.cc:1 ::", "/a/onnxruntime/b.cc:1 (", ":: "])
def test_names_in_a_message_of_onnx_runtime_cost_no_time(text: str) -> None:
    """Without a limit on what is read, the first takes hours."""
    assert len(sentence(RuntimeError(text * 30_000))) <= _LONGEST + 1


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense"])
def test_a_file_whose_plan_is_none_is_not_drawn(text: str) -> None:
    proto = two_branches()
    next(entry for entry in proto.metadata_props if entry.key == "graftonnx.plan").value = text
    with pytest.raises(ModelError, match=r"its metadata 'graftonnx.plan' is damaged: .*\. Fuse again\."):
        open_picture(from_proto(proto, "m"), [])


def test_a_scan_of_many_pieces_is_refused() -> None:
    proto = behind_a_crop(
        """b = Expand(s, long)  o, all = Scan <num_scan_inputs = 1, body =
             t (float before, float piece) => (float after, float copy) {
               after = Max(before, piece)  copy = Identity(piece) }> (s, b)""",
        {"long": np.int64([100_001])},
    )
    with pytest.raises(ModelError, match=r"the steps of its loop 'o' are 100,001; the limit is 100,000\."):
        check_sizes(proto)


@pytest.mark.parametrize(("steps", "is_refused"), [(5, False), (6, True)])
def test_the_results_of_all_steps_of_a_loop_are_counted(steps: int, *, is_refused: bool) -> None:
    """100 MB in each step, 537 MB at most."""
    proto = behind_a_crop(
        """end, all = Loop <body =
             t (int64 i, bool was, float before) => (bool going, float after, float[25000000] copy) {
               going = Identity(was)  after = Identity(before)  copy = Expand(before, long) }>
             (steps, yes, s)
           o = Identity(end)""",
        {"steps": np.int64(steps), "yes": np.bool_(True), "long": np.int64([25_000_000])},
    )
    if is_refused:
        message = r"the bytes of its value 'all', of 6 steps, are 600,000,000; the limit is 536,870,912\."
        with pytest.raises(ModelError, match=message):
            check_sizes(proto)
    else:
        check_sizes(proto)
