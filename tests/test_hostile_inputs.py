"""Files of strangers beside networks: nothing in them runs, fills the memory, or leads elsewhere."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib import format as npy
from PIL import Image
from training.fused import save_fused, save_images

from graftonnx import decoders, documents, images
from graftonnx.data import bounds
from graftonnx.data.opening import open_data
from graftonnx.data.splits import read_split
from graftonnx.errors import DataError, GraftError, PlanError
from graftonnx.images import decode
from graftonnx.plan import from_yaml
from graftonnx.training import TrainConfig, resume, train


class Attack:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "it holds more than 300,000 values"),
        ("a: &a [*a]", "recursive|deeper than 64"),
        ("[" * 80 + "]" * 80, "deeper than 64 levels"),
        ("[" * 30_000, "nested too deep|deeper than"),
        ("a: " + "x" * (1 << 25), "more than 4,194,304 characters"),
        ("version: 1\nversion: 1", "duplicate key"),
        ("!!python/object/apply:os.mkdir [owned]", "could not determine a constructor|constructor"),
        ("!!python/name:os.system ''", "constructor"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
        ("a: 2020-99-99", "month must be in 1..12"),
    ],
    ids=["laughs", "endless", "deep", "deeper", "long", "twice", "apply", "name", "number", "date"],
)
def test_a_document_that_asks_for_more_than_a_person_writes_is_refused(text: str, message: str) -> None:
    with pytest.raises(documents.YAMLError, match=message):
        documents.load(text)
    with pytest.raises(PlanError, match="it is not YAML"):
        from_yaml(text)
    assert not Path("owned").exists()


def test_a_message_shows_the_beginning_of_a_long_value() -> None:
    with pytest.raises(PlanError) as caught:
        from_yaml(f"version: 1\ninput_size: {'x' * 100_000}")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("content", ["[" * 50_000, "[]", '{"classes": [1], "train": []}'])
def test_a_split_that_is_none_is_refused(content: str) -> None:
    Path("split.json").write_text(content)
    with pytest.raises(DataError, match="it is not a split that graftonnx wrote"):
        read_split(Path("split.json"), open_data(save_images(Path("data"))))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """Return the beginning of a PNG file with such a header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    texts = b"".join(chunk(b"zTXt", b"key\0\0" + zlib.compress(text)) for text in chunks)
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + texts
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def refusal(name: str, content: bytes) -> str:
    """Return why an image is refused, and check that little memory was taken."""
    Path(name).write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        decode(name, (8, 8))
    assert tracemalloc.get_traced_memory()[1] < 8 * len(content) + (64 << 20)
    tracemalloc.stop()
    return str(caught.value)


def test_an_image_that_unpacks_to_too_many_pixels_is_refused_by_its_header() -> None:
    assert "9000x9000 pixels, at most 67 million are decoded" in refusal("a.png", png(9000, 9000))
    assert "exceeds limit" in refusal("b.png", png(2**31 - 1, 2**31 - 1))


@pytest.mark.parametrize("head", [b"P6 %d %d 100\n", b"P5 %d %d 1023\n", b"P1 %d %d\n", b"P2 %d %d 255\n"])
def test_an_image_that_is_decoded_in_python_may_not_be_large(head: bytes) -> None:
    assert re.search(
        "2000x2000 pixels as text, or with another largest value than 255; at most 1 million",
        refusal("a.ppm", head % (2000, 2000) + b"1 " * 6_000),
    )
    Path("b.ppm").write_bytes(head % (8, 8) + b"1 " * 192)
    assert decode("b.ppm", (2, 2)).shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P6 #" + b"x" * 100_000 + b"\n8 8 255\n" + bytes(192), "Reached EOF while reading header"),
        (b"P2 8 8 255\n" + b"#\n" * 2000 + b"1 " * 64, "it has more than 1000 comments"),
    ],
    ids=["long", "many"],
)
def test_comments_in_an_image_that_take_long_to_read_are_refused(content: bytes, message: str) -> None:
    assert message in refusal("a.ppm", content)
    Path("b.ppm").write_bytes(content.replace(b"x", b"").replace(b"#\n" * 1900, b""))
    assert decode("b.ppm", (2, 2)).shape == (2, 2, 3)


