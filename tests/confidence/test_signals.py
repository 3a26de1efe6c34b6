"""Unknown words are named, whatever the tokenizer; refusals are known, however they are written."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from astrea.confidence.signals import refuses, unknown_share, unknown_words
from astrea.world.language.tiny import tiny_tokenizer


@pytest.mark.parametrize(
    ("question", "unknown"),
    [
        ("how many suns are there?", []),
        ("how many giraffes are there?", ["giraffes"]),
        ("is there a red giraffe, or a banjo or a giraffe?", ["giraffe", "banjo"]),
        ("is there a 猫?", ["猫"]),
        ("are there 12 suns?", []),
        ("IS THERE A CAT?", []),
        ("", []),
        ("?!,.", []),
    ],
)
def test_words_that_the_tokenizer_spells_or_lacks(question, unknown):
    assert unknown_words(question, tiny_tokenizer()) == unknown


def test_a_tokenizer_of_pieces_knows_all_but_unknown_ones():
    core = Tokenizer(models.WordLevel({"<unk>": 0, "is": 1, "cat": 2}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    assert unknown_words("is cat dog", tokenizer) == ["dog"]
    assert unknown_share("is cat dog dog", tokenizer) == 0.25


@pytest.mark.parametrize("answer", ["none", "None.", " cannot  tell", "can't tell", "unanswerable"])
def test_refusals(answer):
    assert refuses(answer)


@pytest.mark.parametrize("answer", ["", "no", "nothing", "cat", "none of them"])
def test_answers(answer):
    assert not refuses(answer)
