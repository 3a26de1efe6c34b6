"""Retrieval ranks and recall: against a plain count by definition, ties, chunks, and bad input."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.evaluation.metrics import retrieval
from astrea.evaluation.metrics.retrieval import ranks_i2t, ranks_t2i, recall_at, retrieval_ranks
from repository import FIXTURES


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and the image of each caption; every image has one caption or more."""
    images = draw(st.integers(1, 5))
    extra = draw(st.lists(st.integers(0, images - 1), max_size=6))
    owners = np.array(draw(st.permutations([*range(images), *extra])))
    cells = draw(st.lists(st.integers(-2, 2), min_size=images * len(owners), max_size=images * len(owners)))
    return np.array(cells, dtype=np.float32).reshape(images, len(owners)), owners


@settings(deadline=None)
@given(tables())
def test_ranks_by_definition(table: tuple[np.ndarray, np.ndarray]) -> None:
    scores, owners = table
    for image, rank in enumerate(ranks_i2t(scores, owners)):
        # Sort so that wrong captions come first among equals; the rank is where the first own caption stands.
        order = sorted(range(len(owners)), key=lambda c: (-scores[image, c], owners[c] == image))
        assert rank == 1 + [owners[c] for c in order].index(image)
    for caption, rank in enumerate(ranks_t2i(scores, owners)):
        order = sorted(range(len(scores)), key=lambda i: (-scores[i, caption], i == owners[caption]))
        assert rank == 1 + order.index(owners[caption])


@settings(deadline=None)
@given(tables(), st.floats(0.1, 10), st.floats(-5, 5))
def test_ranks_depend_on_order_only(table: tuple[np.ndarray, np.ndarray], scale: float, shift: float) -> None:
    scores, owners = table
    moved = scores.astype(np.float64) * scale + shift
    np.testing.assert_array_equal(ranks_i2t(moved, owners), ranks_i2t(scores, owners))
    np.testing.assert_array_equal(ranks_t2i(moved, owners), ranks_t2i(scores, owners))


@settings(deadline=None)
@given(tables(), st.integers(1, 30))
def test_chunks_change_nothing(table: tuple[np.ndarray, np.ndarray], cells: int) -> None:
    scores, owners = table
    whole = ranks_i2t(scores, owners), ranks_t2i(scores, owners)
    chunks = retrieval._chunks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_chunks", lambda queries, candidates: chunks(queries, candidates, cells))
        np.testing.assert_array_equal(ranks_i2t(scores, owners), whole[0])
        np.testing.assert_array_equal(ranks_t2i(scores, owners), whole[1])
        identity = np.eye(len(scores))  # with these image embeddings the products are the scores
        both = retrieval_ranks(identity, scores.T, owners)
    np.testing.assert_array_equal(both[0], whole[0])
    np.testing.assert_array_equal(both[1], whole[1])


def test_best_of_an_images_captions_counts() -> None:
    scores, owners = [[0.9, 0.1, 0.5], [0.2, 0.3, 0.8]], [1, 0, 1]
    np.testing.assert_array_equal(ranks_i2t(scores, owners), [3, 1])
    np.testing.assert_array_equal(ranks_t2i(scores, owners), [2, 2, 1])


def test_a_collapsed_model_gets_the_worst_ranks() -> None:
    owners = np.repeat(np.arange(7), 5)
    np.testing.assert_array_equal(ranks_i2t(np.ones((7, 35)), owners), np.full(7, 31))
    np.testing.assert_array_equal(ranks_t2i(np.ones((7, 35)), owners), np.full(35, 7))
    vector = np.random.default_rng(0).normal(size=33)
    i2t, t2i = retrieval_ranks(np.tile(vector / 5, (7, 1)), np.tile(vector / 7, (35, 1)), owners)
    assert recall_at(i2t, 30) == 0.0
    assert recall_at(t2i, 6) == 0.0


def test_recall_is_in_per_cent() -> None:
    assert recall_at([1, 2, 6, 11], 1) == 25.0
    assert recall_at([1, 2, 6, 11], 5) == 50.0
    assert recall_at([1, 2, 6, 11], 10) == 75.0


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 49))
def test_recall_grows_with_k(ranks: list[int], k: int) -> None:
    assert 0.0 <= recall_at(ranks, k) <= recall_at(ranks, k + 1) <= recall_at(ranks, 50) == 100.0


@pytest.mark.parametrize("ranks", [ranks_i2t, ranks_t2i])
@pytest.mark.parametrize(
    ("scores", "owners", "message"),
    [
        ([[0.0, np.nan]], [0, 0], "image 0 and caption 1 is NaN"),
        ([0.0, 1.0], [0, 0], "images, captions"),
        ([[0.0, 1.0]], [0], "one id for each of 2"),
        (np.zeros((1, 0)), [], "one id for each of 0"),
        ([[0.0, 1.0]], [0, 1], "from 0 to 0"),
        ([[0.0, 1.0]], [0, -1], "from 0 to 0"),
        ([[0.0, 1.0]], [0.0, 0.0], "whole numbers"),
        ([[0.0], [1.0]], [1], "image 0 has no caption"),
    ],
)
def test_bad_input_is_refused(ranks: object, scores: object, owners: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranks(scores, owners)  # type: ignore[operator]


def test_bad_embeddings_are_refused() -> None:
    with pytest.raises(ValueError, match="text embedding 1 is not finite"):
        retrieval_ranks(np.ones((2, 3)), np.array([[1.0] * 3, [np.nan] * 3]), [0, 1])
    with pytest.raises(ValueError, match="one width"):
        retrieval_ranks(np.ones((2, 3)), np.ones((2, 4)), [0, 1])


@pytest.mark.parametrize(("ranks", "k", "message"), [([], 1, "empty"), ([0], 1, "at least 1"), ([1], 0, "k is 0")])
def test_bad_recall_is_refused(ranks: list[int], k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recall_at(ranks, k)


GOLDEN = json.loads((FIXTURES / "metrics/retrieval.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{len(case['i2t'])} images")
def test_ranks_are_those_of_an_independent_ranking(case: dict) -> None:
    np.testing.assert_array_equal(ranks_i2t(case["scores"], case["owners"]), case["i2t"])
    np.testing.assert_array_equal(ranks_t2i(case["scores"], case["owners"]), case["t2i"])


def test_golden_set_is_large_and_has_ties() -> None:
    assert sum(len(case["i2t"]) + len(case["t2i"]) for case in GOLDEN) >= 200
    assert any(len(np.unique(case["scores"])) < 20 for case in GOLDEN)
