"""Where a picture lies in its square."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from astrea.common.letterbox import inner_box
from astrea.data.images import to_square_array


@given(width=st.integers(1, 60), height=st.integers(1, 60), side=st.integers(8, 64))
def test_the_box_is_what_the_square_shows_of_the_picture(width, height, side):
    # Half red, half blue: the mean of its rim is neither, so the filling is told from it.
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2, 0], picture[:, width // 2 :, 2] = 255, 255
    square = to_square_array(Image.fromarray(picture), side)
    x0, y0, x1, y1 = (round(share * side) for share in inner_box(width, height, side))
    assert 0 <= x0 < x1 <= side
    assert 0 <= y0 < y1 <= side
    outside = np.ones((side, side), bool)
    outside[y0:y1, x0:x1] = False
    assert len(np.unique(square[outside], axis=0)) <= 1
    assert max(x1 - x0, y1 - y0) == side
    assert abs((x1 - x0) * height - (y1 - y0) * width) <= max(width, height)


def test_a_wide_picture_lies_in_the_middle():
    assert inner_box(400, 100, 64) == pytest.approx((0, 0.375, 1, 0.625))
    assert inner_box(64, 64, 32) == (0, 0, 1, 1)
