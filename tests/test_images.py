"""Decoding: whatever the file, 8-bit RGB of the wanted size, or a sentence."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from graftonnx import decoders, images, pixels
from graftonnx.errors import DataError


def save(path: Path, colour: object = (255, 0, 0), mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)  # type: ignore[arg-type]
    return path


class TestRefusals:
    def test_a_file_that_is_no_image(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_text("no image")
        with pytest.raises(
            DataError, match=r"cannot decode '.*a.jpg': it is not an image that Pillow can read"
        ):
            images.decode(tmp_path / "a.jpg", (4, 4))

    def test_a_missing_image(self) -> None:
        with pytest.raises(
            DataError, match=r"cannot decode 'absent.jpg': No such file or directory\. Remove"
        ):
            images.decode("absent.jpg", (4, 4))

    def test_a_truncated_image_is_named(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "a.jpg")
        content = (tmp_path / "a.jpg").read_bytes()
        (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=r"cannot decode '.*a.jpg': image file is truncated .*Remove it"):
            images.decode(tmp_path / "a.jpg", (4, 4))

    def test_floating_point_pixels(self, tmp_path: Path) -> None:
        Image.new("F", (4, 4), 0.5).save(tmp_path / "a.tiff")
        with pytest.raises(DataError, match="floating-point numbers of unknown range"):
            images.decode(tmp_path / "a.tiff", (4, 4))

    def test_32_bit_pixels(self, tmp_path: Path) -> None:
        Image.new("I", (4, 4), 70000).save(tmp_path / "a.tiff")
        with pytest.raises(DataError, match="its values do not fit 16 bits"):
            images.decode(tmp_path / "a.tiff", (4, 4))

    def test_decoding_many_names_the_bad_one(self, tmp_path: Path) -> None:
        paths = [save(tmp_path / f"img{i}.png") for i in range(10)]
        paths[3].write_bytes(b"")
        with pytest.raises(DataError, match=r"cannot decode '.*img3.png'"):
            images.decode_many(paths, (4, 4))


@pytest.mark.parametrize(
    ("mode", "colour", "name", "expected"),
    [
        pytest.param("RGB", (255, 0, 10), "a.png", (255, 0, 10), id="rgb"),
        pytest.param("L", 77, "a.png", (77, 77, 77), id="grey"),
        pytest.param("1", 1, "a.png", (255, 255, 255), id="one bit"),
        pytest.param("P", 0, "a.png", (0, 0, 0), id="palette"),
        pytest.param("I;16", 65535, "a.png", (255, 255, 255), id="16 bits"),
        pytest.param("I;16", 32896, "a.tiff", (128, 128, 128), id="16 bits, half"),
        pytest.param("CMYK", (0, 255, 255, 0), "a.tiff", (255, 0, 0), id="cmyk"),
        pytest.param("RGBA", (255, 0, 0, 0), "a.png", (255, 255, 255), id="transparent"),
        pytest.param("RGBA", (255, 0, 0, 255), "a.png", (255, 0, 0), id="opaque"),
        pytest.param("LA", (0, 0), "a.png", (255, 255, 255), id="grey, transparent"),
    ],
)
def test_every_mode_becomes_rgb(
    tmp_path: Path, mode: str, colour: object, name: str, expected: tuple[int, int, int]
) -> None:
    pixels = images.decode(save(tmp_path / name, colour, mode), (2, 3))
    assert pixels.shape == (2, 3, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == np.array(expected)).all()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.tiff", "a.png"])
def test_of_several_frames_the_first_one_is_taken(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    with Image.open(tmp_path / name) as file:
        assert file.n_frames == 3  # type: ignore[attr-defined]
    assert (images.decode(tmp_path / name, (4, 4)) == [255, 0, 0]).all()


def test_a_transparent_colour_of_a_palette_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.paste(2, (0, 0, 4, 2))
    for name in ("a.png", "a.gif"):
        image.save(tmp_path / name, transparency=1)
        pixels = images.decode(tmp_path / name, (4, 4))
        assert (pixels[:2] == [0, 0, 255]).all()
        assert (pixels[2:] == 255).all()


def test_half_transparent_pixels_are_mixed_with_white(tmp_path: Path) -> None:
    pixels = images.decode(save(tmp_path / "a.png", (0, 0, 0, 128), "RGBA"), (2, 2))
    assert (pixels == 127).all()


def png(pixels: np.ndarray) -> bytes:
    """Write grey [H, W] or RGB [H, W, 3] of 16 bits as PNG; Pillow writes no such RGB."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">2I5B", pixels.shape[1], pixels.shape[0], 16, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "rgb"])
