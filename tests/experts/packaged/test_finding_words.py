"""Places and sizes as words, overlapping boxes, features in boxes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from astrea.experts.packaged.findings import overlaps, pooled_in_boxes, side_words, size_words, suppress

shares = st.floats(0, 1, width=32)


@given(x=shares, y=shares)
def test_of_two_opposite_words_the_nearer_side_weighs_more(x, y):
    top, bottom, left, right = side_words(torch.tensor([[[x, y]]]))[0, 0].tolist()
    assert top + bottom == pytest.approx(1)
    assert left + right == pytest.approx(1)
    assert (top > bottom) == (y < 0.5) or abs(y - 0.5) < 1e-6
    assert (left > right) == (x < 0.5) or abs(x - 0.5) < 1e-6


def test_a_place_in_the_corner_is_all_of_its_words():
    words = side_words(torch.tensor([[[0.1, 0.9]]]))
    torch.testing.assert_close(words, torch.tensor([[[0.0, 1, 1, 0]]]), atol=1e-3, rtol=0)


def test_a_box_grows_from_small_to_large():
    small, large = size_words(torch.tensor([[[0.05, 0.05], [0.3, 0.3], [0.9, 0.1], [0.9, 0.9]]])).unbind(-1)
    torch.testing.assert_close(small + large, torch.ones(1, 4))
    assert large[0, 0] < large[0, 1] < large[0, 3]
    assert large[0, 0] < 0.1
    assert large[0, 1] == pytest.approx(0.5)
    assert large[0, 2] == pytest.approx(0.5)  # a strip of the same area
    assert large[0, 3] > 0.9


def test_overlap_is_intersection_over_union():
    boxes = torch.tensor([[[0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5], [0.5, 0.5, 1, 1], [0.2, 0.2, 0.2, 0.2]]])
    wanted = torch.tensor([[1, 1 / 3, 0, 0], [1 / 3, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(overlaps(boxes)[0], wanted)


def test_a_box_that_covers_a_better_one_is_dropped_and_one_that_covers_a_dropped_one_is_not():
    boxes = torch.tensor([[[0, 0, 0.6, 1], [0.15, 0, 0.75, 1], [0.3, 0, 0.9, 1], [0, 0, 0.6, 1]]])
    kept = suppress(boxes, torch.tensor([[0.9, 0.8, 0.7, 0.0]]), 0.5)
    torch.testing.assert_close(kept, torch.tensor([[0.9, 0, 0.7, 0]]))


def test_features_are_read_inside_their_box():
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, :2, 2:] = 1.0
    boxes = torch.tensor([[[0.6, 0.1, 0.9, 0.3], [0.1, 0.6, 0.4, 0.9], [0, 0, 1, 1]]])
    found = pooled_in_boxes(maps, boxes)[0, :, 0]
    assert found[0] == pytest.approx(1)
    assert found[1] == pytest.approx(0)
    assert 0.1 < found[2] < 0.4
