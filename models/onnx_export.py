"""Write a network of this package as ONNX, one node per module, with its names kept.

PyTorch's exporters fold batch normalisation into the convolutions and rename what they touch. Here a module
becomes the node of its own path (`features.0`), its parameters become initializers under their state_dict
names (`features.0.weight`), BatchNormalization and Dropout stay (in inference form), and a function becomes
a node of the module that calls it (`features.3.cat`). A value has the name of the node that makes it.

Only the modules and functions that the networks here are made of can be written; others are refused.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

OPSET = 20
IR_VERSION = 10


@dataclass
class _Graph:
    """The nodes and initializers written so far."""

    nodes: list[NodeProto] = field(default_factory=list)
    initializers: dict[str, TensorProto] = field(default_factory=dict)

    def node(self, op_type: str, name: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Append a node whose only output has its name."""
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))

    def free_name(self, path: Sequence[str]) -> str:
        """Return the dotted path, with a number behind it if a node has it already."""
        name = ".".join(path)
        taken = {node.name for node in self.nodes}
        numbered = (f"{name}_{i}" for i in itertools.count(1))
        return next(free for free in itertools.chain([name], numbered) if free not in taken)

    def weights(self, path: str, module: nn.Module, *names: str) -> list[str]:
        """Add those of the module's tensors that exist as initializers; return their names in order."""
        added = []
        for name in names:
            tensor = getattr(module, name)
            if tensor is not None:
                added.append(self.constant(f"{path}.{name}", tensor))
        return added

    def constant(self, name: str, tensor: Tensor) -> str:
        """Add an initializer and return its name."""
        self.initializers[name] = numpy_helper.from_array(
            tensor.detach().cpu().contiguous().float().numpy(), name
        )
        return name


def to_onnx(module: nn.Module, input_shape: tuple[int, int, int], *, name: str) -> onnx.ModelProto:
    """Write a network as an ONNX model with a dynamic batch.

    Args:
        module: The network; it is written in eval mode and left in the mode it was in.
        input_shape: `(C, H, W)` of the input.
        name: Name of the graph.

    Returns:
        A model with the input `input: float32 [batch, C, H, W]` and the output `logits: float32 [batch, K]`.

    Raises:
        ValueError: If the network uses a module or function that has no form here, or uses a module twice.
    """
    training = module.training
    module.eval()
    try:
        traced = fx.symbolic_trace(module)
        with torch.no_grad():
            logits = module(torch.zeros(1, *input_shape))
    finally:
        module.train(training)
    graph = _write_graph(traced)
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *input_shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", logits.shape[1]])],
            list(graph.initializers.values()),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="graftonnx",
    )


def _write_graph(traced: fx.GraphModule) -> _Graph:
    """Write a traced network, node by node; its input becomes `input`, its output `logits`."""
    graph = _Graph()
    values: dict[object, str] = {}
    for node in traced.graph.nodes:
        match node.op:
            case "placeholder" if not values:
                values[node] = "input"
            case "call_module":
                module = traced.get_submodule(node.target)
                values[node] = _write_module(graph, node.target, module, values[node.args[0]])
            case "call_function":
                values[node] = _write_function(graph, node, values)
            case "output" if values.get(node.args[0]) == graph.nodes[-1].name:
                graph.nodes[-1].output[0] = "logits"
            case _:
                raise ValueError(f"cannot write '{node.name}' as ONNX: this {node.op} has no form here")
    return graph


