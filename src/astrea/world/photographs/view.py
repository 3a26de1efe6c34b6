"""The truth about a composition in the form that questions need: names, colours, places, sizes, what is clear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from astrea.world.photographs.cutouts import Catalogue
from astrea.world.photographs.plan import apart
from astrea.world.photographs.scene import PhotoScene

CLEAR = 0.12
"""Share of the canvas by which two middles are apart, or one is from the canvas' middle, where a side is clear."""

SURE = 0.06
"""The same for a thing's quarter of the picture."""

LARGER = 1.5
"""A thing is clearly larger if it covers so many times as much."""

SMALL, LARGE = 0.04, 0.12
"""Shares of the picture below which a thing is small, and above which it is large."""

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


class PhotoView:
    """What is true of a scene. Things are numbers; places are shares of the canvas."""

    def __init__(self, scene: PhotoScene, catalogue: Catalogue, asked: tuple[str, ...]) -> None:
        canvas = scene.spec.canvas
        self.catalogue = catalogue
        self.asked = asked
        self.names = [thing.name for thing in scene.things]
        self.categories = [thing.category for thing in scene.things]
        self.colours = [thing.colour for thing in scene.things]
        self.painted = [thing.painted for thing in scene.things]
        self.area = [thing.area / canvas**2 for thing in scene.things]
        self.x = [thing.centroid[0] / canvas for thing in scene.things]
        self.y = [thing.centroid[1] / canvas for thing in scene.things]
        self.name_counts = Counter(self.names)
        self.category_counts = Counter(self.categories)
        self.word = scene.word

    def __len__(self) -> int:
        return len(self.names)

    @property
    def single(self) -> list[int]:
        """Things whose name is said of no other."""
        return [i for i, name in enumerate(self.names) if self.name_counts[name] == 1]

    def absent(self, apart_too: bool = False) -> list[str]:
        """Names that can be asked about and are true of nothing here.

        Args:
            apart_too: also such as are never shown together with what is here.
        """
        clash = self.catalogue.names.clash
        return [
            name
            for name in self.asked
            if name not in self.name_counts
            and not any(clash(name, other) or (not apart_too and apart(name, other)) for other in self.name_counts)
        ]

    def quarter(self, index: int) -> str | None:
        """``top left`` and so on, where it is clear."""
        if abs(self.x[index] - 0.5) < SURE or abs(self.y[index] - 0.5) < SURE:
            return None
        return self._nearest(index)

    def _nearest(self, index: int) -> str:
        return f"{'top' if self.y[index] < 0.5 else 'bottom'} {'left' if self.x[index] < 0.5 else 'right'}"

    def alone(self) -> list[tuple[int, str]]:
        """(thing, quarter) of every thing that is clearly in a quarter, and the only one there."""
        quarters = Counter(self._nearest(i) for i in range(len(self)))
        found = ((i, self.quarter(i)) for i in range(len(self)))
        return [(i, quarter) for i, quarter in found if quarter is not None and quarters[quarter] == 1]

    def side(self, a: int, b: int) -> list[str]:
        """Where ``a`` clearly lies of ``b``; none, one or two of `OPPOSITE`."""
        far_x, far_y = self.x[a] - self.x[b], self.y[a] - self.y[b]
        across = [] if abs(far_x) < CLEAR else ["left of" if far_x < 0 else "right of"]
        return across + ([] if abs(far_y) < CLEAR else ["above" if far_y < 0 else "below"])

    def main_side(self, a: int, b: int) -> str | None:
        """The side along the axis on which they are further apart; None where it is not clear."""
        across = abs(self.x[a] - self.x[b]) >= abs(self.y[a] - self.y[b])
        wanted = ("left of", "right of") if across else ("above", "below")
        return next((side for side in self.side(a, b) if side in wanted), None)

    def beside(self, index: int, side: str) -> int | None:
        """The only thing on a side of another one, where all others are clearly on the other side."""
        on = [i for i in range(len(self)) if i != index and side in self.side(i, index)]
        off = [i for i in range(len(self)) if i != index and OPPOSITE[side] in self.side(i, index)]
        return on[0] if len(on) == 1 and len(on) + len(off) == len(self) - 1 else None

    def extreme(self, value: Callable[[int], float], things: list[int]) -> int | None:
        """The thing with clearly the most of a value above 0."""
        order = sorted(things, key=value, reverse=True)
        return order[0] if len(order) > 1 and value(order[0]) >= LARGER * value(order[1]) else None

    def size(self, index: int) -> str | None:
        """``small`` or ``large``, where it is clear."""
        if self.area[index] < SMALL:
            return "small"
        return "large" if self.area[index] > LARGE else None
