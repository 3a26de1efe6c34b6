"""Both forms of a picture, and how large the one that is as it is may be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from astrea.common.errors import AstreaError
from astrea.data.fitted import fit_picture
from astrea.data.images import bounded_size, to_bounded_array, to_square_array
from noise_images import noise


def test_it_is_fitted_into_the_square_and_given_as_it_is():
    picture = noise(50, 20)
    found = fit_picture(picture, 32, original=True)
    assert np.array_equal(found.square.transpose(1, 2, 0), to_square_array(picture, 32))
    assert np.array_equal(found.original.transpose(1, 2, 0), picture)
    assert found.size == (50, 20)
    assert found.square.flags["C_CONTIGUOUS"]
    assert found.original.flags["C_CONTIGUOUS"]
    assert fit_picture(picture, 32, original=False).original is None


def test_pictures_of_other_modes_are_read_first():
    found = fit_picture(Image.new("RGBA", (6, 3), (0, 0, 0, 0)), 8, original=True)
    assert found.original.shape == (3, 3, 6)
    assert found.original.min() == 255
    with pytest.raises(AstreaError):
        fit_picture(Image.new("RGB", (0, 3)), 8, original=True)


@settings(max_examples=60)
@given(width=st.integers(1, 200), height=st.integers(1, 200), most=st.integers(1, 20_000))
def test_the_size_of_a_bounded_picture_is_known_before_it_is_made(width, height, most):
    across, down = bounded_size(width, height, most)
    assert to_bounded_array(Image.new("RGB", (width, height)), most).shape == (down, across, 3)
    assert 1 <= across * down <= most
