"""Whether an ONNX file from anybody may be handed to onnxruntime: read as a protocol buffer, nothing is built.

Refused are references to other files (tensors may lie anywhere on the disk), operators beyond the standard ones, and
control flow, without which a graph ends. The field numbers are those of onnx.proto (https://github.com/onnx/onnx).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from astrea.common.errors import AstreaError

MOST_BYTES = 1 << 28
MOST_DEPTH = 8
DOMAINS = frozenset([b"", b"ai.onnx", b"ai.onnx.ml"])
CONTROL_FLOW = frozenset([b"If", b"Loop", b"Scan", b"SequenceMap"])
HINT = "use a model of standard operators that lies in one file"

INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Message -> its fields that hold messages which matter here."""
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5
_FIXED = {EIGHT: 8, FOUR: 4}
EXTERNAL_DATA, DATA_LOCATION = 13, 14
OPERATOR, DOMAIN = 4, 7


def check_graph(data: bytes | memoryview, name: str) -> None:
    """Whether a file may be run.

    Args:
        name: what messages call it.

    Raises:
        AstreaError: it is too large, damaged, or one of what is refused above.
    """
    if not 0 < len(data) <= MOST_BYTES:
        raise AstreaError(f"{name} has {len(data):,} bytes", f"1 to {MOST_BYTES:,} are read")
    try:
        graphs = _check(memoryview(data), "model", name, 0)
    except (LookupError, ValueError) as error:
        raise AstreaError(f"{name} is damaged or no ONNX file", "install or download it again") from error
    if graphs == 0:
        raise AstreaError(f"{name} holds no graph", HINT)


def _check(message: memoryview, kind: str, name: str, depth: int) -> int:
    """A message and all in it; returns how many graphs it holds."""
    if depth > MOST_DEPTH:
        raise AstreaError(f"{name} is nested too deeply", HINT)
    graphs = 0
    for field, value in _fields(message):
        if kind == "tensor" and (field == EXTERNAL_DATA or (field == DATA_LOCATION and value == 1)):
            raise AstreaError(f"{name} refers to another file", HINT)
        if kind == "node" and field == OPERATOR and _bytes(value) in CONTROL_FLOW:
            raise AstreaError(f"{name} has control flow ({_bytes(value).decode()})", HINT)
        if kind == "node" and field == DOMAIN and _bytes(value) not in DOMAINS:
            raise AstreaError(f"{name} has operators of {_bytes(value)[:60]!r}", HINT)
        inner = INSIDE[kind].get(field)
        if inner is not None:
            graphs += (inner == "graph") + _check(_view(value), inner, name, depth + 1)
    return graphs


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message.

    Raises:
        LookupError, ValueError: it is damaged.
    """
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        field, wire = tag >> 3, tag & 7
        value: int | memoryview
        if wire == VARINT:
            value, place = _varint(message, place)
        else:
            size, place = _varint(message, place) if wire == BYTES else (_FIXED[wire], place)
            if size > len(message) - place:
                raise ValueError("cut short")
            value, place = message[place : place + size], place + size
        yield field, value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    found = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        found |= (byte & 127) << shift
        if byte < 128:
            return found, place
    raise ValueError("a number of more than ten bytes")


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _bytes(value: int | memoryview) -> bytes:
    return bytes(_view(value))
