"""Calibration of single items: against values worked out by hand, and a gate that knows against one that guesses."""

from __future__ import annotations

import math

import pytest
import torch

from astrea.world.evaluation.item_calibration import EDGES, item_calibration, picture_share


def weights_of(nats: torch.Tensor, load_bias: torch.Tensor) -> torch.Tensor:
    """The gate weights that stand for some contributions."""
    gain = (nats + 0.005).sqrt() * load_bias.exp()
    return gain / (1 + gain.sum(-1, keepdim=True))


BIAS = torch.tensor([0.3, -0.3])


def test_error_and_bins_are_those_worked_out_by_hand():
    told = torch.tensor([[1.5, 0.0], [1.5, 0.0], [3.0, 0.3]])
    worth = torch.tensor([[3.0, -1.0], [1.0, 0.0], [3.0, 1.0]])
    found = item_calibration({"a": weights_of(told, BIAS)}, {"a": worth}, BIAS, {"a": ["one", "one", "two"]})
    bins = {edge: each for edge, each in found["bins"].items() if each["items"]}
    assert list(found["bins"]) == [f"{edge:g}" for edge in EDGES[1:]]
    small = 0.002 / 1.002  # less than 0.002 nats is a tie
    wanted = {
        "0.02": (0.0, small, 2),
        "0.3": (0.3 / 1.3, 0.5, 1),
        "0.7": (0.6, (0.75 + 0.5) / 2, 2),
        "1": (0.75, 0.75, 1),
    }
    assert {edge: each["items"] for edge, each in bins.items()} == {edge: n for edge, (_, _, n) in wanted.items()}
    for edge, (predicted, measured, _) in wanted.items():
        assert (bins[edge]["predicted"], bins[edge]["measured"]) == pytest.approx((predicted, measured), abs=1e-3)
    assert found["error"] == pytest.approx((2 * small + (0.5 - 0.3 / 1.3) + 2 * 0.025) / 6, abs=1e-3)
    assert math.isnan(found["within_template"])  # too few items of any template


def test_a_gate_that_sees_the_picture_is_told_from_one_that_knows_the_question():
    generator = torch.Generator().manual_seed(0)
    names = ["easy", "hard"] * 50
    level = torch.tensor([0.1, 1.0]).repeat(50)[:, None]
    worth = level * torch.rand(100, 2, generator=generator) * 2
    told = {"seeing": worth, "asking": level.expand(-1, 2)}
    found = {
        who: item_calibration({"a": weights_of(said, BIAS)}, {"a": worth}, BIAS, {"a": names})
        for who, said in told.items()
    }
    assert found["seeing"]["within_template"] == pytest.approx(1, abs=0.01)
    assert found["asking"]["within_template"] == 0
    assert 0.4 < found["asking"]["rank_correlation"] < 0.95 < found["seeing"]["rank_correlation"]
    assert found["seeing"]["error"] < 0.01


def test_the_part_of_the_picture_is_the_one_worked_out_by_hand():
    shares = {"a": torch.tensor([[0.1, 0.5], [0.3, 0.5], [0.6, 0.5], [0.8, 0.5]]), "b": torch.tensor([[0.1, 0.9]])}
    asked = {"a": ["what?", "what?", "where?", "where?"], "b": ["what?"]}
    # Within "what?" and "where?" of a: 4 x 0.1^2 over 5 items less 3 questions; the first expert alone varies there.
    whole = torch.cat(list(shares.values())).var(0).sum().item()
    assert picture_share(shares, asked) == pytest.approx(4 * 0.01 / 2 / whole)


def test_the_part_of_the_picture_is_all_none_or_unknown():
    generator = torch.Generator().manual_seed(0)
    names = [f"question {i % 4}" for i in range(400)]
    by_question = torch.rand(4, 2, generator=generator).repeat(100, 1)
    by_picture = torch.rand(400, 2, generator=generator)
    assert picture_share({"a": by_question}, {"a": names}) == pytest.approx(0, abs=1e-12)
    assert picture_share({"a": by_picture}, {"a": names}) == pytest.approx(1, abs=0.03)
    assert math.isnan(picture_share({"a": by_picture[:4]}, {"a": names[:4]}))
    assert math.isnan(picture_share({"a": torch.full((8, 2), 0.5)}, {"a": names[:8]}))
