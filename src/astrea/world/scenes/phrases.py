"""Shared ground of questions and captions: how things are named, and what is clearly true in a scene.

Coordinates are judged in *steps* of 1/64 of the canvas, so every margin scales with the picture.
"""

from __future__ import annotations

from collections import Counter

from astrea.world.scenes.scene import Scene
from astrea.world.scenes.vocabulary import CATEGORIES, CATEGORY_OF, COLOURS, KINDS, is_novel

RELATIONS: tuple[str, ...] = ("left", "right", "above", "below")
RELATION_PHRASES: dict[str, str] = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
OPPOSITE: dict[str, str] = {"left": "right", "right": "left", "above": "below", "below": "above"}

# The category "thing" is called "gadget": "thing" itself means any object in questions.
CATEGORY_NOUNS: dict[str, tuple[str, str]] = {
    "animal": ("animal", "animals"),
    "weather": ("weather symbol", "weather symbols"),
    "chess": ("chess piece", "chess pieces"),
    "card": ("card", "cards"),
    "tool": ("tool", "tools"),
    "sign": ("sign", "signs"),
    "thing": ("gadget", "gadgets"),
}
NOUN: tuple[str, ...] = tuple(CATEGORY_NOUNS[name][0] for name in CATEGORIES)
NOUNS: tuple[str, ...] = tuple(CATEGORY_NOUNS[name][1] for name in CATEGORIES)

CLEAR_STEPS = 8.0
"""Centroids at least this far apart along an axis are clearly left/right or above/below of one another."""
DOMINANT = 1.5
"""One axis dominates when its distance is this many times the other's."""

NOVEL_PHRASES: frozenset[str] = frozenset(
    f"{colour} {kind.name}" for k, kind in enumerate(KINDS) for c, colour in enumerate(COLOURS) if is_novel(k, c)
)


def with_article(noun: str) -> str:
    """``sun`` -> ``a sun``, ``orange sun`` -> ``an orange sun``."""
    return ("an " if noun[:1] in "aeiou" else "a ") + noun


class SceneView:
    """The truth of a scene in the form that wording needs: indices, counts, positions in steps, unique names."""

    __slots__ = (
        "area", "categories", "category_counts", "colour_counts", "colours", "kind_counts", "kinds", "novel",
        "pair_counts", "pairs", "size", "word", "x", "y",
    )  # fmt: skip

    def __init__(self, scene: Scene) -> None:
        step = scene.spec.canvas / 64.0
        objects = scene.objects
        self.kinds = [o.kind for o in objects]
        self.colours = [o.colour for o in objects]
        self.pairs = [(o.colour, o.kind) for o in objects]
        self.categories = [CATEGORY_OF[o.kind] for o in objects]
        self.size = [o.size for o in objects]
        self.area = [o.area for o in objects]
        self.x = [o.centroid[0] / step for o in objects]
        self.y = [o.centroid[1] / step for o in objects]
        self.kind_counts = Counter(self.kinds)
        self.colour_counts = Counter(self.colours)
        self.pair_counts = Counter(self.pairs)
        self.category_counts = Counter(self.categories)
        self.word = scene.word
        # Training scenes never hold a novel pair, so a question naming one there would always be answered "no".
        self.novel = any(is_novel(kind, colour) for colour, kind in self.pairs)

    def __len__(self) -> int:
        return len(self.kinds)

    def full_name(self, index: int) -> str:
        """``red sun``, whether or not it is the only one."""
        return f"{COLOURS[self.colours[index]]} {KINDS[self.kinds[index]].name}"

    def name(self, index: int) -> str | None:
        """The shortest unique name: ``sun``, else ``red sun``, else None."""
        if self.kind_counts[self.kinds[index]] == 1:
            return KINDS[self.kinds[index]].name
        return self.full_name(index) if self.pair_counts[self.pairs[index]] == 1 else None

    def named(self) -> list[tuple[int, str]]:
        """(index, unique name) of every object that has one."""
        names = ((i, self.name(i)) for i in range(len(self)))
        return [(i, name) for i, name in names if name is not None]

    def holds(self, relation: str, a: int, b: int) -> bool:
        """Whether object ``a`` is left/right/above/below of object ``b``."""
        return self.distance(relation, a, b) > 0

    def distance(self, relation: str, a: int, b: int) -> float:
        """How far ``a`` lies to that side of ``b``, in steps; negative on the other side."""
        if relation == "left":
            return self.x[b] - self.x[a]
        if relation == "right":
            return self.x[a] - self.x[b]
        return self.y[b] - self.y[a] if relation == "above" else self.y[a] - self.y[b]

    def dominant(self, a: int, b: int) -> str:
        """The side of ``b`` on which ``a`` lies, along the axis with the larger distance."""
        dx, dy = self.x[a] - self.x[b], self.y[a] - self.y[b]
        if abs(dx) >= abs(dy):
            return "left" if dx < 0 else "right"
        return "above" if dy < 0 else "below"

    def where(self, a: int, b: int) -> str | None:
        """`dominant`, or None where the distance is small or neither axis dominates."""
        dx, dy = abs(self.x[a] - self.x[b]), abs(self.y[a] - self.y[b])
        far, near = max(dx, dy), min(dx, dy)
        return self.dominant(a, b) if far >= CLEAR_STEPS and far >= DOMINANT * near else None

    def clear_relations(self) -> list[tuple[int, str, int]]:
        """Every (a, relation, b) of two objects with unique colour + kind, apart by `CLEAR_STEPS` on its axis.

        Each fact appears once, along the dominant axis of its pair, with a before b in the scene's order.
        """
        unique = [i for i, pair in enumerate(self.pairs) if self.pair_counts[pair] == 1]
        found = []
        for at, a in enumerate(unique):
            for b in unique[at + 1 :]:
                if max(abs(self.x[a] - self.x[b]), abs(self.y[a] - self.y[b])) >= CLEAR_STEPS:
                    found.append((a, self.dominant(a, b), b))
        return found
