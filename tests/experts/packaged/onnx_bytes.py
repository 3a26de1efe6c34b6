"""ONNX files written by hand, field by field: no library for that is needed by the code under test."""

from __future__ import annotations


def varint(number: int) -> bytes:
    found = b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    """One field of a message: a number, or bytes (a text, a message)."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def node(operator: bytes, inputs: list[bytes], output: bytes, *more: bytes) -> bytes:
    named = b"".join(field(1, name) for name in inputs)
    return field(1, named + field(2, output) + field(4, operator) + b"".join(more))


def value_info(number: int, name: bytes) -> bytes:
    """A float tensor (n, 2) as input (11) or output (12) of a graph."""
    shape = field(1, field(2, b"n")) + field(1, field(1, 2))
    return field(number, field(1, name) + field(2, field(1, field(1, 1) + field(2, shape))))


def tensor(name: bytes, values: bytes, *more: bytes) -> bytes:
    """A constant of two floats."""
    return field(1, 2) + field(2, 1) + field(8, name) + field(9, values) + b"".join(more)


def model(*parts: bytes) -> bytes:
    """A model whose graph has these parts, an input x and an output y."""
    graph = b"".join(parts) + field(2, b"g") + value_info(11, b"x") + value_info(12, b"y")
    return field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 13))


def adds(values: bytes) -> bytes:
    """y = x + two floats."""
    return model(node(b"Add", [b"x", b"c"], b"y"), field(5, tensor(b"c", values)))
