"""Keys of a converted module and names of the ONNX file: each gives the other back.

A key is a path of attributes, `features.0.weight`; an ONNX name may hold anything. Four rules connect them:

| ONNX initializers | keys |
|---|---|
| `conv1.weight`, `conv1.bias` (the role is the last part) | the same |
| `w_0`, `b_0`, of one layer that wants `weight` and `bias` | `{w_0,b_0}.weight`, `{w_0,b_0}.bias` |
| what is no valid path: `a..b`, `100%` | percent-encoded: `a%2E%2Eb`, `100%25` |
| what is taken: `forward`; `val_3`, which PyTorch's exporter takes | followed by braces: `forward{}` |

In the second rule what the names have in common stands before the brace: `conv_{w,b}.weight` is `conv_w`.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from torch import nn

ROLES = ("weight", "bias", "running_mean", "running_var")
"""What a layer calls its tensors, in the order in which a brace lists their ONNX names."""

_UNSAFE = frozenset('%{},"\\')
_NOTHING = "{}"
"""Decodes to nothing: it makes a key differ from one that is taken."""

_EMPTY = nn.Module()

_EXPORTERS_OWN = re.compile(r"val_\d+")
"""`torch.onnx.export` refuses a parameter whose name one of its own values gets."""


def onnx_name(key: str) -> str:
    """Return the ONNX name of the tensor that a converted module holds under `key`.

    >>> onnx_name("a/features.0.weight")
    'a/features.0.weight'
    >>> onnx_name("conv_{w,b}.bias")
    'conv_b'
    """
    path, _, role = key.rpartition(".")
    stem, brace, rest = path.rpartition("{")
    if not brace or not rest.endswith("}") or role not in ROLES:
        return unquote(key.replace(_NOTHING, ""))
    endings = rest[:-1].split(",")
    return unquote(stem.replace(_NOTHING, "") + endings[ROLES.index(role)])


def escape(text: str, *, also: str = "") -> str:
    """Percent-encode what may not stand in an attribute name, and the characters of `also`."""
    return "".join(_percent(c) if c in _UNSAFE or c in also or not c.isprintable() else c for c in text)


class Keys:
    """Gives each tensor of a file its place in a module: the module that holds it and its attribute."""

    def __init__(self, root: nn.Module) -> None:
        self._root = root

    def tensor(self, name: str) -> str:
        """Return a free key for the initializer `name`, making the modules on its path."""
        return next(key for key in _spellings(name) if self._claim(key))

    def layer(self, names: Sequence[str | None]) -> str:
        """Return a free path for a layer whose tensors have these ONNX names, in the order of ROLES."""
        stem = _torch_stem(names)
        if stem is not None and self._claim(escape(stem)):
            return escape(stem)
        present = [name or "" for name in names]
        common = _common_start([name for name in names if name])
        endings = ",".join(escape(name[len(common) :], also=".") for name in present)
        return next(path for start in _spellings(common) if self._claim(path := start + "{" + endings + "}"))

    def _claim(self, key: str) -> bool:
        """Return whether `key` is free; make the containers on its path if it is."""
        *folders, leaf = key.split(".")
        owner: nn.Module = self._root
        for part in (*folders, leaf):
            if not part or not _prints_as_itself(part):
                return False
        for folder in folders:
            child = owner._modules.get(folder)
            if child is None:
                if hasattr(owner, folder):
                    return False
                child = _EMPTY
            elif type(child) is not nn.Module:
                return False
            owner = child
        if hasattr(owner, leaf):
            return False
        owner = self._root
        for folder in folders:
            if folder not in owner._modules:
                owner.add_module(folder, nn.Module())
            owner = owner.get_submodule(folder)
        return True


def _spellings(name: str) -> Iterator[str]:
    """Yield keys that all decode to `name`, the most readable first."""
    if not _EXPORTERS_OWN.fullmatch(name):
        yield escape(name)
    flat = escape(name, also=".")
    flat += _NOTHING if _EXPORTERS_OWN.fullmatch(name) else ""
    while True:
        yield flat
        flat += _NOTHING


def _common_start(names: Sequence[str]) -> str:
    """Return the characters with which all names begin.

    >>> _common_start(["conv_w", "conv_b"])
    'conv_'
    """
    first, last = min(names), max(names)
    length = next((i for i, (x, y) in enumerate(zip(first, last, strict=False)) if x != y), len(first))
    return first[:length]


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _prints_as_itself(part: str) -> bool:
    """Return whether generated code reaches the attribute `part` by this spelling.

    Python normalises identifiers, so `self.ﬁ` is `self.fi`; and `self.class` is a syntax error.
    """
    if not part.isidentifier():
        return True
    return unicodedata.normalize("NFKC", part) == part and not keyword.iskeyword(part)


def _torch_stem(names: Sequence[str | None]) -> str | None:
    """Return `P` if the names are `P.weight`, `P.bias`, ...; else None."""
    stems = {
        name.removesuffix(f".{role}") if name.endswith(f".{role}") else None
        for name, role in zip(names, ROLES, strict=False)
        if name
    }
    stem = stems.pop() if len(stems) == 1 else None
    return stem or None
