"""One image for all inputs of a network: training decodes an image once, whatever the inputs' sizes are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule

from graftonnx.images import GREY


def share_image(network: GraphModule, shapes: Sequence[tuple[int, int, int]]) -> GraphModule:
    """Give a network that takes several images one input for all of them, in place.

        input_a ─ …                  image ─┬─ as_input ─ …
        input_b ─ …     becomes             └─ as_input ─ …

    Args:
        network: What :func:`graftonnx.to_torch` made; its weights and names stay.
        shapes: C, H and W of its inputs, in their order. One RGB image alone stays as it is.

    Returns:
        The network; it takes RGB images [N, 3, H, W] in 0..1 of any size.
    """
    if len(shapes) == 1 and shapes[0][0] == 3:
        return network
    graph = network.graph
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_before(inputs[0]):
        image = graph.placeholder("image")
    for node, shape in zip(inputs, shapes, strict=True):
        with graph.inserting_before(node):
            made = graph.call_function(as_input, (image, shape))
        made.meta.update(node.meta)
        node.replace_all_uses_with(made)
        graph.erase_node(node)
    network.recompile()
    return network


def as_input(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Do on a device what :func:`graftonnx.images.as_input` does.

    Args:
        images: RGB in 0..1, [N, 3, H, W].
        shape: C, H' and W'; with C = 1 the result is the luma.

    Returns:
        [N, C, H', W'].
    """
    channels, height, width = shape
    if channels == 1 != images.shape[1]:
        weights = torch.tensor(GREY, dtype=images.dtype, device=images.device)
        images = (images * weights[:, None, None]).sum(1, keepdim=True)
    if images.shape[2:] == (height, width):
        return images
    if width == 1 < height:  # PyTorch 2.13 copies the first row where the result is one pixel wide
        return as_input(images.mT, (channels, 1, height)).mT
    return F.interpolate(images, (height, width), mode="bilinear", antialias=True)
