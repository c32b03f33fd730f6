"""Read published weights (`.pth`, `.pt`, `.safetensors`) into a network, or say what does not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from . import pickles

SUFFIXES = (".pth", ".pt", ".safetensors")

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts store the weights beside other things."""

_SHOWN = 3
"""How many keys of each kind a message names."""


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit the network.

    Attributes:
        classes: The number of classes of the checkpoint, if that alone is what does not fit; else None.
    """

    def __init__(self, message: str, *, classes: int | None = None) -> None:
        super().__init__(message)
        self.classes = classes


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the weights in a file, without running code that may be in it.

    Weights under `state_dict`, `model_state_dict` or `model` are found, and the prefix `module.` that
    `DataParallel` puts before every key is taken off.

    Raises:
        CheckpointError: If the file is missing, of another kind, damaged, or holds something else.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(f"cannot read '{path}': its name ends in none of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise CheckpointError(f"cannot read '{path}': there is no such file.")
    content = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)
    if isinstance(content, Mapping):
        content = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"cannot read '{path}': it holds {_kind(content)}, not a state_dict.")
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"cannot read '{path}': it is no state_dict, '{key}' holds {_kind(value)}, not a tensor. "
                "Save `network.state_dict()`."
            )
        state[key] = value
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def load_state_dict(
    module: nn.Module, state: Mapping[str, Tensor], *, classifier: str, optional: Sequence[str] = ()
) -> list[str]:
    """Load weights into a network.

    The counters `num_batches_tracked` may be missing; older checkpoints have none.

    Args:
        module: The network; it is unchanged if the weights do not fit.
        state: The weights by key.
        classifier: Path of the module whose first dimension is the number of classes.
        optional: Prefixes of keys that are dropped where the network has none that start so.

    Returns:
        The prefixes of the keys that were dropped.

    Raises:
        CheckpointError: If keys are missing or left over, or shapes differ; the message names the first few.
    """
    expected = module.state_dict()
    absent = [prefix for prefix in optional if not any(key.startswith(prefix) for key in expected)]
    dropped = [prefix for prefix in absent if any(key.startswith(prefix) for key in state)]
    kept = {key: value for key, value in state.items() if not key.startswith(tuple(dropped) or "\0")}
    _check(kept, expected, classifier)
    counters = {key: value for key, value in expected.items() if key not in kept}
    module.load_state_dict(kept | counters)
    return dropped


def _check(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], classifier: str) -> None:
    """Refuse weights whose keys or shapes are not the expected ones."""
    missing = [key for key in expected if key not in state and not key.endswith(".num_batches_tracked")]
    left_over = [key for key in state if key not in expected]
    shapes = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    if not (missing or left_over or shapes):
        return
    head = f"{classifier}.weight"
    if (
        not missing
        and not left_over
        and head in shapes
        and _differ_in_classes_only(state, expected, shapes, head)
    ):
        found, wanted = state[head].shape[0], expected[head].shape[0]
        raise CheckpointError(
            f"the checkpoint has {found} classes ('{head}' is {list(state[head].shape)}), expected {wanted}.",
            classes=found,
        )
    problems = []
    if missing:
        problems.append(f"missing keys: {len(missing)} of {len(expected)} ({_some(missing)})")
    if left_over:
        problems.append(f"unknown keys: {len(left_over)} ({_some(left_over)})")
    if shapes:
        named = [
            f"'{key}' is {list(state[key].shape)}, expected {list(expected[key].shape)}" for key in shapes
        ]
        more = f", and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        problems.append(f"other shapes: {len(shapes)} ({'; '.join(named[:_SHOWN])}{more})")
    raise CheckpointError(f"the checkpoint does not fit the network: {'; '.join(problems)}.")


def _differ_in_classes_only(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], keys: Sequence[str], head: str
) -> bool:
    """Whether every one of the keys belongs to a classifier and differs in its first dimension alone."""
    classes = state[head].shape[0]
    return all(
        state[key].ndim == expected[key].ndim
        and state[key].shape[1:] == expected[key].shape[1:]
        and state[key].shape[0] == classes
        and expected[key].shape[0] == expected[head].shape[0]
        for key in keys
    )


def _read_torch(path: Path) -> object:
    """Read what `torch.save` wrote, tensors and containers only."""
    try:
        pickles.check(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"cannot read '{path}': {_first_line(error)} Is the file complete?") from error
    except pickles.DAMAGES as error:
        raise CheckpointError(
            f"cannot read '{path}': it is damaged, or holds more than tensors and containers, which could "
            "run code. Save `network.state_dict()`, or convert it to .safetensors."
        ) from error


def _read_safetensors(path: Path) -> object:
    """Read a `.safetensors` file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"cannot read '{path}': {_first_line(error)} Is the file complete?") from error


def _first_line(error: Exception) -> str:
    """Return the first line of an error's text as a sentence."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."


def _some(keys: Sequence[str]) -> str:
    """Name the first few keys and count the others."""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(f"'{key}'" for key in keys[:_SHOWN]) + more


def _kind(value: object) -> str:
    """Name the type of a value for a message."""
    return "an empty dict" if value == {} else f"a {type(value).__name__}"
