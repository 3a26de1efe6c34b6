"""The picture that comes with the package: one scene of the embedded world, for a first question."""

from __future__ import annotations

from pathlib import Path

EXAMPLE_NAME = "example"
"""Stands for this picture wherever `astrea ask` takes one, unless there is a file of that name."""

SPLIT, INDEX, SEED = "test", 4753, 0
"""The scene that it shows, for `astrea.world.scenes.draw.split_scene`; no model was trained on it."""

EXAMPLE_ANSWERS = {
    "what colour is the cat?": "green",
    "how many cows are there?": "2",
    "what word is printed?": "news",
    "what colour is the scale?": "blue",
}
"""Questions about it with their true answers."""


def example_picture() -> Path:
    """Where the picture lies: a PNG of 64 x 64 pixels."""
    return Path(__file__).with_name("example.png")
