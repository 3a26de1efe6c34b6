"""Experts in a process of their own give what they give here; what fails there is told here."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.experts.protocol import ExpertFeatures
from astrea.model.loaded import LoadedModel
from astrea.serving.expert_process import ExpertProcess, ExpertsElsewhere, answer, packed, placed, unpacked


class Pipe:
    """An end of a pipe that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send_bytes(self, data: bytes) -> None:
        self.sent.append(data)


class Unsendable(torch.nn.Module):
    """Experts that no other process can import."""

    names = ("seeing",)

    def __init__(self) -> None:
        super().__init__()
        self.look = lambda pixels: pixels


@pytest.fixture(scope="module")
def apart(loaded: LoadedModel) -> Iterator[ExpertProcess]:
    found = ExpertProcess(loaded.model.experts, threads=1)
    yield found
    found.close()


@torch.inference_mode()
def check_same(apart: ExpertProcess, loaded: LoadedModel) -> None:
    size = loaded.processor.image_processor.image_size
    pixels = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    here = loaded.model.experts(pixels)
    there = apart(pixels)
    assert list(there) == list(apart.names) == loaded.model.experts.names
    for name, features in here.items():
        assert torch.equal(there[name].tokens, features.tokens)
        assert torch.equal(there[name].confidence, features.confidence)
        assert (there[name].places is None) == (features.places is None)
    last = loaded.model.experts.names[-1]
    assert list(apart(pixels[:1], [last])) == [last]


def test_another_process_gives_the_same_and_its_failures_are_told_here(apart: ExpertProcess, loaded: LoadedModel):
    check_same(apart, loaded)
    with pytest.raises(ExpertsElsewhere, match="KeyError"):
        apart(torch.zeros(1, 3, 8, 8), ["none"])
    check_same(apart, loaded)


@pytest.mark.slow
def test_a_process_that_has_died_is_replaced(apart: ExpertProcess, loaded: LoadedModel):
    before = apart._process.pid
    apart._process.kill()
    check_same(apart, loaded)
    assert apart._process.pid != before


def test_features_come_back_as_they_went_in_any_type():
    features = {
        "placed": ExpertFeatures(torch.rand(2, 3, 4).bfloat16(), torch.rand(2, 3), torch.rand(2, 3, 2)),
        "without.places": ExpertFeatures(torch.rand(2, 1, 5), torch.rand(2, 1)),
    }
    pipe = Pipe()
    answer(pipe, lambda: features)
    assert pipe.sent == [b"null", packed(features)]
    from safetensors.torch import load

    back = unpacked(load(pipe.sent[1]), list(features))
    for name, one in features.items():
        assert torch.equal(back[name].tokens, one.tokens)
        assert torch.equal(back[name].confidence, one.confidence)
    assert torch.equal(back["placed"].places, features["placed"].places)
    assert back["without.places"].places is None


def test_words_of_unforeseen_failures_stay_there():
    def refuses() -> dict[str, ExpertFeatures]:
        raise AstreaError("a picture is too narrow", "cut it")

    def fails() -> dict[str, ExpertFeatures]:
        raise ValueError("what a client has sent")

    pipe = Pipe()
    answer(pipe, refuses)
    answer(pipe, fails)
    assert [json.loads(sent) for sent in pipe.sent] == [
        {"message": "a picture is too narrow", "hint": "cut it"},
        {"message": "ValueError", "hint": None},
    ]


def test_where_experts_are_placed(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch):
    experts = loaded.model.experts
    assert placed(experts, False) is experts
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert placed(experts, None) is experts  # one core has nothing to share
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    unsendable = Unsendable()
    assert placed(unsendable, None) is unsendable
    with pytest.raises(AstreaError, match="cannot be sent to another process"):
        placed(unsendable, True)
