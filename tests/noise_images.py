"""Pictures of noise, and any picture as the bytes of a file."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def noise(width: int = 24, height: int = 16, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encode(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()
