"""The base class of ONNX experts: bytes travel as tensors, sessions do not."""

from __future__ import annotations

import copy
import pickle
import struct
import sys

import numpy as np
import pytest
import torch
from onnx_bytes import adds, field, model, node
from safetensors.torch import load_file, save_file

from astrea import AstreaError, ExpertFeatures, Reading
from astrea.experts.packaged.onnx import OnnxExpert

pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")

TWO = adds(struct.pack("<2f", 10, 20))


class Adder(OnnxExpert):
    """The mean and the least of a picture, plus what its graph adds."""

    num_tokens, width, labels = 1, 2, ("bright", "dark")
    installed = {"add": TWO}

    @classmethod
    def read_graphs(cls):
        return cls.installed

    def forward(self, pixels_B3HW):
        both = torch.stack([pixels_B3HW.mean((1, 2, 3)), pixels_B3HW.amin((1, 2, 3))], -1)
        found = torch.from_numpy(self.compute("add", {"x": both.numpy()})[0])
        return ExpertFeatures(found.unsqueeze(1), torch.ones(len(found), 1))

    def readings(self, pixels_B3HW):
        return [Reading("adder") for _ in pixels_B3HW]


PIXELS = torch.full((2, 3, 4, 4), 0.5)


def seen(expert: Adder) -> list[float]:
    return expert(PIXELS).tokens[0, 0].tolist()


@pytest.fixture
def expert() -> Adder:
    return Adder()


def test_it_computes_what_the_graph_says(expert):
    assert seen(expert) == [10.5, 20.5]


def test_its_bytes_are_saved_and_loaded_as_tensors_alone(expert, tmp_path):
    save_file(expert.state_dict(), tmp_path / "expert.safetensors")
    options = Adder.kept_options({})
    assert options == {"graph_bytes": {"add": len(TWO)}}
    with torch.device("meta"):
        other = Adder(**options)
    other.load_state_dict(load_file(tmp_path / "expert.safetensors"), assign=True)
    assert seen(other) == [10.5, 20.5]


def test_copies_have_sessions_of_their_own(expert):
    session = expert.session("add")
    assert expert.session("add") is session
    other = copy.deepcopy(expert)
    assert other.session("add") is not session
    assert seen(other) == seen(expert)
    assert seen(pickle.loads(pickle.dumps(expert))) == [10.5, 20.5]
    assert seen(expert.to(torch.float16)) == [10.5, 20.5]


def test_other_weights_make_another_session(expert):
    assert seen(expert) == [10.5, 20.5]
    expert.load_state_dict({"onnx_add": torch.frombuffer(bytearray(TWO[:-8] + TWO[-8:]), dtype=torch.uint8)})
    less = adds(struct.pack("<2f", 1, 2))
    expert.load_state_dict({"onnx_add": torch.frombuffer(bytearray(less), dtype=torch.uint8)})
    assert seen(expert) == [1.5, 2.5]


def test_threads_are_bounded_by_torchs(expert):
    options = expert.session("add").get_session_options()
    assert options.intra_op_num_threads == torch.get_num_threads()
    assert options.inter_op_num_threads == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (TWO[:-4] + b"\xff\xff\xff\xff", "damaged|cannot be used"),
        (model(node(b"NoSuchOperator", [b"x"], b"y")), "cannot be used"),
        (model(node(b"Add", [b"x"], b"y", field(7, b"my.ops"))), "my.ops"),
    ],
)
def test_a_damaged_graph_is_told_when_it_is_used(expert, data, said):
    expert.onnx_add = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    with pytest.raises(AstreaError, match=said):
        expert(PIXELS)


def test_inputs_that_the_graph_does_not_take_are_told(expert):
    with pytest.raises(AstreaError, match="'add' failed"):
        expert.compute("add", {"x": np.zeros((1, 5), np.float32)})


def test_sizes_that_anybody_may_have_written_are_checked():
    for sizes in ({}, {"add": 0}, {"add": 1 << 40}, {"a b": 5}, {"add": "5"}, [5], {"add": True}):
        with torch.device("meta"), pytest.raises(AstreaError, match="graph_bytes"):
            Adder(graph_bytes=sizes)
    with pytest.raises(AstreaError, match="other sizes"):
        Adder(graph_bytes={"add": len(TWO) + 1})


def test_without_the_library_a_run_is_refused_before_it_begins(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(AstreaError, match="needs the library onnxruntime") as told:
        Adder.kept_options({})
    assert "[onnx]" in told.value.hint
    with pytest.raises(AstreaError, match="needs the library onnxruntime"):
        Adder()(PIXELS)