def test_usual_images_of_the_same_format_may_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "MOST_SLOW_PIXELS", 9)
    for head, size in (
        (b"P6 8 8 255\n", 192),
        (b"P5 8 8 65535\n", 128),
        (b"P5 8 8 255\n", 64),
        (b"P4 8 8\n", 8),
    ):
        Path("a.ppm").write_bytes(head + bytes(size))
        assert decode("a.ppm", (2, 2)).shape == (2, 2, 3)


def test_texts_in_an_image_that_unpack_to_much_are_refused() -> None:
    assert "cannot decode" in refusal("a.png", png(8, 8, *[bytes(8 << 20)] * 20))


def test_an_animation_without_end_is_its_first_frame() -> None:
    frame = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    Path("a.gif").write_bytes(b"GIF89a\1\0\1\0\x80\0\0\xff\0\0\0\0\xff" + frame * 200_000 + b";")
    assert decode("a.gif", (2, 2)).shape == (2, 2, 3)


def test_long_exif_data_does_no_harm() -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    exif[0x0112] = 6
    Image.new("RGB", (4, 8)).save("a.jpg", exif=exif)
    assert decode("a.jpg", (2, 2)).shape == (2, 2, 3)


def tiff(*tags: tuple[int, int, int], order: str = "<", big: bool = False) -> bytes:
    """Return a grey image of 8x8 pixels whose directory has these tags, each with its type and its number."""
    usual = [(256, 4, 8), (257, 4, 8), (258, 4, 8), (259, 4, 8), (262, 4, 1), (277, 4, 1)]
    pixels = zlib.compress(bytes(1 << 16))
    directory = sorted([*usual, *tags, (324, 4, -1), (325, 4, len(pixels))], key=lambda tag: tag[0])
    start, head, entry = (16, "HHHQ", "HHQQ") if big else (8, "HI", "HHII")
    after = start + (8 if big else 2) + len(directory) * (20 if big else 12) + (8 if big else 4)
    magic = b"II" if order == "<" else b"MM"
    content = magic + struct.pack(order + head, *((43, 8, 0, 16) if big else (42, 8)))
    content += struct.pack(order + ("Q" if big else "H"), len(directory))
    for tag, kind, number in directory:
        short = order == ">" and kind == 3
        value = (after if number < 0 else number) << ((48 if big else 16) if short else 0)
        content += struct.pack(order + entry, tag, kind, 1, value)
    return content + bytes(8 if big else 4) + pixels


@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("big", [False, True])
def test_a_tile_that_is_larger_than_its_image_is_refused(big: bool, kind: int) -> None:
    assert "tiles of 16384x16384 pixels, at most 67 million" in refusal(
        "a.tif", tiff((322, kind, 16384), (323, kind, 16384), big=big)
    )
    Path("b.tif").write_bytes(tiff((322, kind, 16), (323, kind, 16), big=big))
    assert decode("b.tif", (2, 2)).shape == (2, 2, 3)


def test_a_tile_counts_beside_the_pixels_of_its_image() -> None:
    with decoders.open_image(tiff((322, 4, 4096), (323, 4, 2048))) as image:
        assert decoders.pixels_held(image) == 8 * 8 + 4096 * 2048


@pytest.mark.parametrize(
    "tags",
    [
        [(322, 4, 16), (322, 4, 16384), (323, 4, 16)],
        [(322, 17, 16384), (322, 4, 16), (323, 4, 16)],
        [(322, 17, 16384), (323, 17, 16384)],
        [(322, 4, 16384)],
    ],
    ids=["twice", "hidden", "other", "one"],
)
def test_a_tile_whose_size_is_ambiguous_is_refused(tags: list[tuple[int, int, int]]) -> None:
    assert "the size of its tiles is given in an unusual way" in refusal("a.tif", tiff(*tags))


