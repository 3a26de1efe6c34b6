"""Coordinates as mixtures of words, and the small value types."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from astrea.experts.protocol import ExpertFeatures, Reading, bin_labels, from_bins, soft_bins


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(2, 40))
def test_bins_lose_nothing(values, bins):
    value = torch.tensor(values, dtype=torch.float64)
    code = soft_bins(value, bins)
    assert code.shape == (len(values), bins)
    assert torch.allclose(from_bins(code), value, atol=1e-12)
    assert torch.allclose(code.sum(-1), torch.ones(len(values), dtype=torch.float64))
    assert code.ge(0).all()
    # At most two words, and neighbours.
    assert ((code > 0).sum(-1) <= 2).all()
    for row in code:
        hot = row.nonzero().flatten()
        assert int(hot.max() - hot.min()) <= 1


@given(st.integers(2, 40), st.data())
def test_a_bins_centre_is_that_bin_alone(bins, data):
    index = data.draw(st.integers(0, bins - 1))
    code = soft_bins(torch.tensor(index / (bins - 1), dtype=torch.float64), bins)
    assert int(code.argmax()) == index
    assert code.max().item() == pytest.approx(1, abs=1e-9)


def test_values_outside_are_at_the_edge():
    code = soft_bins(torch.tensor([[-3.0, 7.0]]), 4)
    assert code.tolist() == [[[1, 0, 0, 0], [0, 0, 0, 1]]]


def test_the_float32_inverse_is_well_under_a_pixel():
    value = torch.linspace(0, 1, 1001)
    assert (from_bins(soft_bins(value, 16)) - value).abs().max() < 1e-5


def test_bins_have_names():
    assert bin_labels("x", 3) == ("x0", "x1", "x2")


def test_rows_of_features():
    found = ExpertFeatures(torch.arange(12.0).view(3, 2, 2), torch.arange(6.0).view(3, 2))
    some = found.rows(torch.tensor([2, 0]))
    assert torch.equal(some.tokens, found.tokens[[2, 0]])
    assert torch.equal(some.confidence, found.confidence[[2, 0]])
    assert len(found.rows(slice(1, 2)).tokens) == 1
    assert some.places is None
    placed = ExpertFeatures(found.tokens, found.confidence, torch.rand(3, 2, 2))
    assert torch.equal(placed.rows(torch.tensor([2, 0])).places, placed.places[[2, 0]])


def test_batches_one_after_another():
    parts = [ExpertFeatures(torch.rand(n, 2, 3), torch.rand(n, 2), torch.rand(n, 2, 2)) for n in (1, 3)]
    whole = ExpertFeatures.cat(parts)
    for row, part in ((slice(0, 1), parts[0]), (slice(1, 4), parts[1])):
        assert torch.equal(whole.rows(row).tokens, part.tokens)
        assert torch.equal(whole.rows(row).confidence, part.confidence)
        assert torch.equal(whole.rows(row).places, part.places)
    assert ExpertFeatures.cat([ExpertFeatures(p.tokens, p.confidence) for p in parts]).places is None


def test_a_reading_as_json():
    mask = torch.zeros(2, 2, dtype=torch.long)
    reading = Reading("detection", [(0.12345, 0, 1, 1)], ["cat"], [0.98765], mask=mask, caption="a cat")
    assert json.loads(json.dumps(reading.as_dict())) == {
        "boxes": [[0.123, 0, 1, 1]],
        "labels": ["cat"],
        "scores": [0.988],
        "caption": "a cat",
    }
