"""Checkpoints: what loads, and the sentence for each thing that does not."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from graftonnx.models.checkpoint import CheckpointError, load_state_dict, read_state_dict
from graftonnx.models.custom16 import Custom16
from graftonnx.models.inception_v3 import InceptionV3
from graftonnx.models.squeezenet import SqueezeNet

State = dict[str, Tensor]
CLASSIFIER = "classifier.1"


@pytest.fixture
def network() -> SqueezeNet:
    return SqueezeNet("1.1", classes=4, width=0.25).eval()


@pytest.fixture
def state() -> State:
    torch.manual_seed(1)
    return SqueezeNet("1.1", classes=4, width=0.25).state_dict()


def same(module: nn.Module, state: State) -> bool:
    return all(torch.equal(module.state_dict()[key], value) for key, value in state.items())


class Payload:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (eval, ("1/0",))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".PTH"])
def test_what_torch_saved_loads(tmp_path: Path, network: SqueezeNet, state: State, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    torch.save(state, path)
    assert load_state_dict(network, read_state_dict(path), classifier=CLASSIFIER) == []
    assert same(network, state)


def test_the_older_format_of_torch_loads(tmp_path: Path, network: SqueezeNet, state: State) -> None:
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    load_state_dict(network, read_state_dict(tmp_path / "w.pth"), classifier=CLASSIFIER)
    assert same(network, state)


def test_weights_in_the_format_before_pytorch_1_6_load(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    found = read_state_dict(tmp_path / "w.pth")
    assert all(torch.equal(found[key], value) for key, value in state.items())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_a_checkpoint_that_asks_for_memory_is_refused(tmp_path: Path, zipped: bool) -> None:
    content = b"\x80\x02}X\x01\x00\x00\x00ac__builtin__\nbytearray\nJ\x00\x00\x00\x40\x85Rs."
    if zipped:
        with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("w/data.pkl", content)
    else:
        (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot read .* (it is damaged|its parts are compressed)"):
        read_state_dict(tmp_path / "w.pth")


NOTHING = pickle.dumps({}, protocol=2)


def two_directories(path: Path) -> None:
    """Write a zip file in which Python finds one directory, and PyTorch another."""
    parts = []
    for content in (b"\x80\x02]r\x07\0\0\0.", NOTHING):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("w/data.pkl", content.ljust(16, b"\0"))
            file.writestr("w/version", "3\n")
        content = path.read_bytes()
        start = content.rindex(b"PK\5\6")
        offset = int.from_bytes(content[start + 16 : start + 20], "little")
        parts.append((content[:offset], content[offset:start], content[start:]))
    (entries, directory, end), (other_entries, other_directory, _) = parts
    assert len(directory) == len(other_directory)
    # Python takes the distance between the two directories for something in front of the file.
    path.write_bytes(entries + directory + other_entries + other_directory + end)


def two_cases(path: Path) -> None:
    """Write a zip file with `data.pkl` and another one in capitals, which PyTorch may take for the same."""
    with zipfile.ZipFile(path, "w") as file:
        for name in ("w/DATA.PKL", "w/data.pkl"):
            file.writestr(name, NOTHING)


def appended(path: Path) -> None:
    torch.save({}, path)
    with path.open("ab") as file:
        file.write(b"\0" * 5)


def wide_end(path: Path) -> None:
    """Let the record of wide numbers, which PyTorch reads, name another place than the narrow one."""
    torch.save({}, path)
    content = bytearray(path.read_bytes())
    content[-98 + 48] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_directories, "its directory is not where its end says"),
        (two_cases, "its parts have the same names"),
        (appended, "its directory is not where its end says|not a zip file"),
        (wide_end, "its end does not say where its directory is|Corrupt"),
    ],
)
def test_a_zip_file_that_two_programs_read_differently_is_refused(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=f"cannot read .* ({message})"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("shape", ["[9223372036854775808, 0]", "[0, 18446744073709551615]"])
def test_an_impossible_shape_in_safetensors_is_refused(tmp_path: Path, shape: str) -> None:
    header = f'{{"w": {{"dtype": "F32", "shape": {shape}, "data_offsets": [0, 0]}}}}'.encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match=r"cannot read '.*w\.safetensors': "):
        read_state_dict(tmp_path / "w.safetensors")


def test_safetensors_load(tmp_path: Path, network: SqueezeNet, state: State) -> None:
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    load_state_dict(network, read_state_dict(tmp_path / "w.safetensors"), classifier=CLASSIFIER)
    assert same(network, state)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_weights_beside_other_things_are_found(tmp_path: Path, state: State, wrapper: str) -> None:
    torch.save({"epoch": 3, wrapper: state}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == state.keys()


def test_the_prefix_of_data_parallel_is_taken_off(tmp_path: Path, state: State) -> None:
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "w.pth")
    assert read_state_dict(tmp_path / "w.pth").keys() == state.keys()


def test_half_precision_weights_become_float32(network: SqueezeNet, state: State) -> None:
    load_state_dict(network, {key: value.half() for key, value in state.items()}, classifier=CLASSIFIER)
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
    assert same(network, {key: value.half().float() for key, value in state.items()})


def test_counters_of_batches_may_be_missing() -> None:
    network = Custom16(width=0.25)
    state = {k: v + 1 for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert load_state_dict(network, state, classifier="classifier") == []
    assert same(network, state)


def test_the_auxiliary_head_of_a_checkpoint_is_dropped_and_named() -> None:
    with torch.no_grad():
        full, network = InceptionV3(classes=3, aux=True), InceptionV3(classes=3)
    dropped = load_state_dict(network, full.state_dict(), classifier="fc", optional=["AuxLogits."])
    assert dropped == ["AuxLogits."]
    assert same(network, {k: v for k, v in full.state_dict().items() if not k.startswith("AuxLogits.")})


def test_a_network_with_the_auxiliary_head_takes_it() -> None:
    full, network = InceptionV3(classes=3, aux=True), InceptionV3(classes=3, aux=True)
    assert load_state_dict(network, full.state_dict(), classifier="fc", optional=["AuxLogits."]) == []
    assert same(network, full.state_dict())


def test_missing_keys_are_counted_and_the_first_named(network: SqueezeNet, state: State) -> None:
    kept = dict(list(state.items())[5:])
    with pytest.raises(CheckpointError) as caught:
        load_state_dict(network, kept, classifier=CLASSIFIER)
    assert str(caught.value) == (
        "the checkpoint does not fit the network: missing keys: 5 of 52 ('features.0.weight', "
        "'features.0.bias', 'features.3.squeeze.weight' and 2 more)."
    )
    assert caught.value.classes is None


def test_unknown_keys_are_counted_and_named(network: SqueezeNet, state: State) -> None:
    with pytest.raises(CheckpointError, match=r": unknown keys: 1 \('extra'\)\.$"):
        load_state_dict(network, state | {"extra": torch.ones(1)}, classifier=CLASSIFIER)


def test_other_shapes_are_shown_found_against_expected(network: SqueezeNet, state: State) -> None:
    state["features.0.weight"] = torch.ones(16, 1, 3, 3)
    sentence = r"other shapes: 1 \('features.0.weight' is \[16, 1, 3, 3\], expected \[16, 3, 3, 3\]\)"
    with pytest.raises(CheckpointError, match=sentence):
        load_state_dict(network, state, classifier=CLASSIFIER)


def test_many_other_shapes_are_counted(network: SqueezeNet) -> None:
    wide = SqueezeNet("1.1", classes=4, width=0.5).state_dict()
    with pytest.raises(CheckpointError, match=r"other shapes: 49 \(.*; .*; .*, and 46 more\)\.$"):
        load_state_dict(network, wide, classifier=CLASSIFIER)


def test_another_number_of_classes_is_told_apart(network: SqueezeNet) -> None:
    other = SqueezeNet("1.1", classes=9, width=0.25).state_dict()
    with pytest.raises(CheckpointError) as caught:
        load_state_dict(network, other, classifier=CLASSIFIER)
    assert str(caught.value) == (
        "the checkpoint has 9 classes ('classifier.1.weight' is [9, 128, 1, 1]), expected 4."
    )
    assert caught.value.classes == 9


def test_the_network_is_unchanged_when_the_weights_do_not_fit(network: SqueezeNet, state: State) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    del state["classifier.1.bias"]
    with pytest.raises(CheckpointError):
        load_state_dict(network, state, classifier=CLASSIFIER)
    assert same(network, before)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"w.h5': its name ends in none of .pth, .pt, .safetensors\.$"):
        read_state_dict(tmp_path / "w.h5")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_missing_file_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(CheckpointError, match=r"^cannot read '.*': there is no such file\.$"):
        read_state_dict(tmp_path / f"none{suffix}")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.6])
def test_a_truncated_file_is_refused(tmp_path: Path, state: State, suffix: str, share: float) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        CheckpointError, match=r"cannot read '.*(Is the file complete\?|it is damaged, or holds)"
    ):
        read_state_dict(path)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    torch.save({"weights": Payload()}, tmp_path / "w.pth")
    with pytest.raises(
        CheckpointError, match=r"holds more than tensors and containers, which could run code\. Save"
    ):
        read_state_dict(tmp_path / "w.pth")


def test_a_plain_pickle_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(CheckpointError, match="damaged, or holds more than tensors"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([1, 2], "it holds a list, not a state_dict"),
        ({}, "it holds an empty dict, not a state_dict"),
        ({"a": 1.5}, "it is no state_dict, 'a' holds a float, not a tensor. Save `network.state_dict"),
        (torch.ones(2), "it holds a Tensor, not a state_dict"),
    ],
)
def test_other_content_is_named(tmp_path: Path, content: object, sentence: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=sentence):
        read_state_dict(tmp_path / "w.pth")
