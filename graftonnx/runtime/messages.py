"""ONNX Runtime's errors as sentences."""

from __future__ import annotations

import re

import onnxruntime as ort

from graftonnx.errors import ModelError

ORT_ERRORS: tuple[type[Exception], ...] = (
    *(
        getattr(ort.capi.onnxruntime_pybind11_state, name)
        for name in (
            "EngineError",
            "EPFail",
            "Fail",
            "InvalidArgument",
            "InvalidGraph",
            "InvalidProtobuf",
            "NoModel",
            "NoSuchFile",
            "NotImplemented",
            "RuntimeException",
        )
    ),
    RuntimeError,
    ValueError,
    MemoryError,
    OverflowError,
)
"""What ONNX Runtime raises for a model, a feed or a provider."""

OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation")
"""What is in its messages where memory is short."""

_BLAMING = (
    re.compile(r"Name:'(?P<node>.*?)' Status Message: (?P<reason>.*)"),
    re.compile(r"Node \((?P<node>.*?)\) Op \(\w+\) (?:\[\w+\] )?(?P<reason>.*)"),
    re.compile(r'In Node, \("(?P<node>.*?)", .*, Error (?P<reason>.*)'),
    re.compile(r"(?P<reason>Type '.*?' of input .* in node \((?P<node>.*?)\) is invalid)"),
    re.compile(r"(?P<reason>.*) node with name '(?P<node>.*?)'"),
)
"""How ONNX Runtime names the node that it cannot load or run."""


_LONGEST = 4096
"""Characters of a message that are read: the file chooses the names in it."""

_PLACE = r"/\S{0,256}onnxruntime\S{0,256}\.(?:cc|h):\d{1,6}"
"""A line of ONNX Runtime's source."""

_LIST = r"\((?:[^()]|\([^()]*\))*\)"
_SIGNATURE = (
    rf"(?:[^()\n]* )?[^()\s]*::[^()\s]*(?:{_LIST})+(?:::<lambda{_LIST}>)?(?: const)?(?: \[with [^\]]*\])?"
)
"""A function in C++, as compilers write it."""


def blamed(error: ModelError) -> tuple[str, str]:
    """Return what ONNX Runtime says of a model that it could not load or run.

    Args:
        error: What :func:`open_session` or :meth:`Session.run` raised.

    Returns:
        The node that it blames, "" where it names none, and the reason.
    """
    text = sentence(error.__cause__ or error)
    for pattern in _BLAMING:
        found = pattern.search(text)
        if found is not None:
            return found["node"], found["reason"].strip().rstrip(".")
    return "", text.rstrip(".")


def sentence(error: BaseException) -> str:
    """Return ONNX Runtime's message as a sentence in one line, without codes and places in its source."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error)[:_LONGEST])
    text = re.sub(rf"{_PLACE} [^\n]*? was false\. ", "", text)
    text = re.sub(rf"{_PLACE} {_SIGNATURE} ", "", text)
    text = re.sub(rf"{_PLACE} .*?\) (?=[A-Z])", "", text)
    text = re.sub(rf"{_PLACE} .*?\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text, flags=re.DOTALL)
    text = " ".join(text.split()) or "it gives no reason"
    return text if text.endswith((".", "!", "?")) else f"{text}."
