"""Findings whose features are near to no known word are read by their experts' own words alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from astrea.alignment.known_words import KnownWords, known_words, threshold, with_known
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


def known(*least: float) -> KnownWords:
    return KnownWords(torch.zeros(WIDTH), torch.eye(WIDTH)[:1], torch.tensor(least))


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
    assert known(-1.0, -1.0).familiar(matrix([-0.9, 0.0, 0.0])).valid.all()


def test_the_nearest_word_is_counted_from_the_mean():
    words = KnownWords(torch.tensor([1.0, 0, 0, 0]), torch.eye(WIDTH)[1:3], torch.tensor([0.0]))
    cosine, word = words.nearest(torch.tensor([[[1.0, 0, 2, 0], [1.0, 3, 0, 0], [2.0, 1, 0, 0]]]))
    assert word.tolist() == [[1, 0, 0]]
    torch.testing.assert_close(cosine, torch.tensor([[1.0, 1.0, 0.5**0.5]]))


def test_a_threshold_is_a_share_of_what_was_named_rightly():
    cosine, right = torch.linspace(0, 1, 101), torch.arange(101) >= 50
    assert threshold(cosine, right, 0.1, 30) == pytest.approx(0.55)
    assert threshold(cosine, right, 0.1, 52) == -1.0


def test_words_of_several_pieces_are_their_mean():
    embedding = nn.Embedding.from_pretrained(torch.eye(WIDTH))
    ids = with_known(PhraseIds(scale=1, phrases={}), [[0], [1, 2]], {"b": 0.3})
    made = known_words(ids, ["a", "b"], embedding, WIDTH, torch.device("cpu"))
    torch.testing.assert_close(made.mean, torch.full((WIDTH,), 0.25))
    wanted = torch.tensor([[1.0, 0, 0, 0], [0, 0.5, 0.5, 0]]) - 0.25
    torch.testing.assert_close(made.vectors, F.normalize(wanted, dim=-1))
    torch.testing.assert_close(made.least, torch.tensor([-1.0, 0.3]))


@pytest.mark.parametrize("wrong", [{"known": [[5]]}, {"known": [[]]}, {"known": [["a"]]}, {"least": {"a": 2.0}}])
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
