"""Experts in a process of their own give what they give here; what fails there is told here."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load

from astrea.common.errors import AstreaError
from astrea.experts.protocol import ExpertFeatures
from astrea.model.loaded import LoadedModel
from astrea.serving import expert_process
from astrea.serving.expert_process import (
    ExpertProcess,
    ExpertsElsewhere,
    answer,
    look_when_asked,
    packed,
    packed_pictures,
    placed,
    unpacked,
    unpacked_pictures,
)


class Pipe:
    """An end of a pipe that keeps what is sent, and has something to be received."""

    def __init__(self, *received: bytes) -> None:
        self.sent: list[bytes] = []
        self.received = list(received)

    def recv_bytes(self) -> bytes:
        if not self.received:
            raise EOFError
        return self.received.pop(0)

    def send_bytes(self, data: bytes) -> None:
        self.sent.append(data)


class Sizes:
    """Experts that tell height and width of what they are given."""

    def __call__(self, pixels_N3SS, names, originals=None) -> dict[str, ExpertFeatures]:
        sizes = [[float(side) for side in one.shape[1:]] for one in (originals or pixels_N3SS)]
        return {"sizes": ExpertFeatures(torch.tensor(sizes)[:, None], torch.ones(len(sizes), 1))}


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


def test_pictures_as_they_are_go_along_where_they_are_given():
    pixels, originals = torch.rand(2, 3, 4, 4), [torch.randint(0, 256, (3, 2, n), dtype=torch.uint8) for n in (5, 9)]
    file = packed_pictures(pixels, originals)
    again, whole = unpacked_pictures(load(file))
    assert torch.equal(again, pixels)
    assert all(map(torch.equal, whole, originals))
    file = packed_pictures(pixels, None)
    assert list(load(file)) == ["pixels"]
    assert unpacked_pictures(load(file))[1] is None


def test_an_expert_there_reads_pictures_as_they_are(monkeypatch: pytest.MonkeyPatch):
    """What the other process does, without another process."""
    monkeypatch.setattr(expert_process.signal, "signal", lambda *_: None)
    pixels, originals = torch.zeros(2, 3, 4, 4), [torch.zeros(3, 2, n, dtype=torch.uint8) for n in (5, 9)]
    pipe = Pipe(
        pickle.dumps(Sizes()),
        *(b'["sizes"]', packed_pictures(pixels, originals)),
        *(b'["sizes"]', packed_pictures(pixels, None)),
    )
    look_when_asked(pipe, torch.get_num_threads())
    assert pipe.sent[::2] == [b"null", b"null"]
    whole, square = (unpacked(load(sent), ["sizes"])["sizes"].tokens for sent in pipe.sent[1::2])
    assert whole[:, 0].tolist() == [[2, 5], [2, 9]]
    assert square[:, 0].tolist() == [[4, 4], [4, 4]]


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


def test_parts_that_share_memory_are_sent_too():
    whole = torch.rand(2, 3, 4)
    features = {"mine": ExpertFeatures(whole, whole[:, :, 0], whole[..., :2])}
    pipe = Pipe()
    answer(pipe, lambda: features)
    back = unpacked(load(pipe.sent[1]), ["mine"])["mine"]
    assert torch.equal(back.tokens, whole)
    assert torch.equal(back.confidence, whole[:, :, 0])
    assert torch.equal(back.places, whole[..., :2])
