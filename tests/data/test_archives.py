"""Class folders in archives are those on the disk, and nothing else in an archive counts."""

from __future__ import annotations

import bz2
import lzma
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data.pictures import labelled, picture, write_folder, write_tar, write_zip
from hypothesis import given, settings
from hypothesis import strategies as st

from graftonnx.data import bounds
from graftonnx.data.archives import ArchiveTree
from graftonnx.data.catalogue import Data
from graftonnx.data.folders import FolderTree
from graftonnx.data.opening import open_data
from graftonnx.errors import DataError
from graftonnx.images import decode_stream

FILES = labelled({"red": 12, "green": 3, "blue": 2})
KINDS = ("a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz")


def write(path: Path, files: dict[str, bytes]) -> Path:
    return write_zip(path, files) if path.suffix == ".zip" else write_tar(path, files)


def pixels(data: Data, names: list[str]) -> dict[str, np.ndarray | None]:
    """Return each image as it is decoded, by name."""
    decoded = decode_stream(data.store.contents(names), (6, 8), workers=2)
    return {names[image.position]: image.pixels for image in decoded}


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_holds_the_classes_and_images_of_the_folder(tmp_path: Path, kind: str) -> None:
    folder = open_data(write_folder(tmp_path / "folder", FILES))
    data = open_data(write(tmp_path / kind, FILES))
    assert (data.classes, data.train) == (folder.classes, folder.train)
    wanted = ["red/11.png", "blue/0.png", "red/2.png"]
    found = pixels(data, wanted)
    assert sorted(found) == sorted(wanted)
    for name in wanted:
        label, _, number = name.removesuffix(".png").partition("/")
        np.testing.assert_array_equal(found[name], picture(label, int(number)))


@pytest.mark.parametrize("kind", KINDS)
def test_one_folder_around_all_and_a_split_inside_it_are_understood(tmp_path: Path, kind: str) -> None:
    files = {f"set/{part}/{name}": content for part in ("train", "val") for name, content in FILES.items()}
    data = open_data(write(tmp_path / kind, {"set/index.csv": b"no image", **files}))
    assert data.classes == ("blue", "green", "red")
    assert (len(data.train), len(data.val)) == (17, 17)
    assert data.val[0].name == "set/val/blue/0.png"


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_files_other_files_and_paths_that_lead_outside_do_not_count(tmp_path: Path, kind: str) -> None:
    image = FILES["red/0.png"]
    others = ("red/.hidden.png", "__MACOSX/red/0.png", "red/notes.txt", "../red/out.png", "/red/out.png")
    plain = open_data(write(tmp_path / kind, FILES))
    more = open_data(write(tmp_path / f"b{kind}", {**FILES, **dict.fromkeys(others, image)}))
    assert more.train == plain.train


def test_entries_may_begin_with_a_dot_and_a_slash(tmp_path: Path) -> None:
    files = {f"./{name}": content for name, content in FILES.items()}
    data = open_data(write_tar(tmp_path / "a.tar", files))
    assert data.train[0].name == "blue/0.png"
    assert pixels(data, ["blue/1.png"])["blue/1.png"] is not None


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar.gz", FILES).rename(tmp_path / "a.tar")
    assert len(open_data(tmp_path / "a.tar").train) == 17


