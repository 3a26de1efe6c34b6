"""Findings whose features are near to no known word are read by their experts' own words alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from astrea.alignment.known_words import KnownWords, known_words, with_known
from astrea.alignment.matrix import ExpertMatrix
from astrea.alignment.phrase_ids import PhraseIds, check_phrase_ids
from astrea.common.errors import AstreaError
from astrea.training.assembly import assemble
from phrase_experts import EXPERTS, seen
from small_runs import small_run

WIDTH = 4
PHRASES = [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
"""Two findings of an expert with two phrases of two tokens each, and one of an expert with one phrase."""
OWNER = [0] * 8 + [1] * 2


def matrix(*firsts: list[float]) -> ExpertMatrix:
    """A picture for each list: how near the three tokens of features are to the only known word, the first axis."""
    features = torch.tensor([phrase == 0 and place % 2 == 0 for place, phrase in enumerate(PHRASES)])
    tokens = torch.zeros(len(firsts), len(PHRASES), WIDTH)
    for row, cosines in enumerate(firsts):
        for place, cosine in zip(features.nonzero().flatten().tolist(), cosines, strict=True):
            tokens[row, place, :2] = torch.tensor([cosine, (1 - cosine**2) ** 0.5])
    confidence = torch.ones(tokens.shape[:2])
    return ExpertMatrix(
        tokens,
        confidence,
        confidence > 0,
        torch.ones(len(firsts), 2, dtype=torch.bool),
        torch.tensor(OWNER),
        torch.zeros(*confidence.shape, 2),
        ids=torch.full(confidence.shape, -1),
        features=features,
        phrase=torch.tensor(PHRASES),
    )


UNKNOWN = [torch.nan, torch.nan]


def known(*least: float, usual: list[list[float]] | None = None) -> KnownWords:
    """Without anything usual, cosines are compared as they are."""
    return KnownWords(
        torch.zeros(WIDTH), torch.eye(WIDTH)[:1], torch.tensor(least), torch.tensor(usual or [UNKNOWN] * len(least))
    )


def test_a_strange_finding_loses_its_phrase_of_features_and_no_other():
    found = known(0.5, 0.5).familiar(matrix([0.9, 0.4, 0.1], [0.4, 0.6, 0.9], [0.9, 0.9, 0.9]))
    assert found.valid.int().tolist() == [
        [1, 1, 1, 1, 0, 0, 1, 1, 1, 1],  # the last finding has no other phrase, so it is read however strange it is
        [0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
        [1] * 10,
    ]


def test_what_was_not_read_before_is_not_read_afterwards():
    one = matrix([0.9, 0.9, 0.9])
    one = replace(one, valid=one.valid & (torch.arange(10) != 2))
    assert torch.equal(known(0.5, 0.5).familiar(one).valid, one.valid)


def test_of_an_expert_without_a_threshold_everything_is_familiar():
    assert known(-torch.inf, -torch.inf).familiar(matrix([-0.9, 0.0, 0.0])).valid.all()


def nearness(words: KnownWords, cosine, expert, places, read=None) -> list[float]:
    """Of one picture's tokens."""
    there = torch.tensor([read or [True] * len(cosine)])
    return words.nearness(
        torch.tensor([cosine]), torch.tensor(expert), torch.tensor([places]), there
    )[0].tolist()  # fmt: skip


def test_nearness_is_averaged_over_what_the_experts_see_in_one_place():
    words = known(0.0, 0.0, 0.0, usual=[[0.5, 0.1], [0.3, 0.2], [0.4, 0.1]])
    here, beside, far = [0.2, 0.2], [0.3, 0.2], [0.8, 0.8]
    # In deviations: 1 and -1 of the first expert, -1 of the second, 2 of the third.
    found = nearness(words, [0.6, 0.4, 0.1, 0.6], [0, 0, 1, 2], [here, far, beside, far])
    assert found == pytest.approx([0.0, 0.5, 0.0, 0.5], abs=1e-5)