def test_an_icon_is_not_opened() -> None:
    inner = png(9000, 9000)
    icon = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    assert "it is not an image that Pillow can read" in refusal("a.png", icon)


def test_formats_that_start_a_program_are_not_opened() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")
    assert "it is not an image that Pillow can read" in refusal("a.jpg", buffer.getvalue())


def test_a_picture_of_two_cameras_is_its_first_one() -> None:
    pair = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    pair[0].save("a.jpg", "MPO", save_all=True, append_images=pair[1:])
    assert decode("a.jpg", (1, 1))[0, 0, 0] > 200


def test_devices_and_pipes_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("/dev/zero", "/dev/urandom", "pipe.png"):
        with pytest.raises(DataError, match="it is no regular file"):
            decode(name, (8, 8))


def test_a_file_that_is_too_large_for_an_image_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("a.png").open("wb") as file:
        file.truncate(images.LARGEST_FILE + 1)
    with pytest.raises(DataError, match="it has 512 MiB, at most 512 MiB are read"):
        decode("a.png", (8, 8))


def lying(content: bytes, claimed: int) -> bytes:
    """Return a zip file of class folders one of whose entries is longer than it claims."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("red/1.png", "blue/1.png"):
            archive.writestr(name, content)
    return buffer.getvalue().replace(struct.pack("<I", len(content)), struct.pack("<I", claimed))


def test_an_entry_that_claims_to_be_small_unpacks_to_no_more() -> None:
    Path("a.zip").write_bytes(lying(bytes(64 << 20), 1000))
    data = open_data("a.zip")
    tracemalloc.start()
    for _, read in data.store.contents([sample.name for sample in data.train]):
        assert callable(read)
        with pytest.raises(ValueError, match="is damaged"):
            read()
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_an_archive_in_an_archive_is_not_unpacked() -> None:
    inner = lying(b"x", 1)
    with zipfile.ZipFile("a.zip", "w") as archive:
        for name in ("red/1.zip", "blue/1.zip", "red/1.tar.gz"):
            archive.writestr(name, inner)
    with pytest.raises(DataError, match="no image file is in it"):
        open_data("a.zip")


def test_of_two_entries_with_one_name_the_last_one_counts_once() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    with zipfile.ZipFile("a.zip", "w") as archive, warnings.catch_warnings(action="ignore"):
        for name in ("red/1.png", "red/1.png", "blue/1.png"):
            archive.writestr(name, buffer.getvalue())
    assert len(open_data("a.zip").train) == 2


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("size", [2 << 20, -512])
@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar"])
def test_a_header_of_a_tar_file_that_asks_for_memory_is_refused(name: str, kind: bytes, size: int) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, abs(size)
    header = bytearray(info.tobuf())
    if size < 0:
        header[124:136] = (-512).to_bytes(12, "big", signed=True)
        header[148:156] = b"%06o\0 " % sum(header[:148] + b" " * 8 + header[156:])
    content = bytes(header) + bytes(max(size, 0)) + bytes(1024)
    Path(name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(DataError, match="damaged one"):
        open_data(name)


def npz(**arrays: bytes) -> Path:
    """Write an `.npz` of such files."""
    with zipfile.ZipFile("a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return Path("a.npz")


def claiming(shape: tuple[int, ...], dtype: str = "|u1", content: bytes = b"") -> bytes:
    """Return a `.npy` file whose header claims such a shape."""
    buffer = io.BytesIO()
    npy.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": dtype})
    return buffer.getvalue() + content


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": claiming((1 << 40,), "<i8")}, "it claims int64"),
        ({"labels": claiming((1 << 62, 1 << 62), "<i8")}, "it claims int64"),
        ({"labels": claiming((-1,), "<i8")}, "it claims the shape"),
        ({"images": claiming((1, 1 << 20, 1 << 20))}, "it claims uint8"),
        ({"images": claiming((1 << 40, 4, 4))}, "it claims uint8"),
        ({"classes": claiming((1 << 40,), "<U0")}, "it claims <U0"),
        ({"classes": claiming((1 << 40,), "<U9")}, "it claims <U9"),
    ],
)
def test_an_array_that_claims_more_than_there_is_is_refused(arrays: dict[str, bytes], message: str) -> None:
    whole = {"images": claiming((2, 4, 4), content=bytes(32)), "labels": claiming((2,), content=b"\0\1")}
    with pytest.raises(DataError, match=message):
        open_data(npz(**{**whole, **arrays}))


def test_an_array_that_unpacks_to_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "ALLOWED_GROWTH", 1 << 20)
    images = claiming((8 << 20, 1, 1), content=bytes(8 << 20))
    with pytest.raises(DataError, match="unpack to more than"):
        open_data(npz(images=images, labels=claiming((1,))))


def test_an_image_in_an_array_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_PIXELS", 999)
    labels = claiming((2,), content=b"\0\1")
    with pytest.raises(DataError, match="its image 'images' has 50x20 pixels, at most 0 million are decoded"):
        open_data(npz(images=claiming((2, 20, 50), content=bytes(2000)), labels=labels))
    Path("m").mkdir()
    Path("m/train-images-idx3-ubyte").write_bytes(struct.pack(">HBB3I", 0, 8, 3, 2, 20, 50) + bytes(2000))
    Path("m/train-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 2) + b"\0\1")
    with pytest.raises(DataError, match="has 50x20 pixels"):
        open_data("m")


def test_labels_are_counted_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 4 << 20
    path = npz(images=claiming((2, 4, 4), content=bytes(32)), labels=claiming((count,), content=bytes(count)))
    tracemalloc.start()
    with pytest.raises(DataError, match=f"'images' has 2 images and 'labels' {count} labels"):
        open_data(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    monkeypatch.setattr(bounds, "MOST_ENTRIES", 1)
    with pytest.raises(DataError, match="it has more than 1 entries"):
        open_data(path)


def test_python_objects_in_an_array_are_not_made() -> None:
    content = claiming((1,), "|O", pickle.dumps(np.array([Attack()], object)))
    with pytest.raises(DataError, match="it holds Python objects, which could run code"):
        open_data(npz(images=claiming((1, 4, 4), content=bytes(16)), labels=content))
    assert not Path("owned").exists()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("shape", [(0xFFFFFFFF, 28, 28), (2, 0xFFFFFFFF, 0xFFFFFFFF)])
def test_an_idx_file_that_claims_more_than_may_be_is_refused(suffix: str, shape: tuple[int, ...]) -> None:
    pack = gzip.compress if suffix else bytes
    header = struct.pack(">HBB3I", 0, 8, 3, *shape)
    labels = struct.pack(">HBBI", 0, 8, 1, shape[0]) + b"\0\1"
    Path("m").mkdir()
    Path(f"m/train-images-idx3-ubyte{suffix}").write_bytes(pack(header + bytes(100)))
    Path(f"m/train-labels-idx1-ubyte{suffix}").write_bytes(pack(labels))
    with pytest.raises(DataError, match=r"more than 2,000,000 entries|at most 512 MiB"):
        open_data("m")


def test_a_strip_or_a_list_of_names_that_unpacks_to_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.json", json.dumps({"fine": ["a", "b"]}))
        archive.writestr("train_00.png", png(9000, 9000))
    with pytest.raises(DataError, match="9000x9000 pixels"):
        open_data("a.zip")
    with zipfile.ZipFile("b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.json", b"[" * (bounds.LARGEST_TEXT + 1))
        archive.writestr("train_00.png", b"")
    with pytest.raises(DataError, match="has no list 'fine'"):
        open_data("b.zip")


@pytest.mark.parametrize("content", [b"path,label\n" + b"x" * 200_000 + b",a\n", b'path,label\n"a,b\n'])
def test_a_table_with_a_cell_without_end_is_refused(content: bytes) -> None:
    Path("a.csv").write_bytes(content)
    with pytest.raises(DataError, match="it is not a CSV file"):
        open_data("a.csv")


def test_a_table_that_claims_more_rows_than_it_has_is_refused() -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table = pa.table({"path": ["a.png"] * 1000, "label": ["x", "y"] * 500})
    pyarrow.parquet.write_table(table, "a.parquet")
    content = bytearray(Path("a.parquet").read_bytes())
    content[8:200] = b"\xff" * 192
    Path("a.parquet").write_bytes(content)
    with pytest.raises(DataError, match="cannot read"):
        open_data("a.parquet")


def test_a_script_beside_a_data_set_does_not_run() -> None:
    pytest.importorskip("datasets")
    Path("evil").mkdir()
    Path("evil/evil.py").write_text("import os; os.mkdir('owned')")
    with pytest.raises(DataError, match=r"cannot read 'hf:\./evil'"):
        open_data("hf:./evil")
    assert not Path("owned").exists()


def test_a_checkpoint_of_another_program_ends_a_resumed_run_with_a_sentence() -> None:
    config = TrainConfig(epochs=1, batch_size=8, precision="fp32", layout="contiguous", device="cpu")
    train(save_fused(Path("fused.onnx")), save_images(Path("data"), count=8), "run", config)
    last = Path("run/checkpoints/last.ckpt")
    whole = torch.load(last, weights_only=True)
    flat = {key: value.reshape(-1)[:0] for key, value in whole["state_dict"].items()}
    for change in (
        {"callbacks": {}},
        {"loops": {}},
        {"state_dict": flat},
        {"pytorch-lightning_version": "x"},
    ):
        torch.save({**whole, **change}, last)
        with pytest.raises(GraftError, match=r"cannot read '.*last\.ckpt'"):
            resume("run")


@pytest.mark.parametrize("name", ["last.ckpt", "best.safetensors"])
def test_a_checkpoint_that_would_run_code_ends_a_resumed_run_with_a_sentence(name: str) -> None:
    config = TrainConfig(epochs=1, batch_size=8, precision="fp32", layout="contiguous", device="cpu")
    train(save_fused(Path("fused.onnx")), save_images(Path("data"), count=8), "run", config)
    with Path("run/checkpoints", name).open("wb") as file:
        if name == "last.ckpt":
            torch.save({"state_dict": Attack()}, file)
        else:
            pickle.dump(Attack(), file)
    with pytest.raises(GraftError, match="cannot "):
        resume("run")
    assert not Path("owned").exists()


@pytest.mark.parametrize("place", [b"caf\xe9/0.png", b"tea/caf\xe9.png"], ids=["class", "image"])
def test_a_name_that_is_no_text_is_refused_before_a_run(place: bytes) -> None:
    save_images(Path("data"), count=4)
    target = os.path.join(b"data", place)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    Path(os.fsdecode(target)).write_bytes(next(Path("data").rglob("*.png")).read_bytes())
    with pytest.raises(
        DataError, match=r"the name of its (class|image) '.*caf\\udce9.*' is not UTF-8 text\. "
    ):
        open_data("data")


def test_a_class_whose_name_is_a_number_without_end_is_a_class() -> None:
    labels = claiming((2,), "<U5000", np.array(["9" * 5000, "8"], "<U5000").tobytes())
    assert len(open_data(npz(images=claiming((2, 4, 4), content=bytes(32)), labels=labels)).classes) == 2


def test_half_a_character_in_labels_is_refused() -> None:
    labels = claiming((2,), "<U1", np.array([0xD800, 0x61], "<u4").tobytes())
    with pytest.raises(DataError, match=r"the name of its class '\\ud800' is not UTF-8 text\. Rename it"):
        open_data(npz(images=claiming((2, 4, 4), content=bytes(32)), labels=labels))