def test_links_and_devices_are_no_images(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        for name, kind in (("red/link.png", tarfile.SYMTYPE), ("red/device.png", tarfile.CHRTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    assert len(open_data(tmp_path / "a.tar").train) == 17
    write_zip(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as packed:
        link = zipfile.ZipInfo("red/link.png")
        link.external_attr = 0o120777 << 16
        packed.writestr(link, "/etc/passwd")
    assert len(open_data(tmp_path / "a.zip").train) == 17


@pytest.mark.parametrize("kind", ["a.zip", "a.tar"])
def test_a_damaged_image_is_one_bad_image(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / kind, FILES)
    content = bytearray(path.read_bytes())
    start = content.index(b"red/5.png") + (20 if kind == "a.zip" else 512)
    content[start : start + 30] = bytes(30)
    path.write_bytes(content)
    found = pixels(open_data(path), [s.name for s in open_data(path).train])
    assert [name for name, image in found.items() if image is None] == ["red/5.png"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_no_archive(tmp_path: Path, kind: str) -> None:
    (tmp_path / kind).write_bytes(b"no archive" * 100)
    with pytest.raises(
        DataError, match=r"cannot read '.*a\..*': it is no zip or tar file, or a damaged one \(.*\)\. Get it"
    ):
        open_data(tmp_path / kind)


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_was_cut_off(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / kind, FILES)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"it is no zip or tar file, or a damaged one"):
        open_data(path)


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.gz"])
def test_an_archive_made_to_fill_the_memory(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "ALLOWED_GROWTH", 1 << 20)
    path = write(tmp_path / kind, {**FILES, "red/bomb.png": bytes(8 << 20)})
    with pytest.raises(
        DataError, match=r"its entries unpack to more than .* GiB, over 200 times its own size"
    ):
        open_data(path)


@pytest.mark.parametrize("entry", ["a file", "headers", "a long name"])
def test_all_that_comes_out_of_a_compressed_tar_file_is_counted(
    tmp_path: Path, entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "ALLOWED_GROWTH", 1 << 20)
    other = tarfile.TarInfo("notes.txt")
    other.size = 0 if entry == "headers" else 2 << 20
    image = tarfile.TarInfo("red/1.png").tobuf() + tarfile.TarInfo("blue/1.png").tobuf()
    content = {
        "a file": other.tobuf() + bytes(2 << 20),
        "headers": other.tobuf() * (4 << 10),
        "a long name": tarfile.TarInfo("red/" + "x" * 1_000_000 + ".png").tobuf(tarfile.GNU_FORMAT) * 2,
    }[entry]
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(image + content + bytes(1024)))
    with pytest.raises(DataError, match="its entries unpack to more than"):
        open_data(tmp_path / "a.tar.xz")


def test_a_compressed_tar_file_of_many_headers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "ALLOWED_PACKED", 100)
    (tmp_path / "a.tar.bz2").write_bytes(bz2.compress(tarfile.TarInfo("red/1.png").tobuf() * 1000))
    with pytest.raises(DataError, match="it has more than 100 entries"):
        open_data(tmp_path / "a.tar.bz2")


@pytest.mark.parametrize("kind", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("most", 10, "it has more than 10 entries"),
        ("LARGEST_IMAGE", 1 << 4, "at most 0 MiB are read from an archive"),
    ],
)
def test_what_an_archive_may_hold_is_limited(
    tmp_path: Path, kind: str, limit: str, value: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit == "most":
        limit = "MOST_ITEMS" if kind == "a.zip" else "MOST_ENTRIES"
    monkeypatch.setattr(bounds, limit, value)
    with pytest.raises(DataError, match=message):
        open_data(write(tmp_path / kind, FILES))


@pytest.mark.parametrize("comment", [b"", b"a comment"], ids=["", "comment"])
@pytest.mark.parametrize("large", [False, True], ids=["", "zip64"])
def test_entries_of_a_zip_file_are_counted_before_they_are_made(
    tmp_path: Path, large: bool, comment: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "a.zip", FILES)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1 if large else 1000)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = comment
        archive.writestr("notes.txt", "")
    content = bytearray(path.read_bytes())
    assert (b"PK\6\6" in content) == large
    end = content.rindex(b"PK\5\6")
    content[end + 8 : end + 12] = b"\1\0\1\0"  # says that it has one entry
    path.write_bytes(content)
    assert len(open_data(path).train) == 17
    monkeypatch.setattr(zipfile, "ZipFile", None)
    for limit, value, message in (
        ("MOST_ITEMS", 17, "it has more than 17 entries"),
        ("LARGEST_DIRECTORY", 900, "its directory has 0 MiB, at most 0 MiB are read"),
    ):
        monkeypatch.setattr(bounds, limit, value)
        with pytest.raises(DataError, match=message):
            open_data(path)


def test_messages_name_the_place_in_the_archive(tmp_path: Path) -> None:
    files = {f"train/{name}": content for name, content in FILES.items()}
    with pytest.raises(
        DataError, match=r"cannot use '.*a.zip/val/pink': class 'pink' has no training images\."
    ):
        open_data(write_zip(tmp_path / "a.zip", {**files, "val/pink/0.png": FILES["red/0.png"]}))
    with pytest.raises(DataError, match=r"cannot read images from '.*b.zip': no image file is in it"):
        open_data(write_zip(tmp_path / "b.zip", {"notes.txt": b""}))


@settings(deadline=None)  # files
@given(
    st.sets(
        st.lists(st.sampled_from(["a", "b", "B 2", "b.c", "10"]), min_size=1, max_size=3).map("/".join),
        max_size=12,
    )
)
def test_the_tree_of_an_archive_is_that_of_the_folder_it_was_made_from(
    tmp_path_factory: pytest.TempPathFactory, folders: set[str]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    names = [f"{folder}/{i}.png" for folder in folders for i in range(2)]
    write_folder(root, dict.fromkeys(names, b""))
    disk, archive = FolderTree(root), ArchiveTree(names)
    for prefix in ["", *(f"{folder}/" for folder in folders)]:
        assert archive.folders(prefix) == disk.folders(prefix)
        assert sorted(archive.images(prefix)) == sorted(disk.images(prefix))


def test_a_stream_is_read_no_further_than_needed(tmp_path: Path) -> None:
    """The rest of the file may be damaged."""
    path = write_tar(tmp_path / "a.tar.gz", {**FILES, "red/100.png": np.random.default_rng(0).bytes(10**6)})
    data = open_data(path)
    path.write_bytes(path.read_bytes()[: 10**5])
    assert pixels(data, ["blue/0.png"])["blue/0.png"] is not None
    with pytest.raises(DataError, match="a damaged one"):
        pixels(data, ["red/100.png"])


def test_an_encrypted_entry_does_not_count(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", FILES)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"red/5.png") - 46  # its record in the central directory
    assert content[entry : entry + 4] == b"PK\x01\x02"
    content[entry + 8] |= 1
    path.write_bytes(content)
    assert "red/5.png" not in {s.name for s in open_data(path).train}


def test_an_entry_of_a_later_version_of_the_format_is_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", FILES)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 6] = 99
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read '.*a.zip': .*zip file version 9.9"):
        open_data(path)
