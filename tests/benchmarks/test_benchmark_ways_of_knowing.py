"""benchmarks/ways_of_knowing.py leaves out of each expert's findings what a way of reading is without."""

from __future__ import annotations

import torch

from astrea.alignment.matrix import ExpertMatrix
from benchmark_scripts import benchmark_script

lost_phrases = benchmark_script("ways_of_knowing").lost_phrases


def matrix() -> ExpertMatrix:
    """Experts: 0 has features (phrase 0) and words (phrase 1), 1 words first, 2 words alone."""
    expert = torch.tensor([0, 0, 0, 1, 1, 2])
    count = len(expert)
    return ExpertMatrix(
        tokens=torch.zeros(1, count, 4),
        confidence=torch.ones(1, count),
        valid=torch.ones(1, count, dtype=torch.bool),
        present=torch.ones(1, 3, dtype=torch.bool),
        expert=expert,
        places=torch.full((1, count, 2), torch.nan),
        ids=torch.full((1, count), -1),
        features=torch.tensor([True, False, False, False, True, False]),
        phrase=torch.tensor([0, 0, 1, 0, 1, 0]),
    )


def test_features_alone_do_without_words_where_an_expert_has_both():
    assert lost_phrases(matrix(), "features").tolist() == [[1, 0, -1]]
    left = matrix().without_phrases(lost_phrases(matrix(), "features"))
    assert left.valid.tolist() == [[True, True, False, False, True, True]]


def test_words_alone_do_without_features():
    assert lost_phrases(matrix(), "words").tolist() == [[0, 1, -1]]
    left = matrix().without_phrases(lost_phrases(matrix(), "words"))
    assert left.valid.tolist() == [[False, False, True, True, False, True]]
