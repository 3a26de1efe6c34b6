"""Weights that two processes share are as they were, and in memory once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from astrea.common.errors import AstreaError
from astrea.serving.shared_weights import pack, unpack


class Odd(nn.Module):
    """An expert with weights of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.tied = nn.Linear(300, 40), nn.Linear(300, 40, bias=False)
        self.tied.weight = self.first.weight
        whole = torch.rand(2, 50)
        self.parts = nn.ParameterList(nn.Parameter(part) for part in whole)
        self.turned = nn.Parameter(torch.rand(4, 6).T)
        self.low = nn.Parameter(torch.rand(3).bfloat16())
        self.waves = nn.Parameter(torch.rand(3, dtype=torch.complex64))
        self.register_buffer("graph", torch.arange(200, dtype=torch.uint8), persistent=False)
        self.register_buffer("again", self.low.detach())
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("nothing", None)
        self.kept = torch.rand(5)  # neither parameter nor buffer
        self.absent = nn.Parameter(torch.zeros(2, device="meta"))


def tensors(odd: Odd) -> dict[str, Tensor]:
    return {**dict(odd.named_parameters()), **dict(odd.named_buffers()), "kept": odd.kept}


@pytest.fixture
def odd() -> Odd:
    return Odd().requires_grad_(False).eval()


def test_weights_are_as_they_were_here_and_there(odd, tmp_path):
    before = {name: tensor.clone() for name, tensor in tensors(odd).items()}
    there = unpack(pack(odd, tmp_path / "weights"), tmp_path / "weights")
    assert list(tensors(there)) == list(before)
    for name, tensor in before.items():
        for found in (tensors(odd)[name], tensors(there)[name]):
            assert (found.shape, found.dtype, found.stride()) == (tensor.shape, tensor.dtype, tensor.stride())
            assert found.is_meta or torch.equal(found, tensor)
            assert not found.requires_grad
    for one in (odd, there):
        assert one.tied.weight is one.first.weight
        assert {name for name, _ in one.named_parameters()} == {name for name, _ in odd.named_parameters()}
        assert one.nothing is None
    # Sent once more, as when the other process has died, from the memory of the file that is gone.
    (tmp_path / "weights").unlink()
    again = unpack(pack(odd, tmp_path / "more"), tmp_path / "more")
    assert all(torch.equal(tensors(again)[name], one) for name, one in before.items() if not one.is_meta)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mapped where")
def test_both_sides_map_the_same_file(odd, tmp_path):
    sent = pack(odd, tmp_path / "weights")
    there = unpack(sent, tmp_path / "weights")
    mapped = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(tmp_path / "weights"))
    ]
    for one in (odd, there):
        for name in ("first.weight", "first.bias", "parts.0", "parts.1", "low", "graph", "count"):
            address = tensors(one)[name].data_ptr()
            assert any(start <= address < end for start, end in mapped), name
    assert len(sent) < 300 * 40 * 4 / 2  # the large ones are not in it


def test_what_one_side_writes_the_other_does_not_see(odd, tmp_path):
    there = unpack(pack(odd, tmp_path / "weights"), tmp_path / "weights")
    before = odd.first.bias.clone()
    there.first.bias.add_(1)
    assert torch.equal(odd.first.bias, before)


def test_a_file_that_cannot_be_written_changes_nothing(odd, tmp_path):
    before = odd.first.weight.data_ptr()
    with pytest.raises(AstreaError, match="weights"):
        pack(odd, tmp_path / "none" / "weights")
    assert odd.first.weight.data_ptr() == before


def test_a_model_that_was_asked_for_hidden_states_is_sent_too(tmp_path):
    """transformers leaves hooks behind that no pickle can name; both models give hidden states afterwards."""
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaModel(LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=16, **sizes)).eval()
    model.requires_grad_(False)
    ids = torch.arange(5)[None]
    wanted = model(input_ids=ids, output_hidden_states=True).hidden_states
    there = unpack(pack(model, tmp_path / "weights"), tmp_path / "weights")
    for one in (model, there):
        found = one(input_ids=ids, output_hidden_states=True).hidden_states
        assert len(found) == len(wanted)
        for state, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(state, other)