def run(module: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits `[N, K]` of a network in eval mode for images `[N, C, H, W]`."""
    training = module.training
    module.eval()
    try:
        with torch.inference_mode():
            logits: NDArray[np.float32] = module(torch.from_numpy(images)).numpy()
    finally:
        module.train(training)
    return logits


def _write_module(graph: _Graph, path: str, module: nn.Module, x: str) -> str:
    """Append the node of a leaf module and return its value."""
    write = _MODULES.get(type(module))
    if write is None:
        raise ValueError(f"cannot write '{path}' as ONNX: {type(module).__name__} has no form here")
    if any(node.name == path for node in graph.nodes):
        raise ValueError(f"cannot write '{path}' as ONNX: the network calls it twice")
    write(graph, path, module, x)
    return path


def _write_function(graph: _Graph, node: fx.Node, values: dict[object, str]) -> str:
    """Append the node of a function call and return its value."""
    function: Any = node.target
    args: tuple[Any, ...] = node.args
    name = graph.free_name([*list(node.meta.get("nn_module_stack", {}))[-1:], function.__name__])
    match function:
        case torch.cat if "dim" in node.kwargs:
            parts = [values[part] for part in args[0]]
            graph.node("Concat", name, parts, axis=node.kwargs["dim"])
        case torch.flatten if args[1:] == (1,):
            graph.node("Flatten", name, [values[args[0]]], axis=1)
        case operator.add:
            graph.node("Add", name, [values[term] for term in args])
        case _:
            raise ValueError(f"cannot write '{name}' as ONNX: {node.target} has no form here")
    return name


def _conv(graph: _Graph, path: str, module: nn.Conv2d, x: str) -> None:
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise ValueError(f"cannot write '{path}' as ONNX: its padding is not a number of zeros")
    graph.node(
        "Conv",
        path,
        [x, *graph.weights(path, module, "weight", "bias")],
        kernel_shape=module.kernel_size,
        strides=module.stride,
        pads=[*module.padding, *module.padding],
        dilations=module.dilation,
        group=module.groups,
    )


def _batch_norm(graph: _Graph, path: str, module: nn.BatchNorm2d, x: str) -> None:
    if not (module.affine and module.track_running_stats and module.momentum is not None):
        raise ValueError(f"cannot write '{path}' as ONNX: it lacks weights, running statistics or momentum")
    graph.node(
        "BatchNormalization",
        path,
        [x, *graph.weights(path, module, "weight", "bias", "running_mean", "running_var")],
        epsilon=module.eps,
        momentum=1 - module.momentum,
    )


def _relu(graph: _Graph, path: str, module: nn.ReLU, x: str) -> None:
    graph.node("Relu", path, [x])


def _max_pool(graph: _Graph, path: str, module: nn.MaxPool2d, x: str) -> None:
    if _pair(module.dilation) != [1, 1]:
        raise ValueError(f"cannot write '{path}' as ONNX: its dilation is {module.dilation}, not 1")
    graph.node(
        "MaxPool",
        path,
        [x],
        kernel_shape=_pair(module.kernel_size),
        strides=_pair(module.stride),
        pads=_pair(module.padding) * 2,
        ceil_mode=int(module.ceil_mode),
    )


def _average_pool(graph: _Graph, path: str, module: nn.AvgPool2d, x: str) -> None:
    graph.node(
        "AveragePool",
        path,
        [x],
        kernel_shape=_pair(module.kernel_size),
        strides=_pair(module.stride),
        pads=_pair(module.padding) * 2,
        ceil_mode=int(module.ceil_mode),
        count_include_pad=int(module.count_include_pad),
    )


def _global_average_pool(graph: _Graph, path: str, module: nn.AdaptiveAvgPool2d, x: str) -> None:
    if _pair(module.output_size) != [1, 1]:
        raise ValueError(f"cannot write '{path}' as ONNX: its output is {module.output_size}, not 1x1")
    graph.node("GlobalAveragePool", path, [x])


def _dropout(graph: _Graph, path: str, module: nn.Dropout, x: str) -> None:
    graph.node("Dropout", path, [x, graph.constant(f"{path}.ratio", torch.tensor(module.p))])


def _linear(graph: _Graph, path: str, module: nn.Linear, x: str) -> None:
    graph.node("Gemm", path, [x, *graph.weights(path, module, "weight", "bias")], transB=1)


def _pair(size: Any) -> list[int]:
    """Return `[height, width]` of a size that is one number or two."""
    return [size, size] if isinstance(size, int) else list(size)


_MODULES: dict[type[nn.Module], Callable[..., None]] = {
    nn.Conv2d: _conv,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: _relu,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _global_average_pool,
    nn.Dropout: _dropout,
    nn.Linear: _linear,
}
