from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrea.report.interval import wilson
from astrea.report.results import TaskScore


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I: method 3 of 81/263, 15/148, 0/20, 1/29.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(right: int, count: int, low: float, high: float):
    assert wilson(right / count, count) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_interval_holds_the_share_and_never_is_a_point(count: int, share: float):
    low, high = wilson(share, count)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    assert high - low > 1e-5


def test_all_right_of_thirty_is_not_certain():
    assert TaskScore(score=100.0, n=30, metric="vqa_accuracy").interval == pytest.approx((88.65, 100.0), abs=0.01)
    assert TaskScore(score=100.0, n=30, metric="cider_d").interval is None
    assert TaskScore(score=50.0, n=None, metric="vqa_accuracy").interval is None
