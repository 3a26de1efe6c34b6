"""A picture as experts are given it: fitted into the square, and as it is for those that read it so.

Letters: S side of the square, H W height and width of the picture as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from astrea.data.images import load_image, to_bounded_array, to_square_array


@dataclass(frozen=True, slots=True)
class FittedPicture:
    """square: (3, S, S) bytes. original: (3, H, W) bytes, or None where it was not asked for. size: width and height
    of the picture, before anything was done to it."""

    square: np.ndarray
    original: np.ndarray | None
    size: tuple[int, int]


def fit_picture(image: Image.Image, side: int, *, original: bool) -> FittedPicture:
    """A picture in both forms.

    Args:
        side: S. original: whether any expert reads pictures as they are; those have no more than
            `astrea.data.images.ORIGINAL_PIXELS` pixels.

    Raises:
        AstreaError: the image cannot be read.
    """
    if image.mode != "RGB" or 0 in image.size:
        image = load_image(image)
    square = channels_first(to_square_array(image, side))
    return FittedPicture(square, channels_first(to_bounded_array(image)) if original else None, image.size)


def channels_first(pixels_HW3: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> (3, H, W), in a memory of its own."""
    return pixels_HW3.transpose(2, 0, 1).copy()
