"""Pictures of people who mean no good, read as `ask` and training read them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from fuzz.harness import Case
from fuzz.hostile_pictures import hostile_picture


def cases(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """As many pictures of all families, as large as an attacker would have them."""
    place = folder / "pictures"
    place.mkdir()
    for number in range(-1, count):
        family, data = hostile_picture(seed * count + max(number, 0))
        path = place / f"picture{number}"
        path.write_bytes(data)
        if number < 0:
            read_small(place)  # warm
            continue
        yield Case(f"picture {number}: {family}, {len(data):,} bytes", partial(read, path), place)
        path.unlink()


def read(path: Path) -> object:
    """As the square that experts are given."""
    from astrea.model.image_processing import AstreaImageProcessor

    return AstreaImageProcessor(64)(path)


def read_small(place: Path) -> None:
    """What every case needs is imported, and every format known, before the first is forked."""
    from PIL import Image

    small = place / "small.png"
    Image.new("RGB", (8, 8)).save(small)
    Image.init()
    read(small)
