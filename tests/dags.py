"""Large random networks."""

from __future__ import annotations

import random

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper


def random_dag(nodes: int, seed: int = 0) -> ModelProto:
    """Return a classifier of images with about `nodes` operators, many of which read two earlier ones."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    weight = numbers.standard_normal((8, 8, 1, 1), np.float32) / 3
    weights = [numpy_helper.from_array(weight, "shared")]
    weights.append(numpy_helper.from_array(numbers.standard_normal((8, 3, 1, 1), np.float32), "stem.weight"))
    weights.append(numpy_helper.from_array(numbers.standard_normal((4, 8), np.float32), "fc.weight"))
    made = [helper.make_node("Conv", ["image", "stem.weight"], ["/trunk/stem/Conv_output_0"])]
    values = ["/trunk/stem/Conv_output_0"]
    read: set[str] = set()

    def add(kind: str, inputs: list[str], name: str) -> None:
        value = f"/trunk/{name}_output_0"
        made.append(helper.make_node(kind, inputs, [value], name=f"/trunk/{name}"))
        read.update(inputs)
        values.append(value)

    while len(made) < nodes - 4:
        stage, index = f"stage{len(made) // 500}", len(made)
        if rng.random() < 0.3:
            add("Add", [values[-1], rng.choice(values[-12:-1] or values)], f"{stage}/sum/Add_{index}")
        else:
            add("Conv", [rng.choice(values[-3:]), "shared"], f"{stage}/conv/Conv_{index}")
        add("Relu", [values[-1]], f"{stage}/relu/Relu_{index}")
    ends = [value for value in values if value not in read]
    made.append(helper.make_node("Sum", ends, ["sum"]))
    made.append(helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]))
    made.append(helper.make_node("Flatten", ["pooled"], ["flat"], axis=1))
    made.append(helper.make_node("Gemm", ["flat", "fc.weight"], ["scores"], transB=1))
    graph = helper.make_graph(
        made,
        "dag",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 4])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
