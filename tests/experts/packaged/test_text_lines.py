"""Lines of text in a map of probabilities, and the pictures of their letters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from astrea.experts.packaged.text_lines import Line, connected, cut_out, find_lines, reading_order


def bar(degrees: float, *, length: float = 120, thick: float = 10, size: int = 200) -> np.ndarray:
    """A map with one bar through its middle."""
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    angle = math.radians(degrees)
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return ((abs(along) < length / 2) & (abs(across) < thick / 2)) * np.float32(0.9)


@pytest.mark.parametrize("degrees", [0, 7, -20, 40, -44])
def test_a_slanted_line_is_found_with_its_slope(degrees):
    (line,) = find_lines(bar(degrees))
    assert line.middle == pytest.approx((100, 100), abs=1)
    assert math.degrees(math.atan2(line.along[1], line.along[0])) == pytest.approx(degrees, abs=1)
    grown = 120 * 10 * 1.6 / 260
    assert line.half_length == pytest.approx(60 + grown, abs=2)
    assert line.half_height == pytest.approx(5 + grown, abs=2)
    assert line.score == pytest.approx(0.9)


def test_a_tall_line_is_read_downwards():
    (line,) = find_lines(bar(90))
    assert line.along == pytest.approx((0, 1), abs=1e-6)
    assert line.below == pytest.approx((-1, 0), abs=1e-6)
    assert line.half_length > line.half_height


def test_what_is_faint_tiny_or_nothing_is_no_line():
    assert find_lines(np.zeros((40, 60), np.float32)) == []
    assert find_lines(bar(0) * 0.4) == []
    assert find_lines(bar(0, length=4, thick=2)) == []


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_regions_are_what_touches(mask):
    runs = connected(mask)
    found = np.full(mask.shape, -1)
    for row, start, stop, region in zip(*runs, strict=True):
        assert mask[row, start:stop].all()
        found[row, start:stop] = region
    assert ((found >= 0) == mask).all()
    wanted = np.where(mask, np.arange(mask.size).reshape(mask.shape), mask.size)
    while True:  # the least number within reach, cell by cell
        wide = np.pad(wanted, 1, constant_values=mask.size)
        shape = mask.shape
        near = [wide[y : y + shape[0], x : x + shape[1]] for y in range(3) for x in range(3)]
        grown = np.where(mask, np.minimum.reduce(near), mask.size)
        if (grown == wanted).all():
            break
        wanted = grown
    pairs = set(zip(found[mask].tolist(), wanted[mask].tolist(), strict=True))
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


@given(arrays(np.float32, (24, 32), elements=st.floats(0, 1, width=32)))
def test_whatever_the_map_lines_are_finite(likely):
    for line in find_lines(likely):
        assert np.isfinite(line.corners()).all()
        assert math.hypot(*line.along) == pytest.approx(1)
        assert line.half_length > 0 < line.half_height


def test_lines_are_read_from_the_top_and_from_the_left():
    def at(x: float, y: float) -> Line:
        return Line((x, y), (1.0, 0.0), 30, 5, 1)

    order = [at(20, 10), at(90, 12), at(20, 30), at(90, 28), at(50, 60)]
    assert reading_order(list(reversed(order))) == order


def test_a_line_is_cut_out_upright():
    picture = torch.zeros(3, 100, 200)
    picture[0, 40:60, 20:100] = 1  # red begins, green ends
    picture[1, 40:60, 100:180] = 1
    line = Line((50, 25), (1.0, 0.0), 40, 5, 1)
    found = cut_out(picture, line, 2, 20, 1000)
    assert found.shape == (3, 20, 160)
    assert found[0, :, :79].min() > 0.9
    assert found[1, :, 81:].min() > 0.9
    turned = cut_out(picture.rot90(-1, (1, 2)), Line((25, 50), (0.0, 1.0), 40, 5, 1), 2, 20, 1000)
    torch.testing.assert_close(turned, found, atol=1e-3, rtol=0)
    assert cut_out(picture, line, 2, 20, 100).shape == (3, 20, 100)


def test_a_large_line_is_made_smaller_before_it_is_sampled():
    stripes = (torch.arange(400) % 2).float().expand(3, 400, 400)
    small = cut_out(stripes, Line((200, 200), (1.0, 0.0), 200, 200, 1), 1, 20, 1000)
    assert (small - 0.5).abs().max() < 0.1
