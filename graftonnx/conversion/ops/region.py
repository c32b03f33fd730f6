"""Boxes: pooling inside them, and dropping those that overlap."""

from __future__ import annotations

from collections.abc import Sequence

from graftonnx.conversion import regions
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Result, Value
from graftonnx.errors import UnsupportedOpError


@op("RoiAlign", since=10)
def roi_align_10(
    g: Builder,
    x: Value,
    rois: Value,
    batch_indices: Value,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Result:
    """X pooled inside boxes. x: [N, C, H, W], rois: [R, 4] -> [R, C, output_height, output_width]."""
    return roi_align(
        g,
        x,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


@op("RoiAlign", since=16)
def roi_align(
    g: Builder,
    x: Value,
    rois: Value,
    batch_indices: Value,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Result:
    """X pooled inside boxes. x: [N, C, H, W], rois: [R, 4] -> [R, C, output_height, output_width]."""
    if mode not in ("avg", "max"):
        raise UnsupportedOpError(f"mode is '{mode}', expected avg or max.")
    if coordinate_transformation_mode not in ("half_pixel", "output_half_pixel"):
        raise UnsupportedOpError(
            f"coordinate_transformation_mode is '{coordinate_transformation_mode}', "
            "expected half_pixel or output_half_pixel."
        )
    aligned = coordinate_transformation_mode == "half_pixel"
    size = (output_height, output_width, sampling_ratio, spatial_scale)
    return g.call(regions.roi_align, x, rois, batch_indices, *size, mode == "max", aligned)


@op("MaxRoiPool", since=1)
def max_roi_pool(
    g: Builder, x: Value, rois: Value, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0
) -> Result:
    """Largest pixel in each bin of boxes. x: [N, C, H, W], rois: [R, 5] -> [R, C, *pooled_shape]."""
    height, width = pooled_shape
    return g.call(regions.max_roi_pool, x, rois, height, width, spatial_scale)


@op("NonMaxSuppression", since=10)
def non_max_suppression(
    g: Builder,
    boxes: Value,
    scores: Value,
    max_output_boxes_per_class: Value = None,
    iou_threshold: Value = None,
    score_threshold: Value = None,
    *,
    center_point_box: int = 0,
) -> Result:
    """Boxes chosen by falling score. boxes: [N, B, 4], scores: [N, C, B] -> [chosen, 3]."""
    limits = (max_output_boxes_per_class, g.frozen(iou_threshold), g.frozen(score_threshold))
    return g.call(regions.non_max_suppression, boxes, scores, *limits, bool(center_point_box))
