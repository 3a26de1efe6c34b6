"""Pieces of an answer add up to the answer, whatever its tokens and stop texts are; draws keep to the likeliest."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.serving.sampling import Sampling, choose, drawn
from astrea.serving.text import AnswerText

LETTERS = "ab é\n"


@settings(max_examples=150)
@given(
    st.lists(st.text(LETTERS, min_size=1, max_size=3), max_size=12),
    st.lists(st.text(LETTERS, min_size=1, max_size=4), max_size=3),
    st.sets(st.integers(0, 11)),
)
def test_pieces_add_up_to_the_text_before_the_first_stop(tokens: list[str], stops: list[str], not_due: set[int]):
    answer = AnswerText(lambda ids: "".join(tokens[i] for i in ids), stops)
    said = ""
    for number in range(len(tokens)):
        said += answer.push(number, due=number not in not_due)
        if answer.stopped:
            break
    else:
        said += answer.finish()
    whole = "".join(tokens)
    ends = [whole.find(stop) for stop in stops if stop in whole]
    # A stop is seen with the token that completes it, and only what came up to then counts.
    seen = "".join(tokens[: number + 1]) if tokens else ""
    wanted = seen[: min((seen.find(stop) for stop in stops if stop in seen), default=len(seen))]
    assert answer.stopped == bool(ends)
    assert said == wanted.strip()


def test_half_a_character_waits_for_its_other_half():
    halves = "é".encode()
    answer = AnswerText(lambda ids: bytes(halves[i] for i in ids).decode("utf-8", "replace"))
    assert (answer.push(0), answer.push(1)) == ("", "é")


def test_what_is_not_due_is_not_decoded_and_comes_with_what_is():
    decoded: list[int] = []

    def decode(ids: list[int]) -> str:
        decoded.append(len(ids))
        return "".join("abcd"[i] for i in ids)

    answer = AnswerText(decode)
    assert [answer.push(number, due=number in (0, 3)) for number in range(4)] == ["a", "", "", "bcd"]
    assert decoded == [1, 4]


def test_draws_come_from_the_likeliest_that_have_top_p_together():
    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    generator = torch.Generator().manual_seed(0)
    for top_p, allowed in ((1e-6, {0}), (0.5, {0}), (0.6, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        assert {drawn(scores, top_p, generator) for _ in range(200)} == allowed
    often = [drawn(scores, 1.0, generator) for _ in range(2000)]
    assert abs(often.count(0) / 2000 - 0.5) < 0.05


def test_without_temperature_the_best_is_taken_and_what_cannot_be_said_has_no_chance():
    scores = torch.tensor([1.0, -torch.inf, 2.0])
    generator = torch.Generator().manual_seed(0)
    assert choose(scores, 2, Sampling(), generator).token == 2
    told = choose(scores, 2, Sampling(logprobs=5), generator)
    assert [token for token, _ in told.top][:2] == [2, 0]
    assert {choose(scores, 2, Sampling(2.0), generator).token for _ in range(100)} == {0, 2}
