"""Experts in a process of their own give what they give here; what fails there is told here."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from astrea.common.errors import AstreaError
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures, Reading
from astrea.model.loaded import LoadedModel
from astrea.serving import expert_process
from astrea.serving.expert_messages import (
    Request,
    packed,
    packed_pictures,
    packed_readings,
    unpacked,
    unpacked_pictures,
    unpacked_readings,
)
from astrea.serving.expert_process import ExpertProcess, ExpertsElsewhere, answer, look_when_asked, placed
from astrea.serving.local import Asker


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

    def readings(self, pixels_N3SS, originals=None, sizes=None) -> list[dict[str, Reading]]:
        shown = [list(one.shape[1:]) for one in (originals or pixels_N3SS)]
        return [{"sizes": Reading("sizes", labels=[str(one), str(sizes)])} for one in shown]


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
    assert not Path(apart._folder.name).exists()


def test_another_process_gives_the_same_and_its_failures_are_told_here(apart: ExpertProcess, loaded: LoadedModel):
    check_same(apart, loaded)
    with pytest.raises(ExpertsElsewhere, match="KeyError"):
        apart(torch.zeros(1, 3, 8, 8), ["none"])
    check_same(apart, loaded)


def test_answers_and_readings_are_those_of_experts_in_the_servers_process(
    apart: ExpertProcess, loaded: LoadedModel, pictures, monkeypatch: pytest.MonkeyPatch
):
    content = [{"type": "image"}, {"type": "text", "text": "what colour is the cat?"}]

    def asked() -> tuple[list[str], list[dict[str, object]]]:
        with Asker(loaded) as asker:
            shown = [asker.picture(picture) for picture in pictures[:2]]
            turns = [{"role": "user", "content": content}]
            answers = [asker.submit(turns, [one], most=6) for one in shown]
            return [one.text() for one in answers], asker.engine.readings(shown)

    here = asked()
    for method in ("forward", "readings"):
        monkeypatch.setattr(ExpertBank, method, lambda *_, **__: pytest.fail("the server's own experts were asked"))
    monkeypatch.setattr("astrea.serving.engine.placed", lambda experts, apart_or_not: apart)
    monkeypatch.setattr(apart, "close", lambda: None)  # other tests ask it, too
    assert asked() == here
    assert here[1][0]["segmentation"]["mask"]


def test_a_process_that_was_closed_stays_closed(apart: ExpertProcess, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(apart, "_closed", True)
    with pytest.raises(ExpertsElsewhere, match="closed"):
        apart(torch.zeros(1, 3, 8, 8))


def test_pictures_as_they_are_go_along_where_they_are_given():
    pixels, originals = torch.rand(2, 3, 4, 4), [torch.randint(0, 256, (3, 2, n), dtype=torch.uint8) for n in (5, 9)]
    again, whole = unpacked_pictures(packed_pictures(pixels, originals))
    assert torch.equal(again, pixels)
    assert all(map(torch.equal, whole, originals))
    assert unpacked_pictures(packed_pictures(pixels, None))[1] is None


def test_an_expert_there_reads_pictures_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What the other process does, without another process."""
    monkeypatch.setattr(expert_process.signal, "signal", lambda *_: None)
    pixels, originals = torch.zeros(2, 3, 4, 4), [torch.zeros(3, 2, n, dtype=torch.uint8) for n in (5, 9)]
    whole, square = packed_pictures(pixels, originals), packed_pictures(pixels, None)
    save_file({}, tmp_path / "none")
    asked = Request(["sizes"]).written()
    shown = Request(None, [(5, 2), (9, 2)]).written()
    pipe = Pipe(
        pickle.dumps(Sizes()), *(asked, whole), *(asked, square), *(shown, whole), *(Request().written(), square)
    )
    look_when_asked(pipe, torch.get_num_threads(), tmp_path / "none")
    assert pipe.sent[:1] == [expert_process.READY]
    assert pipe.sent[1::2] == [b"null"] * 4
    seen = [unpacked(sent, ["sizes"])["sizes"].tokens[:, 0].tolist() for sent in pipe.sent[2:5:2]]
    assert seen == [[[2, 5], [2, 9]], [[4, 4], [4, 4]]]
    read = [[row["sizes"].labels for row in unpacked_readings(sent)] for sent in pipe.sent[6::2]]
    assert read[0] == [["[2, 5]", "[(5, 2), (9, 2)]"], ["[2, 9]", "[(5, 2), (9, 2)]"]]
    assert read[1] == [["[4, 4]", "None"]] * 2


def test_readings_come_back_as_they_went():
    masks = torch.arange(24).view(2, 3, 4)  # of one batch, in one memory
    boxes = [(0.1, 1 / 3, 0.5, 1.0), (0.0, 0.0, 1.0, 1.0)]
    there = [
        {"one.of two": Reading("one.of two", boxes, ["a", "b"], [0.7, 1 / 7]), "mask": Reading("mask", mask=masks[0])},
        {"one.of two": Reading("one.of two"), "mask": Reading("mask", mask=masks[1].T, caption='"quoted"\n\ud800 é')},
    ]
    back = unpacked_readings(packed_readings(there))
    for row, other in zip(back, there, strict=True):
        assert list(row) == list(other)
        for name, reading in row.items():
            assert (reading.mask is None) == (other[name].mask is None)
            assert reading.mask is None or torch.equal(reading.mask, other[name].mask)
            assert [getattr(reading, part) for part in ("expert", "boxes", "labels", "scores", "caption")] == [
                getattr(other[name], part) for part in ("expert", "boxes", "labels", "scores", "caption")
            ]
    assert unpacked_readings(packed_readings([])) == []


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
    answer(pipe, lambda: packed(features))
    assert pipe.sent == [b"null", packed(features)]
    back = unpacked(pipe.sent[1], list(features))
    for name, one in features.items():
        assert torch.equal(back[name].tokens, one.tokens)
        assert torch.equal(back[name].confidence, one.confidence)
    assert torch.equal(back["placed"].places, features["placed"].places)
    assert back["without.places"].places is None


def test_words_of_unforeseen_failures_stay_there():
    def refuses() -> bytes:
        raise AstreaError("a picture is too narrow", "cut it")

    def fails() -> bytes:
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
    back = unpacked(packed(features), ["mine"])["mine"]
    assert torch.equal(back.tokens, whole)
    assert torch.equal(back.confidence, whole[:, :, 0])
    assert torch.equal(back.places, whole[..., :2])
