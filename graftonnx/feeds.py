"""From images to what the inputs of a network take: size, channels, convention, element type, layout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftonnx.errors import ModelError
from graftonnx.images import Planes, as_input
from graftonnx.metadata import InputConvention, Preprocess
from graftonnx.preprocessing import check_preprocess
from graftonnx.runtime import Session


class Feed:
    """Turns images into the inputs of a network.

    Args:
        session: The network.
        preprocess: What its inputs expect.

    Attributes:
        shapes: C, H and W of every input.
        size: Height and width at which it takes images, in pixels; of several inputs the largest.
        any_size: Whether it takes images of any size as they are; then `size` is what suits it.

    Raises:
        ModelError: If it takes no images, or images of any size and does not say which suits it, or if the
            numbers of its preprocessing are not those of its channels.
    """

    def __init__(self, session: Session, preprocess: Preprocess) -> None:
        if not session.input_names:
            raise ModelError(
                f"cannot use '{session.name}': it has no input, expected images. Export it again."
            )
        convention = session.metadata.input or InputConvention()
        self._channels_last = convention.layout == "nhwc"
        self._type = session.input_type
        self._preprocess = preprocess
        self.shapes = [image_shape(session.name, shape, convention) for shape in session.input_shapes]
        try:
            for channels, _, _ in self.shapes:
                check_preprocess(preprocess, channels)
        except ModelError as error:
            raise error.at(f"cannot use '{session.name}'") from error
        self.size = (max(shape[1] for shape in self.shapes), max(shape[2] for shape in self.shapes))

        extents = [session.input_shapes[0][axis] for axis in ((1, 2) if self._channels_last else (2, 3))]
        self.any_size = not all(isinstance(extent, int) for extent in extents)

    def __call__(self, images: Planes) -> tuple[NDArray[Any], ...]:
        """Return one array for each input of the network.

        Args:
            images: RGB in 0..1, [N, 3, H, W].
        """
        shapes = [(shape[0], *images.shape[2:]) if self.any_size else shape for shape in self.shapes]
        return tuple(
            self._turned(preprocessed(as_input(images, (c, h, w)), self._preprocess)) for c, h, w in shapes
        )

    def _turned(self, images: Planes) -> NDArray[Any]:
        turned = images.transpose(0, 2, 3, 1) if self._channels_last else images
        return np.ascontiguousarray(np.rint(turned) if self._type == np.uint8 else turned, self._type)


def image_shape(
    name: str, shape: tuple[int | str | None, ...], convention: InputConvention | None = None
) -> tuple[int, int, int]:
    """Return C, H and W of an input; C is 1 for grey and 3 for anything else.

    Args:
        name: The file's, for messages.
        shape: The input's: numbers where fixed.
        convention: What the file says about its layout, and the size that suits it where it takes any.

    Raises:
        ModelError: If it takes no images, or images of any size.
    """
    convention = convention or InputConvention()
    axes = "NHWC" if convention.layout == "nhwc" else "NCHW"
    if len(shape) != 4:
        raise ModelError(
            f"cannot use '{name}': its input is {list(shape)}, expected images [{', '.join(axes)}]. Run it "
            "with your own code."
        )
    extents: list[int | str | None] = [shape[axes.index(axis)] for axis in "HW"]
    if convention.size is not None:
        extents = [
            found if isinstance(found, int) else own
            for found, own in zip(extents, convention.size, strict=True)
        ]
    height, width = extents
    if not isinstance(height, int) or not isinstance(width, int):
        raise ModelError(
            f"cannot use '{name}': its input is {list(shape)}; expected a fixed height and width. Export it "
            "with them."
        )
    return 1 if shape[axes.index("C")] == 1 else 3, height, width


def preprocessed(images: Planes, convention: Preprocess) -> Planes:
    """Turn images in 0..1 into what a network was trained on.

    Args:
        images: RGB or luma, float32 [N, C, H, W].
        convention: What the network expects; its order does not count for luma.

    Returns:
        float32 [N, C, H, W].
    """
    if convention == Preprocess():
        return images
    if images.shape[1] == 3 and convention.order == "bgr":
        images = images[:, ::-1]
    mean, std = (np.array(v, np.float64).reshape(1, -1, 1, 1) for v in (convention.mean, convention.std))
    scale, offset = (convention.scale / std).astype(np.float32), (-mean / std).astype(np.float32)
    return np.ascontiguousarray(images * scale + offset, np.float32)
