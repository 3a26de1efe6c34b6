from __future__ import annotations

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.experts.protocol import ExpertFeatures
from astrea.experts.vocabulary_part import speaking_of, word_channels

WORDS = ("cat", "dog", "red")
FEATURES = ExpertFeatures(
    torch.tensor([[[0.6, 0.4, 0.0, 9.0], [0.1, 0.9, 0.0, 9.0], [0.0, 0.0, 1.0, 9.0]]]), torch.tensor([[0.9, 0.8, 0.7]])
)


def test_a_part_keeps_the_slots_that_speak_mostly_of_its_words():
    found = speaking_of(FEATURES, word_channels(("cat", "red"), WORDS), len(WORDS))
    assert found.confidence.tolist() == [[pytest.approx(0.9), 0, pytest.approx(0.7)]]
    assert found.tokens is FEATURES.tokens


def test_without_words_it_is_the_whole_expert():
    assert speaking_of(FEATURES, word_channels((), WORDS), len(WORDS)) is FEATURES


def test_a_word_that_it_has_not_is_told():
    with pytest.raises(AstreaError, match="no word 'horse'"):
        word_channels(["cat", "horse"], WORDS)
