"""Tiles of a large picture, and the map that is put together from theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from astrea.experts.packaged.text_lines import Line
from astrea.experts.packaged.text_tiles import OVERLAP, put_together, spans, tiled_factor


@given(st.integers(1, 5000), st.sampled_from([96, 320, 2048]))
def test_every_pixel_is_believed_once_and_far_from_where_a_tile_is_cut(length, side):
    found = spans(length, side)
    assert [pixel for span in found for pixel in range(span.first, span.last)] == list(range(length))
    for span in found:
        assert 0 <= span.start <= span.first < span.last <= span.stop <= length
        assert span.start == 0 or span.first - span.start >= OVERLAP // 2 - 1
        assert span.stop == length or span.stop - span.last >= OVERLAP // 2 - 1
    assert len(found) == 1 or (len(found) - 1) * (side - OVERLAP) < length - OVERLAP


def test_a_picture_is_made_smaller_until_its_tiles_are_few_enough():
    assert tiled_factor(1200, 1600, 320, 64) == 1
    assert len(spans(1200, 320)) * len(spans(1600, 320)) == 5 * 6
    factor = tiled_factor(1200, 1600, 320, 12)
    assert 320 / 1600 < factor < 1
    assert len(spans(round(1200 * factor), 320)) * len(spans(round(1600 * factor), 320)) <= 12


@pytest.mark.parametrize(("width", "height", "most"), [(320, 320, 64), (200, 10, 64), (1200, 1600, 0), (1200, 1600, 1)])
def test_what_one_look_shows_as_well_has_no_tiles(width, height, most):
    assert tiled_factor(width, height, 320, most) is None


def test_the_map_is_that_of_the_whole_picture():
    """Of a network that looks no further than tiles overlap."""

    def likely(pixels_3hw):
        assert max(pixels_3hw.shape[1:]) <= 128
        return F.avg_pool2d(pixels_3hw[None], 31, 1, 15, count_include_pad=False)[0].mean(0).numpy()

    pixels = torch.rand(3, 150, 401, generator=torch.Generator().manual_seed(0))
    whole = F.avg_pool2d(pixels[None], 31, 1, 15, count_include_pad=False)[0].mean(0).numpy()
    np.testing.assert_allclose(put_together(pixels, 128, likely), whole, atol=1e-6)


def test_a_line_holds_what_lies_in_its_rectangle_on_any_map():
    line = Line((10.0, 20.0), (0.6, 0.8), 5.0, 1.0, 0.9)
    assert line.holds((10 + 0.6 * 4.9, 20 + 0.8 * 4.9))
    assert not line.holds((10 + 0.6 * 5.1, 20 + 0.8 * 5.1))
    assert line.holds((10 - 0.8 * 0.9, 20 + 0.6 * 0.9))
    assert not line.holds((10 - 0.8 * 1.1, 20 + 0.6 * 1.1))
    np.testing.assert_allclose(line.enlarged(3).corners(), 3 * line.corners())
