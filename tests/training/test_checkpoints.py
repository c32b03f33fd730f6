"""Checkpoint files of strangers: one sentence, and no more memory than the file has bytes."""

from __future__ import annotations

import gc
import struct
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from graftonnx.errors import GraftError
from graftonnx.training.checkpoints import AtomicCheckpoints, load_weights, save_weights

DICT = b"\x80\x02}"
KEY = b"X\x01\x00\x00\x00a"
HUGE = b"\x8a\x09" + b"\x7f" * 9
ORDERED = b"ccollections\nOrderedDict\n"


def save(path: Path, content: bytes) -> Path:
    """Write a file as `torch.save` does, with these objects in it."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/version", "3\n")
    return path


def load(path: Path) -> dict[str, object]:
    return AtomicCheckpoints().load_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02K\x01.",
        b"\x80\x02](K\x01K\x02e.",
        DICT + b"q",
        DICT + b"h\x00.",
        DICT + b"e.",
        DICT + KEY + b"c__builtin__\nbytearray\n\x8a\x07" + (10**15).to_bytes(7, "little") + b"\x85Rs.",
        DICT + KEY + b"c__builtin__\nbytearray\nJ\x00\x00\x00\x40\x85Rs.",
        DICT + KEY + b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86Rs.",
        DICT + KEY + b"ctorch\nFloatStorage\nJ\x00\x00\x00\x40\x85Rs.",
        DICT + KEY + b"ccollections\nOrderedDict\n]\x85Rs.",
        DICT + b"q\x00" + KEY + b"K\x01s" + (ORDERED + b")Rh\x00b") * 2 + b".",
        DICT + b"K\x01\x85K\x01s.",
        DICT + HUGE + b"K\x01s.",
        DICT + KEY + b"ctorch\nSize\n(" + b"K\x01" * 100 + b"t\x85Rs.",
        b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b")R.",
    ],
    ids=[
        "number",
        "list",
        "end",
        "memo",
        "append",
        "terabytes",
        "gigabyte",
        "codec",
        "storage",
        "copy",
        "attributes",
        "tuple",
        "collision",
        "dimensions",
        "doubling",
    ],
)
def test_what_is_no_checkpoint_is_damaged_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(GraftError, match=r"^cannot read '.*': it is damaged, or holds more than") as caught:
        load(save(tmp_path / "last.ckpt", content))
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"hello", b"\x80\x02}."], ids=range(4))
def test_what_is_no_zip_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(GraftError, match="cannot read"):
        load(tmp_path / "last.ckpt")


def copy(source: Path, target: Path, compression: int, old: bytes = b"", new: bytes = b"") -> Path:
    """Write a file of `torch.save` in another way."""
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w", compression) as written:
        for name in read.namelist():
            content = read.read(name)
            assert old in content or not name.endswith(".pkl")
            written.writestr(name, content.replace(old, new) if old else content)
    return target


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1_000_000)}, tmp_path / "plain.ckpt")
    bomb = copy(tmp_path / "plain.ckpt", tmp_path / "last.ckpt", zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 10_000
    with pytest.raises(GraftError, match=r"its parts are compressed, which `torch.save` never does"):
        load(bomb)


def test_a_tensor_that_claims_more_bytes_than_there_are_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(4)}, tmp_path / "plain.ckpt")
    claim = b"J" + struct.pack("<i", 1 << 24) + b"tq"
    file = copy(tmp_path / "plain.ckpt", tmp_path / "last.ckpt", zipfile.ZIP_STORED, b"K\x04tq", claim)
    with pytest.raises(GraftError, match="it is damaged"):
        load(file)


def test_tensors_and_plain_values_are_read(tmp_path: Path) -> None:
    content = {
        "weights": torch.nn.Linear(3, 2).state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "half": torch.ones(2).half(),
        "view": torch.arange(12).reshape(3, 4)[1:, :2],
        "plain": [1, 2.5, "a", None, True, (1, 2), {3: 4}, 1 << 70],
        "others": [Counter({30: 1}), torch.float16, torch.Size([2, 3]), torch.device("cpu")],
    }
    torch.save(content, tmp_path / "last.ckpt")
    found = load(tmp_path / "last.ckpt")
    assert found["plain"] == content["plain"]
    assert found["others"] == content["others"]
    for key in ("parameter", "half", "view"):
        assert torch.equal(found[key], content[key])


def test_reading_weights_leaves_nothing_behind(tmp_path: Path) -> None:
    network = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(50)))
    save_weights(network.state_dict(), tmp_path / "w.safetensors")
    for _ in range(3):
        load_weights(network, tmp_path / "w.safetensors")
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(20):
        load_weights(network, tmp_path / "w.safetensors")
    gc.collect()
    assert sys.getallocatedblocks() - before < 20 * 50  # two for each tensor would be 4000
