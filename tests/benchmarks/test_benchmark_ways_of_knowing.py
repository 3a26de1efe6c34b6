"""benchmarks/ways_of_knowing.py leaves out of each expert's findings what a way of reading is without."""

from __future__ import annotations

from astrea.alignment.matrix import ExpertMatrix
from benchmark_scripts import benchmark_script
from phrase_experts import phrase_matrix

lost_phrases = benchmark_script("ways_of_knowing").lost_phrases


def matrix() -> ExpertMatrix:
    """Experts: 0 has features (phrase 0) and words (phrase 1), 1 words first, 2 words alone."""
    features = [True, False, False, False, True, False]
    return phrase_matrix([0, 0, 0, 1, 1, 2], features, [0, 0, 1, 0, 1, 0])


def test_features_alone_do_without_words_where_an_expert_has_both():
    assert lost_phrases(matrix(), "features").tolist() == [[1, 0, -1]]
    left = matrix().without_phrases(lost_phrases(matrix(), "features"))
    assert left.valid.tolist() == [[True, True, False, False, True, True]]


def test_words_alone_do_without_features():
    assert lost_phrases(matrix(), "words").tolist() == [[0, 1, -1]]
    left = matrix().without_phrases(lost_phrases(matrix(), "words"))
    assert left.valid.tolist() == [[False, False, True, True, False, True]]
