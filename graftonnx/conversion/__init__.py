"""ONNX to PyTorch and back: `to_torch`, `write_back`, and what connects their names."""

from __future__ import annotations

from graftonnx.conversion.layers import freeze_bn
from graftonnx.conversion.modules import to_torch, unsupported, write_back
from graftonnx.conversion.names import onnx_name

__all__ = ["freeze_bn", "onnx_name", "to_torch", "unsupported", "write_back"]
