"""Which images are opened, and how large they may be: files of strangers, before a byte is decoded.

Pillow and the standard library only.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image, ImageFile, UnidentifiedImageError

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")
"""The decoders of Pillow that are used. Others start programs (EPS: Ghostscript), hold an image of another
size (ICO), or are seldom looked at."""

MOST_PIXELS = 1 << 26
"""Of an image, when it is decoded; a JPEG is reduced before."""

TILE = (322, 323)
"""Tags of a TIFF: width and height of its tiles, each of which is decoded as a whole."""

TILE_TYPES = (3, 4)
"""Types of these numbers that Pillow and libtiff read alike: of 16 and of 32 bits."""

BIG_TIFF = 43
"""The version of a TIFF whose offsets have 64 bits."""

PLAIN = "ppm_plain"
"""The decoder of pixels as text."""

SLOW_DECODERS = ("ppm", PLAIN)
"""Decoders of Pillow that are written in Python: of PPM, PGM and PBM as text, or with odd largest values."""

MOST_SLOW_PIXELS = 1_000_000
"""Of an image for one of them."""

MOST_COMMENTS = 1000
"""In an image that is text; each is removed from the rest of it."""

LONGEST_HEADER = 1 << 16
"""Bytes of the header of a PPM file."""

UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, RuntimeError, MemoryError, OverflowError, LookupError,
    TypeError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow raises for a damaged file, one decoder or another."""


def open_image(content: bytes, largest: int | None = None) -> ImageFile.ImageFile:
    """Open an image without decoding it.

    Args:
        content: The bytes of its file.
        largest: Height and width of which it may be reduced while it is decoded, where its format can.

    Raises:
        ValueError: If it has too many pixels, or too many for the way they are written.
        OSError, and others in `UNREADABLE`: If it is none.
    """
    if content.startswith(b"P"):
        _check_header(content[:LONGEST_HEADER])
    file = Image.open(io.BytesIO(content), formats=FORMATS)
    _check_speed(file, content)
    if largest is not None:
        file.draft(None, (largest, largest))
    check_pixels(file.width, file.height)
    if file.format == "TIFF":
        _check_tiles(file, content)
    return file


def pixels_held(file: ImageFile.ImageFile) -> int:
    """Return how many pixels a decoder holds: of a progressive JPEG all of them, although it makes fewer.

    Of a TIFF it holds a tile as well, which may be larger than the image.
    """
    is_progressive = file.format == "JPEG" and "progressive" in file.info and file.decoderconfig
    times = file.decoderconfig[0] if is_progressive else 1
    width, height = (getattr(file, "tag_v2", {}).get(tag, 0) for tag in TILE)
    return int(file.width * file.height * times**2 + width * height)


def check_pixels(width: int, height: int, what: str = "") -> None:
    """Refuse an image, or a piece of it, that is too large.

    Raises:
        ValueError: Then.
    """
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"it has {what}{width}x{height} pixels, at most {MOST_PIXELS / 1e6:.0f} million are decoded"
        )


def _check_tiles(file: ImageFile.ImageFile, content: bytes) -> None:
    """Refuse a TIFF with tiles that are too large, or whose size its decoders understand differently.

    Raises:
        ValueError: Then.
    """
    kinds = [(tag, kind) for tag, kind in _tags(content, file.tag_v2.offset) if tag in TILE]  # type: ignore[attr-defined]
    if not kinds:
        return
    extents = [file.tag_v2.get(tag) for tag in TILE]  # type: ignore[attr-defined]
    if (
        tuple(sorted(tag for tag, _ in kinds)) != TILE
        or any(kind not in TILE_TYPES for _, kind in kinds)
        or not all(isinstance(extent, int) for extent in extents)
    ):
        raise ValueError("the size of its tiles is given in an unusual way")
    check_pixels(extents[0], extents[1], "tiles of ")


def _tags(content: bytes, place: int) -> Iterator[tuple[int, int]]:
    """Yield the tags in a directory of a TIFF, each with its type."""
    order = "<" if content.startswith(b"II") else ">"
    is_big = struct.unpack_from(f"{order}H", content, 2)[0] == BIG_TIFF
    count, start, size = ("Q", 8, 20) if is_big else ("H", 2, 12)
    for entry in range(struct.unpack_from(order + count, content, place)[0]):
        yield struct.unpack_from(f"{order}HH", content, place + start + size * entry)


def _check_header(start: bytes) -> None:
    """Refuse a PPM file whose header, which is read byte by byte, has no end in its first bytes.

    Raises:
        ValueError: Then.
    """
    with contextlib.suppress(UnidentifiedImageError):  # another format
        Image.open(io.BytesIO(start), formats=("PPM",))


def _check_speed(file: ImageFile.ImageFile, content: bytes) -> None:
    """Refuse a large image that Pillow decodes pixel by pixel in Python, while all other threads wait.

    Raises:
        ValueError: Then.
    """
    if not any(tile[0] in SLOW_DECODERS for tile in file.tile):
        return
    if content.count(b"#") > MOST_COMMENTS and file.tile[0][0] == PLAIN:
        raise ValueError(f"it has more than {MOST_COMMENTS} comments")
    if file.width * file.height > MOST_SLOW_PIXELS:
        raise ValueError(
            f"it has {file.width}x{file.height} pixels as text, or with another largest value than 255; "
            f"at most {MOST_SLOW_PIXELS / 1e6:.0f} million such pixels are decoded"
        )