def test_sixteen_bits_become_eight_by_their_range(tmp_path: Path, channels: tuple[int, ...]) -> None:
    values = np.linspace(0, 65535, 48).astype(np.uint16).reshape(4, 12)[:, : 12 // (channels or (1,))[0]]
    pixels = np.broadcast_to(values.reshape(*values.shape, *(1 for _ in channels)), values.shape + channels)
    (tmp_path / "a.png").write_bytes(png(pixels))
    found = images.decode(tmp_path / "a.png", values.shape)  # type: ignore[arg-type]
    assert np.abs(found - (values / 257)[..., None]).max() <= 1  # of RGB Pillow keeps the high byte


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_in_either_byte_order(tmp_path: Path, order: str) -> None:
    values = np.full((4, 4), 0x8081, np.uint16)
    Image.frombytes(f"I;16{'B' * (order == '>')}", (4, 4), values.astype(f"{order}u2").tobytes()).save(
        tmp_path / "a.tiff"
    )
    assert (images.decode(tmp_path / "a.tiff", (4, 4)) == 128).all()


def test_cmyk_jpeg_has_its_colours(tmp_path: Path) -> None:
    pixels = images.decode(save(tmp_path / "a.jpg", (0, 255, 255, 0), "CMYK", (16, 16)), (4, 4)).astype(int)
    assert np.abs(pixels - [255, 0, 0]).max() <= 4  # JPEG


def test_grey_jpeg(tmp_path: Path) -> None:
    pixels = images.decode(save(tmp_path / "a.jpg", 90, "L", (16, 16)), (4, 4)).astype(int)
    assert np.abs(pixels - 90).max() <= 2  # JPEG


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), "black")
    image.paste("white", (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate a quarter turn clockwise to view: the white left half comes to the top
    image.save(tmp_path / "a.png", exif=exif)
    pixels = images.decode(tmp_path / "a.png", (8, 4))
    assert pixels[:3].min() == 255
    assert pixels[5:].max() == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_shows_the_image_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.arange(8 * 6, dtype=np.uint8).reshape(8, 6)
    inverse = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: np.rot90,
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(inverse[orientation](upright))
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(images.decode(tmp_path / "a.png", (8, 6))[..., 0], upright)


def test_decoding_stretches_with_antialiasing(tmp_path: Path) -> None:
    """Alternating black and white columns become grey; picking pixels would leave them black or white."""
    stripes = np.zeros((8, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    pixels = images.decode(tmp_path / "a.png", (8, 8))
    assert np.abs(pixels.astype(int) - 127).max() <= 8  # the filter's edge columns see one stripe more


def test_a_large_jpeg_reduced_while_decoding_looks_the_same(tmp_path: Path) -> None:
    y, x = np.mgrid[:400, :600]
    picture = np.stack([x * 255 / 599, y * 255 / 399, (x + y) * 255 / 998], -1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=95)
    whole = Image.open(tmp_path / "a.jpg").resize((30, 20), Image.Resampling.BILINEAR)
    difference = images.decode(tmp_path / "a.jpg", (20, 30)).astype(int) - np.asarray(whole).astype(int)
    assert np.abs(difference).max() <= 2  # rounding of the decoder's own reduction


def test_decoding_many_keeps_the_order_and_fills_the_given_array(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{i}.png", (i, 2 * i, 3 * i)) for i in range(20)]
    out = np.zeros((20, 4, 4, 3), np.uint8)
    seen: list[None] = []
    got = images.decode_many(paths, (4, 4), out=out, workers=3, on_image=lambda: seen.append(None))
    assert got is out
    assert (out[:, 0, 0] == np.arange(20)[:, None] * [1, 2, 3]).all()
    assert len(seen) == 20


def test_to_input_scales_and_transposes() -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    planes = images.to_input(pixels)
    assert planes.dtype == np.float32
    assert planes.shape == (2, 3, 4, 5)
    assert planes[1, 2, 3, 4] == np.float32(pixels[1, 3, 4, 2]) / np.float32(255)
    assert planes.flags.c_contiguous


def samples() -> dict[str, bytes]:
    """Return a small noisy image in each format."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8))
    files = {}
    for name in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF"):
        content = io.BytesIO()
        noise.save(content, name, **({"compression": "tiff_lzw"} if name == "TIFF" else {}))
        files[name] = content.getvalue()
    return files


SAMPLES = samples()


@pytest.mark.filterwarnings("ignore")  # Pillow's, about the damage
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.7])
def test_a_file_that_was_cut_off_is_refused(name: str, share: float, tmp_path: Path) -> None:
    content = SAMPLES[name]
    (tmp_path / "a").write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"cannot decode '.*a': .+\. Remove it, or save it anew\."):
        images.decode(tmp_path / "a", (8, 8))


@pytest.mark.filterwarnings("ignore")  # Pillow's, about the damage
@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    end=st.integers(0, 400),
)
def test_damage_gives_pixels_or_a_reason(name: str, changes: list[tuple[int, int]], end: int) -> None:
    content = bytearray(SAMPLES[name])
    for place, value in changes:
        content[place % len(content)] = value
    cut = bytes(content[: len(content) - end] if end < len(content) else content)
    (image,) = images.decode_stream([(0, cut)], (8, 8), workers=1)
    assert (image.pixels is None) == bool(image.reason)
    assert image.pixels is None or image.pixels.shape == (8, 8, 3)


class TestStream:
    def test_gives_every_image_with_its_position_in_the_order_given(self, tmp_path: Path) -> None:
        colours = [np.full((2, 2, 3), value, np.uint8) for value in range(50)]
        order = np.random.default_rng(0).permutation(50).tolist()
        decoded = list(images.decode_stream(((k, colours[k]) for k in order), (2, 2), workers=3))
        assert [image.position for image in decoded] == order
        assert all((image.pixels == image.position).all() for image in decoded)

    def test_takes_files_bytes_pixels_and_what_reads_bytes(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", (1, 2, 3))
        contents = [path, path.read_bytes(), np.full((6, 8, 3), [1, 2, 3], np.uint8), path.read_bytes]
        decoded = list(images.decode_stream(enumerate(contents), (6, 8)))
        assert all((image.pixels == [1, 2, 3]).all() for image in decoded)
        assert decoded[0].digest == decoded[1].digest == decoded[3].digest != decoded[2].digest

    def test_goes_on_after_a_bad_image(self, tmp_path: Path) -> None:
        def refuse() -> bytes:
            raise ValueError("its entry is damaged.")

        decoded = list(images.decode_stream(enumerate([refuse, tmp_path / "absent", b"", b"x"]), (2, 2)))
        assert [image.reason for image in decoded] == [
            "its entry is damaged",
            "No such file or directory",
            "it is not an image that Pillow can read",
            "it is not an image that Pillow can read",
        ]

    def test_reads_only_a_bounded_number_ahead(self) -> None:
        read = 0

        def contents() -> Iterator[tuple[int, np.ndarray]]:
            nonlocal read
            for position in range(10_000):
                read += 1
                yield position, np.zeros((2, 2, 3), np.uint8)

        stream = images.decode_stream(contents(), (2, 2), workers=2)
        next(iter(stream))
        assert read <= images.CHUNK * 5
        stream.close()  # type: ignore[attr-defined]

    def test_holds_few_images_where_they_are_large(self) -> None:
        read = 0

        def contents() -> Iterator[tuple[int, np.ndarray]]:
            nonlocal read
            for position in range(100):
                read += 1
                yield position, np.zeros((600, 600, 3), np.uint8)

        stream = images.decode_stream(contents(), (2, 2), workers=2)
        next(iter(stream))
        assert read <= 6
        stream.close()  # type: ignore[attr-defined]


@given(st.lists(st.text("0123ab. ", max_size=6), max_size=8))
def test_names_are_in_the_order_of_the_numbers_in_them(names: list[str]) -> None:
    def key(name: str) -> tuple[list[tuple[int, str]], str]:
        pieces = re.split(r"([0-9]+)", name)
        return [(int(p), "") if p.isdecimal() else (-1, p) for p in pieces if p], name

    assert sorted(names, key=images.natural_key) == sorted(names, key=key)


def test_a_name_may_hold_a_number_of_any_length() -> None:
    names = ["a" + "9" * 5000, "a1" + "0" * 5000, "a2"]
    assert sorted(names, key=images.natural_key) == ["a2", "a" + "9" * 5000, "a1" + "0" * 5000]


@pytest.mark.parametrize("size", [(3, 4), (20, 5), (7, 30), (1, 1), (7, 9)])
def test_planes_are_stretched_with_the_filter_that_decodes(size: tuple[int, int]) -> None:
    planes = np.random.default_rng(0).random((2, 3, 7, 9), np.float32)
    found = images.as_input(planes, (3, *size))
    for plane, result in zip(planes.reshape(-1, 7, 9), found.reshape(-1, *size), strict=True):
        expected = Image.fromarray(plane).resize(size[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(result, np.asarray(expected), rtol=0, atol=1e-6)  # sums in another order
    assert images.as_input(planes, (1, *size)).shape == (2, 1, *size)


def test_sixteen_bits_become_the_nearest_of_eight() -> None:
    values = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    ((_, pixels, *_),) = images.decode_stream([(0, png(values))], (256, 256), workers=1)
    assert pixels is not None
    np.testing.assert_array_equal(pixels[..., 0], (values / 257).round())


@pytest.mark.parametrize("mode", ["I;16", "I", "RGBA", "LA", "P"])
def test_a_large_image_is_converted_in_strips_to_the_same_pixels(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (31, 23, 4), np.uint8)
    image = Image.fromarray(noise)
    if mode in ("I;16", "I"):
        image = Image.fromarray(noise.view(np.uint16)[..., 0].copy()).convert(mode)
    elif mode != "RGBA":
        image = image.convert("RGB").quantize(9) if mode == "P" else image.convert(mode)
    image.save(
        tmp_path / "a.tiff" if mode == "I" else tmp_path / "a.png", transparency=3 if mode == "P" else None
    )
    (path,) = tmp_path.iterdir()
    expected = images.decode(path, (20, 21))
    monkeypatch.setattr(pixels, "STRIP", 50)
    np.testing.assert_array_equal(images.decode(path, (20, 21)), expected)


def test_grey_is_resized_as_colours_are() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (31, 23), np.uint8)
    decoded = images.decode_stream(enumerate([noise, noise[..., None].repeat(3, 2)]), (50, 9), workers=1)
    one, other = (image.pixels for image in decoded)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["grey, 16 bits", "transparent"])
def test_large_images_take_turns_where_there_are_many_threads(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "STRIP", 1 << 10)
    monkeypatch.setattr(images, "_AT_ONCE", pixels.Allowance(3 << 12))
    held, most = 0, 0

    def counted(image: Image.Image) -> Image.Image:
        nonlocal held, most
        with lock:
            held += image.width * image.height
            most = max(most, held)
        time.sleep(0.01)
        with lock:
            held -= image.width * image.height
        return image.convert("RGB")

    lock = threading.Lock()
    monkeypatch.setattr(images, "eight_bits", counted)
    content = png(np.zeros((64, 64), np.uint16)) if kind != "transparent" else np.zeros((64, 64, 4), np.uint8)
    decoded = list(images.decode_stream(enumerate([content] * 12), (4, 4), workers=8, chunk=1))
    assert all(image.pixels is not None for image in decoded)
    assert 1 << 12 < most <= 3 << 12


@pytest.mark.parametrize(("progressive", "held"), [(False, 64 * 64), (True, 512 * 512)])
def test_a_progressive_jpeg_counts_whole_although_it_is_reduced(
    progressive: bool, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    class Counting(pixels.Allowance):
        def taken(self, count: int) -> contextlib.AbstractContextManager[None]:
            taken.append(count)
            return super().taken(count)

    monkeypatch.setattr(pixels, "STRIP", 1 << 9)
    monkeypatch.setattr(images, "_AT_ONCE", Counting(1 << 10))
    file = io.BytesIO()
    Image.fromarray(np.zeros((512, 512, 3), np.uint8)).save(file, "JPEG", progressive=progressive)
    (image,) = images.decode_stream([(0, file.getvalue())], (32, 32))
    assert image.pixels is not None
    assert taken == [held]


def test_an_image_in_an_array_has_no_more_pixels_than_one_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "MOST_PIXELS", 99)
    (image,) = images.decode_stream([(0, np.zeros((10, 10), np.uint8))], (4, 4))
    assert image.reason == "it has 10x10 pixels, at most 0 million are decoded"


def test_little_is_read_ahead_of_images_that_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "AHEAD_BYTES", 3 << 20)
    read = 0

    def contents() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal read
        for position in range(100):
            read += 1
            yield position, np.zeros((1024, 1024), np.uint8)

    stream = images.decode_stream(contents(), (2, 2), workers=20)
    next(iter(stream))
    assert read <= 3
    assert len(list(stream)) == 99
