"""Data folders, splits and decoding."""

from __future__ import annotations

from collections import Counter
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


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes of 10, 5 and 2 images."""
    for name, count in (("cat", 10), ("dog", 5), ("eel", 2)):
        for i in range(count):
            save(tmp_path / "data" / name / f"img{i}.png")
    return tmp_path / "data"


def test_scan_lists_class_folders_in_natural_order(data: Path) -> None:
    save(data / "cat" / "img10.png")
    folder = images.scan(data)
    assert folder.classes == ("cat", "dog", "eel")
    assert [s.path for s in folder.samples[:11]] == [f"cat/img{i}.png" for i in range(11)]
    assert Counter(s.label for s in folder.samples) == {0: 11, 1: 5, 2: 2}


def test_scan_puts_class_2_before_class_10(tmp_path: Path) -> None:
    for name in ("class10", "class2", "class1"):
        save(tmp_path / name / "a.png")
    assert images.scan(tmp_path).classes == ("class1", "class2", "class10")


def test_scan_ignores_hidden_files_other_files_and_hidden_folders(data: Path) -> None:
    before = images.scan(data)
    save(data / "cat" / ".hidden.png")
    save(data / ".cache" / "a.png")
    (data / "cat" / "notes.txt").write_text("no image")
    (data / "index.csv").write_text("no image")
    assert images.scan(data) == before


def test_scan_finds_images_below_a_class_folder_and_upper_case_extensions(data: Path) -> None:
    save(data / "dog" / "more" / "Z.JPG")
    assert "dog/more/Z.JPG" in [s.path for s in images.scan(data).samples]


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_scan_reads_a_predefined_split(tmp_path: Path, val: str) -> None:
    for part in ("train", val, "test"):
        for name in ("cat", "dog"):
            save(tmp_path / part / name / f"{part}.png")
    folder = images.scan(tmp_path)
    split = images.split(folder, 0.2, seed=0)
    assert [s.path for s in split.train] == ["train/cat/train.png", "train/dog/train.png"]
    assert [s.path for s in split.val] == [f"{val}/cat/{val}.png", f"{val}/dog/{val}.png"]
    assert [s.path for s in split.test] == ["test/cat/test.png", "test/dog/test.png"]


def test_without_a_val_folder_the_training_part_is_split_and_the_test_part_kept(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            for i in range(4):
                save(tmp_path / part / name / f"{i}.png")
    split = images.split(images.scan(tmp_path), 0.25, seed=0)
    assert (len(split.train), len(split.val), len(split.test)) == (6, 2, 8)
    assert all(s.path.startswith("train/") for s in split.val)


def test_the_split_is_stratified_and_complete(data: Path) -> None:
    folder = images.scan(data)
    split = images.split(folder, 0.2, seed=0)
    assert Counter(s.label for s in split.val) == {0: 2, 1: 1, 2: 1}
    assert sorted(s.path for s in split.train + split.val) == sorted(s.path for s in folder.samples)


def test_the_split_depends_on_the_seed_alone(data: Path) -> None:
    folder = images.scan(data)
    assert images.split(folder, 0.3, seed=1) == images.split(folder, 0.3, seed=1)
    assert images.split(folder, 0.3, seed=1) != images.split(folder, 0.3, seed=2)


def test_new_images_of_one_class_leave_the_others_validation_images_alone(data: Path) -> None:
    before = images.split(images.scan(data), 0.3, seed=0)
    save(data / "dog" / "new.png")
    after = images.split(images.scan(data), 0.3, seed=0)
    assert [s for s in after.val if s.label != 1] == [s for s in before.val if s.label != 1]


def test_a_split_survives_its_file(data: Path, tmp_path: Path) -> None:
    split = images.split(images.scan(data), 0.3, seed=0)
    (tmp_path / "split.json").write_text(split.to_json())
    assert images.read_split(tmp_path / "split.json", data) == split


def test_a_reordered_split_keeps_every_image_in_its_class(data: Path) -> None:
    split = images.split(images.scan(data), 0.3, seed=0)
    turned = split.reordered(["eel", "cat", "dog"])
    assert {s.path: turned.classes[s.label] for s in turned.val} == {
        s.path: split.classes[s.label] for s in split.val
    }
    with pytest.raises(ValueError, match="not a permutation"):
        split.reordered(["eel", "cat"])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_validation_share_outside_0_to_1_is_misuse(data: Path, fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        images.split(images.scan(data), fraction, seed=0)


class TestRefusals:
    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"cannot read images from '.*absent': there is no such folder\."):
            images.scan(tmp_path / "absent")

    def test_a_folder_without_images(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no image file is in it \(looked for \.avif, "):
            images.scan(tmp_path)

    def test_images_outside_of_class_folders(self, tmp_path: Path) -> None:
        save(tmp_path / "a.png")
        with pytest.raises(DataError, match=r"its images are not in class folders\. Put the images"):
            images.scan(tmp_path)

    def test_one_class(self, tmp_path: Path) -> None:
        save(tmp_path / "cat" / "a.png")
        with pytest.raises(DataError, match=r"it has only one class, 'cat', at least 2 are needed\. Put"):
            images.scan(tmp_path)

    def test_a_folder_too_high_is_told_the_folder_meant(self, data: Path) -> None:
        with pytest.raises(DataError, match=r"only one class, 'data', .* Did you mean '.*data'\?"):
            images.scan(data.parent)

    def test_an_empty_class(self, data: Path) -> None:
        (data / "fox").mkdir()
        with pytest.raises(DataError, match=r"cannot use '.*fox': no image file is in it\. Add images"):
            images.scan(data)

    def test_a_validation_class_without_training_images(self, tmp_path: Path) -> None:
        for name in ("train/cat", "train/dog", "val/cat", "val/fox"):
            save(tmp_path / name / "a.png")
        with pytest.raises(
            DataError, match=r"'fox' has no training images\. Training classes are 'cat', 'dog'"
        ):
            images.scan(tmp_path)

    def test_an_empty_validation_folder(self, tmp_path: Path) -> None:
        for name in ("train/cat", "train/dog"):
            save(tmp_path / name / "a.png")
        (tmp_path / "val").mkdir()
        with pytest.raises(DataError, match=r"cannot use '.*val': no image file is in it"):
            images.scan(tmp_path)

    def test_a_class_too_small_to_split(self, data: Path) -> None:
        (data / "eel" / "img0.png").unlink()
        with pytest.raises(DataError, match=r"class 'eel' has 1 image, at least 2 are needed \(one to train"):
            images.split(images.scan(data), 0.2, seed=0)

    def test_a_split_of_other_data(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "split.json").write_text(images.split(images.scan(data), 0.3, seed=0).to_json())
        (data / "cat" / "img3.png").unlink()
        with pytest.raises(DataError, match=r"it names 'cat/img3.png', which is not under '.*data'"):
            images.read_split(tmp_path / "split.json", data)

    @pytest.mark.parametrize("content", ["{", "[]", '{"classes": ["a"]}', '{"classes": 3}'])
    def test_a_file_that_is_no_split(self, data: Path, tmp_path: Path, content: str) -> None:
        (tmp_path / "split.json").write_text(content)
        with pytest.raises(DataError, match="it is not a split that graftonnx wrote"):
            images.read_split(tmp_path / "split.json", data)

    def test_a_missing_split(self, data: Path) -> None:
        with pytest.raises(DataError, match=r"cannot read the split 'absent.json': No such file"):
            images.read_split(Path("absent.json"), data)

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

    def test_decoding_many_names_the_bad_one(self, data: Path) -> None:
        (data / "cat" / "img3.png").write_bytes(b"")
        with pytest.raises(DataError, match=r"cannot decode '.*img3.png'"):
            images.decode_many([data / "cat" / f"img{i}.png" for i in range(10)], (4, 4))


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


@pytest.mark.parametrize("size", [(3, 4), (20, 5), (7, 30), (1, 1), (7, 9)])
def test_planes_are_stretched_with_the_filter_that_decodes(size: tuple[int, int]) -> None:
    planes = np.random.default_rng(0).random((2, 3, 7, 9), np.float32)
    found = images.as_input(planes, (3, *size))
    for plane, result in zip(planes.reshape(-1, 7, 9), found.reshape(-1, *size), strict=True):
        expected = Image.fromarray(plane).resize(size[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(result, np.asarray(expected), rtol=0, atol=1e-6)  # sums in another order
    assert images.as_input(planes, (1, *size)).shape == (2, 1, *size)
