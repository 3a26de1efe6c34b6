"""Packed rows are what the chat template gives for every question by itself."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.data.packing import PackedBatch, Packer, Turn, answers_right
from astrea.world.language.tiny import tiny_tokenizer
from astrea.world.scenes.questions import text_vocabulary

PICTURE = 5
TOKENIZER = tiny_tokenizer()
ROWS = [
    [Turn("is there a cat?", "yes"), Turn("what does the sign say?", "stop", 0.5), Turn("how many suns?", "2")],
    [Turn("describe the picture.", "a red sun and a zebra.", 0.3)],
]
words = st.lists(st.sampled_from(text_vocabulary()), min_size=1, max_size=5).map(" ".join)
turns = st.builds(Turn, words, words, st.floats(0.1, 2))


@pytest.fixture
def packer() -> Packer:
    return Packer(TOKENIZER, PICTURE)


def template(turn: Turn) -> list[int]:
    """One question by itself, with one image placeholder grown to the picture's tokens."""
    talk = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": turn.question}]},
        {"role": "assistant", "content": turn.answer},
    ]
    ids = TOKENIZER.apply_chat_template(talk, tokenize=True, return_dict=True)["input_ids"]
    at = ids.index(TOKENIZER.convert_tokens_to_ids("<image>"))
    return ids[:at] + [ids[at]] * PICTURE + ids[at + 1 :]


def check(packer: Packer, rows: list[list[Turn]]) -> PackedBatch:
    batch = packer.pack(rows)
    prefix = PICTURE + 1
    for b, turns in enumerate(rows):
        segments = batch.segments[b]
        assert segments[:prefix].eq(0).all()
        assert segments.max() == len(turns)
        for number, turn in enumerate(turns, 1):
            alone = batch.input_ids[b][(segments == 0) | (segments == number)]
            assert alone.tolist() == template(turn)
            answer = [*packer.ids(turn.answer), TOKENIZER.eos_token_id]
            told = (segments == number) & (batch.labels[b] != -100)
            assert batch.labels[b][told].tolist() == answer
            assert batch.input_ids[b][told].tolist() == answer
            assert torch.allclose(batch.label_weights[b][told], torch.tensor(turn.weight))
            assert segments[: int(told.nonzero()[-1]) + 1][-1] == number
        real = segments >= 0
        assert torch.equal(batch.attention_mask[b].bool(), real)
        assert real.long().diff().le(0).all()
        assert batch.input_ids[b][~real].eq(TOKENIZER.pad_token_id).all()
    silent = batch.labels == -100
    assert batch.label_weights[silent].eq(0).all()
    assert silent[batch.segments <= 0].all()
    return batch


def test_packed_rows_are_the_chat_template_token_for_token(packer):
    batch = check(packer, ROWS)
    assert batch.input_ids.shape[0] == 2
    assert set(batch.model_inputs()) == {"input_ids", "attention_mask", "segments", "labels", "label_weights"}
    assert batch.model_inputs()["labels"] is batch.labels


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(turns, min_size=1, max_size=3), min_size=1, max_size=3))
def test_any_rows_are_the_chat_template(rows):
    check(Packer(TOKENIZER, PICTURE), rows)


def test_a_blind_row_has_no_picture(packer):
    seen, blind = packer.pack(ROWS), packer.pack(ROWS, pictures=False)
    assert not (blind.input_ids == packer.image).any()
    assert torch.equal(blind.input_ids[:, 1:], seen.input_ids[:, PICTURE + 1 :])
    assert torch.equal(blind.labels[:, 1:], seen.labels[:, PICTURE + 1 :])


def test_a_row_without_questions_is_the_picture_alone(packer):
    batch = packer.pack([[], ROWS[0]])
    assert batch.segments[0].tolist() == [0] * (PICTURE + 1) + [-1] * (batch.segments.shape[1] - PICTURE - 1)
    assert batch.labels[0].eq(-100).all()


def test_texts_are_tokenised_once(packer):
    calls = []
    inner = packer.tokenizer
    packer.tokenizer = lambda text, **options: calls.append(text) or inner(text, **options)
    one = packer.ids("is there a cat?")
    assert packer.ids("is there a cat?") is one
    assert calls == ["is there a cat?"]
    assert TOKENIZER.decode(one) == "is there a cat?"


# Marking


def logits_that_say(batch: PackedBatch) -> torch.Tensor:
    target = torch.where(batch.labels == -100, 0, batch.labels)
    said = torch.zeros(*target.shape, len(TOKENIZER))
    said[:, :-1].scatter_(2, target[:, 1:].unsqueeze(-1), 5.0)
    return said


def test_right_answers(packer):
    batch = packer.pack(ROWS)
    right = answers_right(logits_that_say(batch), batch)
    assert right[0].tolist() == [1, 1, 1]
    assert right[1, 0] == 1
    assert all(math.isnan(v) for v in right[1, 1:].tolist())


def test_one_wrong_token_spoils_its_own_answer_only(packer):
    batch = packer.pack(ROWS)
    for number in (1, 2, 3):
        for at in ((batch.segments[0] == number) & (batch.labels[0] != -100)).nonzero().flatten().tolist():
            logits = logits_that_say(batch)
            logits[0, at - 1, 3] = 9.0
            right = answers_right(logits, batch)
            assert right[0].tolist() == [float(n != number) for n in (1, 2, 3)]
            assert right[1, 0] == 1


def test_what_is_said_outside_of_answers_does_not_matter(packer):
    batch = packer.pack(ROWS)
    logits = logits_that_say(batch)
    silent = torch.nn.functional.pad(batch.labels[:, 1:] == -100, (0, 1), value=True)
    logits[silent] = torch.randn(len(TOKENIZER))
    assert torch.equal(answers_right(logits, batch)[0], torch.ones(3))
