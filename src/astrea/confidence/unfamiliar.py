"""Pictures that belong to no collection: made of what any model is likely not to have been trained on.

They stand for the unfamiliar when it is measured how sure to be; no photograph and no page of one colour of the test is
among them.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

Generator = np.random.Generator


def unfamiliar_pictures(count: int, size: int, seed: int) -> np.ndarray:
    """(count, size, size, 3) uint8: pages of one colour, noise, slopes, stripes, loose shapes."""
    generator = np.random.default_rng([seed, 7177])
    makers = (page, rough, slope, stripes, shapes, rough)
    return np.stack([makers[number % len(makers)](size, generator) for number in range(count)])


def colour(generator: Generator) -> np.ndarray:
    """Any colour."""
    return generator.integers(0, 256, 3)


def page(size: int, generator: Generator) -> np.ndarray:
    """One colour, perhaps with a little noise."""
    noise = generator.normal(0, generator.choice([0, 0, 4]), (size, size, 3))
    return (colour(generator) + noise).clip(0, 255).astype(np.uint8)


def rough(size: int, generator: Generator) -> np.ndarray:
    """Noise whose strength falls with its frequency, as that of photographs does; alike or not in its colours."""
    row = np.fft.fftfreq(size)
    frequency = np.sqrt(row[:, None] ** 2 + row[None] ** 2)
    frequency[0, 0] = 1
    fall = frequency ** -generator.uniform(0, 1.6)
    channels = [np.fft.ifft2(np.fft.fft2(generator.normal(size=(size, size))) * fall).real for _ in range(3)]
    together = generator.uniform(0, 1)
    mixed = np.stack([together * channels[0] + (1 - together) * channel for channel in channels], -1)
    mixed = (mixed - mixed.mean()) / (mixed.std() + 1e-9)
    found: np.ndarray = (generator.uniform(60, 190) + generator.uniform(20, 80) * mixed).clip(0, 255).astype(np.uint8)
    return found


def slope(size: int, generator: Generator) -> np.ndarray:
    """From one colour to another, in any direction."""
    across, down = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    angle = generator.uniform(0, 2 * np.pi)
    along = across * np.cos(angle) + down * np.sin(angle)
    along = (along - along.min()) / np.ptp(along)
    start, end = colour(generator), colour(generator)
    found: np.ndarray = (start + along[..., None] * (end - start)).astype(np.uint8)
    return found


def stripes(size: int, generator: Generator) -> np.ndarray:
    """Stripes, or a chequered pattern, in two colours."""
    width = int(generator.integers(2, max(3, size // 4)))
    across, down = np.meshgrid(np.arange(size) // width, np.arange(size) // width)
    odd = (across + down * generator.integers(0, 2)) % 2
    return np.where(odd[..., None] == 1, colour(generator), colour(generator)).astype(np.uint8)


def shapes(size: int, generator: Generator) -> np.ndarray:
    """Ovals, boxes and lines of any size and colour."""
    picture = Image.new("RGB", (size, size), tuple(colour(generator).tolist()))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(generator.integers(1, 9))):
        x, y = sorted(generator.integers(0, size, 2).tolist()), sorted(generator.integers(0, size, 2).tolist())
        paint = tuple(colour(generator).tolist())
        kind = generator.integers(0, 3)
        if kind == 2:
            draw.line((x[0], y[0], x[1], y[1]), fill=paint, width=int(generator.integers(1, 5)))
        else:
            (draw.ellipse if kind else draw.rectangle)((x[0], y[0], x[1], y[1]), fill=paint)
    return np.asarray(picture)
