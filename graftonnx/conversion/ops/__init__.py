"""Operators of ONNX as PyTorch code, one file per family."""
