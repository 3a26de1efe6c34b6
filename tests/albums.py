"""Folders of pictures to index, and what the tests do to them."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from PIL import Image

from astrea import AstreaForConditionalGeneration
from astrea.retrieval.store import read_segment
from astrea.world.scenes.draw import split_scene

COUNT = 6
TEXT = "a red sun and a blue cow."
NAMES = ["a.png", "b.png", "below/c.png", "below/d.PNG", "é.png", "f.webp"]


class Killed(BaseException):
    """Like a kill: nothing of ours catches it."""


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(split_scene("test", number, 0).image).save(path, lossless=True)
    # A time that is long past, so that size and time alone tell whether the file has changed.
    os.utime(path, ns=(10**18, 10**18 + number))


def other_model(model: AstreaForConditionalGeneration) -> AstreaForConditionalGeneration:
    other = AstreaForConditionalGeneration(model.config).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        next(other.alignment.picture_head.parameters()).add_(0.1)
    return other


def paths_of(place: Path) -> list[str]:
    return [entry.path for entry in read_segment(place).manifest.entries]


def entry(path: str) -> dict:
    return {"path": path, "size": 1, "mtime_ns": 1, "sha256": "0" * 64}