def test_of_several_tokens_of_another_expert_the_nearest_counts_and_its_own_do_not():
    words = known(0.0, 0.0, usual=[[0.0, 0.1], [0.0, 0.1]])
    places = [[0.2, 0.2], [0.2, 0.25], [0.2, 0.21], [0.2, 0.3]]
    found = nearness(words, [0.0, 0.2, 0.4, 0.8], [0, 0, 1, 1], places)
    assert found == pytest.approx([2.0, 3.0, 2.0, 5.0], abs=1e-5)


def test_nothing_is_told_by_what_is_not_there_or_has_no_place_or_of_which_nothing_is_usual():
    words = known(0.0, 0.0, usual=[[0.0, 0.1], [0.0, 0.1]])
    here, nowhere = [0.2, 0.2], [torch.nan, torch.nan]
    assert nearness(words, [0.1, 0.5], [0, 1], [here, here], [True, False])[0] == pytest.approx(1.0)
    assert nearness(words, [0.1, 0.5], [0, 1], [here, nowhere]) == pytest.approx([1.0, 5.0])
    half = known(0.0, 0.0, usual=[[0.0, 0.1], UNKNOWN])
    assert nearness(half, [0.1, 0.5], [0, 1], [here, here]) == pytest.approx([1.0, 0.5])


def test_the_nearest_word_is_counted_from_the_mean():
    words = replace(known(0.0), mean=torch.tensor([1.0, 0, 0, 0]), vectors=torch.eye(WIDTH)[1:3])
    cosine, word = words.nearest(torch.tensor([[[1.0, 0, 2, 0], [1.0, 3, 0, 0], [2.0, 1, 0, 0]]]))
    assert word.tolist() == [[1, 0, 0]]
    torch.testing.assert_close(cosine, torch.tensor([[1.0, 1.0, 0.5**0.5]]))


def test_words_of_several_pieces_are_their_mean():
    embedding = nn.Embedding.from_pretrained(torch.eye(WIDTH))
    ids = with_known(PhraseIds(scale=1, phrases={}), [[0], [1, 2]], {"b": 0.3})
    made = known_words(ids, ["a", "b"], embedding, WIDTH, torch.device("cpu"))
    torch.testing.assert_close(made.mean, torch.full((WIDTH,), 0.25))
    wanted = torch.tensor([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0]]) - 0.25
    torch.testing.assert_close(made.vectors, F.normalize(wanted, dim=-1))
    torch.testing.assert_close(made.least, torch.tensor([-torch.inf, 0.3]))
    assert made.usual.isnan().all()


@pytest.mark.parametrize("wrong", [{"known": [[5]]}, {"known": [[]]}, {"known": [["a"]]}, {"usual": {"a": [0.3, 0.0]}}])
def test_a_malformed_configuration_is_refused(wrong):
    written = {"scale": 1.0, "phrases": {}, **wrong}
    with pytest.raises(AstreaError, match="configuration"):
        check_phrase_ids(written, 5)


def test_a_model_reads_strange_things_as_if_their_features_were_not_there(language_checkpoint):
    own = {"contrast_width": 16, "adapter_hidden": 24, "findings": "phrases", "strategy": "sequence_concat"}
    run = small_run(experts=EXPERTS, model=own, llm={"checkpoint": str(language_checkpoint("llama_tied"))})
    model, tokenizer = assemble(run, None)
    model.eval()
    features = {name: part for name, part in seen(tokenizer).items() if name == "things"}
    ids = torch.tensor([[model.config.image_token_id] * model.num_visual_tokens + [5, 6]] * 2)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = model(input_ids=ids, features=features).logits[:, -1]
        return found

    before, spelled = logits(), PhraseIds.model_validate(model.config.phrase_ids)
    model.config.phrase_ids = with_known(spelled, [[7], [8]], {"things": -1.0}).model_dump(mode="json")
    torch.testing.assert_close(logits(), before)
    model.config.phrase_ids = with_known(spelled, [[7], [8]], {"things": 1.0}).model_dump(mode="json")
    strange = logits()
    assert not torch.allclose(strange, before)
    with torch.no_grad():
        model.model.alignment.adapters["things"].slots["feature"].layers[-1].bias.add_(3.0)
    torch.testing.assert_close(logits(), strange)
