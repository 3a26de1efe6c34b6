"""A task of one's own: the colour of a picture that is all of one colour.

    PYTHONPATH=docs/examples astrea train tiny 'evaluation.tasks=["colour_task:PlainColours"]'

An installed package registers it under a name of its own, and recipes write ``evaluation.tasks=[plain-colours]``:

    [project.entry-points."astrea.tasks"]
    plain-colours = "colour_task:PlainColours"
"""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

from astrea.evaluation.task import Task, TaskItem

COLOURS = {"red": (220, 30, 30), "green": (40, 160, 60), "blue": (40, 70, 210), "yellow": (240, 210, 40)}


class PlainColours(Task):
    """Pictures of one colour each, ``per_colour`` shades of it."""

    name = "plain_colours"
    metric = "contains"

    def __init__(self, per_colour: int = 4) -> None:
        self.per_colour = per_colour

    def items(self) -> Iterator[TaskItem]:
        for colour, rgb in COLOURS.items():
            for shade in range(self.per_colour):
                darker = tuple(value * (10 - shade) // 10 for value in rgb)
                yield TaskItem(Image.new("RGB", (64, 64), darker), (colour,), "what color is the background?")

    def score(self, answer: str, item: TaskItem) -> float:
        return float(item.truths[0] in answer.split())
