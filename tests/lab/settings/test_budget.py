from __future__ import annotations

import pytest

from astrea.lab.settings.budget import RULES, Budget, cost_share, first_k, fixed_top_k, random_k

SIZES = {"a": 8, "b": 4, "c": 8, "d": 4}
WORTH = {"a": 0.1, "b": 0.5, "c": 0.3, "d": 0.3}


@pytest.mark.parametrize(
    ("tokens", "experts", "chosen"),
    [
        (16, 2, ["a", "b"]),
        (16, 4, ["a", "b", "d"]),  # c does not fit any more, d does
        (8, 2, ["a"]),
        (3, 2, []),
        (48, 8, ["a", "b", "c", "d"]),
    ],
)
def test_a_budget_is_filled_in_order(tokens, experts, chosen):
    assert Budget(tokens, experts).fill(list(SIZES), SIZES) == chosen


def test_the_orders():
    assert first_k(list(SIZES), WORTH, 3) == ["a", "b", "c", "d"]
    assert fixed_top_k(list(SIZES), WORTH, 3) == ["b", "c", "d", "a"]
    drawn = {tuple(random_k(list(SIZES), WORTH, seed)) for seed in range(20)}
    assert len(drawn) > 5
    assert all(sorted(order) == sorted(SIZES) for order in drawn)
    assert random_k(list(SIZES), WORTH, 4) == random_k(list(SIZES), WORTH, 4)
    assert set(RULES) == {"first_k", "random", "fixed_top_k"}


def test_the_part_of_the_arithmetic():
    assert cost_share(["a", "d"], {"a": 30, "b": 50, "c": 0, "d": 20}) == 0.5
