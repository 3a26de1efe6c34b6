"""ONNX files from anybody: what is refused before onnxruntime sees it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_bytes import adds, field, model, node, tensor

from astrea import AstreaError
from astrea.experts.packaged.onnx_file import check_graph

GOOD = adds(struct.pack("<2f", 1, 2))
AT = (field(13, field(1, b"location") + field(2, b"/etc/passwd")), field(14, 1))


def within(*parts: bytes) -> bytes:
    """An attribute of a node that holds them."""
    return node(b"Constant", [], b"c", field(5, field(1, b"value") + b"".join(parts)))


def test_a_graph_of_standard_operators_in_one_file_is_taken():
    check_graph(GOOD, "it")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(model(field(5, tensor(b"c", b"", AT[0]))), "another file", id="external data"),
        pytest.param(model(field(5, tensor(b"c", b"", AT[1]))), "another file", id="external place"),
        pytest.param(model(within(field(5, tensor(b"c", b"", *AT)))), "another file", id="in an attribute"),
        pytest.param(model(within(field(6, field(5, tensor(b"c", b"", *AT))))), "another file", id="in a graph inside"),
        pytest.param(model(within(field(22, field(1, tensor(b"c", b"", *AT))))), "another file", id="sparse"),
        pytest.param(model(field(15, field(2, tensor(b"c", b"", *AT)))), "another file", id="sparse constant"),
        pytest.param(GOOD + field(25, field(7, node(b"Loop", [b"x"], b"y")[2:])), "control flow", id="in a function"),
        pytest.param(model(node(b"Loop", [b"x"], b"y")), "control flow", id="loop"),
        pytest.param(model(node(b"Add", [b"x"], b"y", field(7, b"com.evil"))), "com.evil", id="custom operator"),
        pytest.param(b"", "0 bytes", id="empty"),
        pytest.param(field(1, 8), "no graph", id="no graph"),
        pytest.param(field(7, 5), "damaged", id="a number for a graph"),
        pytest.param(GOOD[:-3], "damaged", id="cut short"),
        pytest.param(b"\xff" * 20, "damaged", id="endless number"),
    ],
)
def test_others_are_refused(data, said):
    with pytest.raises(AstreaError, match=said):
        check_graph(data, "it")


def test_graphs_in_graphs_have_an_end():
    inner = b""
    for _ in range(40):
        inner = node(b"Add", [b"x"], b"y", field(5, field(6, inner)))
    with pytest.raises(AstreaError, match="nested too deeply"):
        check_graph(model(inner), "it")


@given(st.binary(max_size=200), st.integers(0, len(GOOD)))
def test_whatever_the_bytes_it_is_taken_or_refused(noise, place):
    for data in (noise, GOOD[:place] + noise + GOOD[place:]):
        try:
            check_graph(data, "it")
        except AstreaError as error:
            assert error.hint  # noqa: PT017
