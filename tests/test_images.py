"""Decoding: whatever the file, 8-bit RGB of the wanted size, or a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graftonnx import images
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


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (images.decode(tmp_path / "a.gif", (4, 4)) == [255, 0, 0]).all()


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), "black")
    image.paste("white", (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate a quarter turn clockwise to view: the white left half comes to the top
    image.save(tmp_path / "a.png", exif=exif)
    pixels = images.decode(tmp_path / "a.png", (8, 4))
    assert pixels[:3].min() == 255
    assert pixels[5:].max() == 0


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
