"""Arguments of the calls that are emitted: values inside lists, and names."""

from __future__ import annotations

import keyword
import re
from typing import Any

import numpy as np
from torch import fx

from graftonnx import limits
from graftonnx.conversion.values import Size, Weight, is_symbolic, to_tensor
from graftonnx.errors import UnsupportedOpError


def identifier(name: str) -> str:
    """Return a Python name that resembles an ONNX name.

    >>> identifier("/layer1/layer1.0/conv1/Conv")
    'layer1_layer1_0_conv1_Conv'
    """
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    reserved = text == "self" or keyword.iskeyword(text)
    return f"v{text}" if not text or text[0].isdigit() or reserved else text


def check_size(nbytes: int) -> None:
    """Refuse a constant that is computed and too large.

    Raises:
        UnsupportedOpError: If it takes more than the limit `folded`.
    """
    most = limits.limits().folded
    if nbytes > most:
        error = limits.exceeded("folded", f"the bytes of its result are {nbytes:,}", most)
        raise UnsupportedOpError(error.message)


def is_constant(argument: Any) -> bool:
    """Return whether an argument holds an array, and nothing that is known only when the module runs."""
    leaves = list(_leaves(argument))
    if any(isinstance(leaf, (fx.Node, Weight, Size)) or _symbolic(leaf) for leaf in leaves):
        return False
    return any(isinstance(leaf, np.ndarray) for leaf in leaves)


def _symbolic(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and is_symbolic(leaf)


def _leaves(argument: Any) -> list[Any]:
    if isinstance(argument, (list, tuple)):
        return [leaf for item in argument for leaf in _leaves(item)]
    if isinstance(argument, dict):
        return _leaves(list(argument.values()))
    return [argument]


def with_tensors(argument: Any) -> Any:
    """Replace the arrays inside an argument by tensors."""
    if isinstance(argument, np.ndarray):
        return to_tensor(argument.astype(np.int64) if argument.dtype == object else argument)
    if isinstance(argument, np.generic):
        return argument.item()
    if isinstance(argument, (list, tuple)):
        return type(argument)(with_tensors(item) for item in argument)
    if isinstance(argument, dict):
        return {key: with_tensors(item) for key, item in argument.items()}
    return argument
