"""Plain-PyTorch definitions of the paper's networks, installed as `graftonnx.models`."""
