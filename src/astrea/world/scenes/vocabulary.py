"""What the embedded world is made of: kinds of pictogram, colours, sizes, conditions, words and facts.

Every list is in a fixed order; indices into them are what scenes store and what the experts predict.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of pictogram: its name, plural, category, glyph (DejaVu Sans code point) and one fact."""

    name: str
    plural: str
    category: str
    glyph: str
    fact: str


KINDS: tuple[Kind, ...] = (
    Kind("mouse", "mice", "animal", "\U0001f42d", "eats cheese"),
    Kind("cow", "cows", "animal", "\U0001f42e", "gives milk"),
    Kind("cat", "cats", "animal", "\U0001f431", "purrs"),
    Kind("monkey", "monkeys", "animal", "\U0001f435", "climbs trees"),
    Kind("sun", "suns", "weather", "\u2600", "shines by day"),
    Kind("cloud", "clouds", "weather", "\u2601", "brings rain"),
    Kind("umbrella", "umbrellas", "weather", "\u2602", "keeps you dry"),
    Kind("snowman", "snowmen", "weather", "\u2603", "melts in spring"),
    Kind("snowflake", "snowflakes", "weather", "\u2744", "falls in winter"),
    Kind("queen", "queens", "chess", "\u265b", "stands beside the king"),
    Kind("rook", "rooks", "chess", "\u265c", "guards the corner"),
    Kind("knight", "knights", "chess", "\u265e", "jumps over others"),
    Kind("pawn", "pawns", "chess", "\u265f", "is the weakest piece"),
    Kind("spade", "spades", "card", "\u2660", "is the highest suit"),
    Kind("heart", "hearts", "card", "\u2665", "stands for love"),
    Kind("diamond", "diamonds", "card", "\u2666", "is a jewel"),
    Kind("club", "clubs", "card", "\u2663", "looks like clover"),
    Kind("hammer", "hammers", "tool", "\u2692", "drives nails"),
    Kind("anchor", "anchors", "tool", "\u2693", "holds a ship"),
    Kind("gear", "gears", "tool", "\u2699", "turns machines"),
    Kind("pencil", "pencils", "tool", "\u270f", "writes"),
    Kind("scale", "scales", "tool", "\u2696", "weighs goods"),
    Kind("skull", "skulls", "sign", "\u2620", "stands for death"),
    Kind("atom", "atoms", "sign", "\u269b", "stands for science"),
    Kind("yinyang", "yinyangs", "sign", "\u262f", "stands for balance"),
    Kind("hazard", "hazards", "sign", "\u2622", "tells of rays"),
    Kind("warning", "warnings", "sign", "\u26a0", "asks for care"),
    Kind("telephone", "telephones", "thing", "\u260e", "rings"),
    Kind("airplane", "airplanes", "thing", "\u2708", "flies"),
    Kind("envelope", "envelopes", "thing", "\u2709", "carries letters"),
    Kind("flag", "flags", "thing", "\u2691", "waves in wind"),
    Kind("cup", "cups", "thing", "\u2615", "holds coffee"),
)

CATEGORIES: tuple[str, ...] = ("animal", "weather", "chess", "card", "tool", "sign", "thing")
"""Category names. In questions: "animals", "weather symbols", "chess pieces", "cards", "tools", "signs", "things"."""

CATEGORY_OF: tuple[int, ...] = tuple(CATEGORIES.index(kind.category) for kind in KINDS)

COLOURS: tuple[str, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
COLOUR_RGB: tuple[tuple[int, int, int], ...] = (
    (225, 40, 40),
    (245, 140, 20),
    (245, 225, 50),
    (50, 180, 70),
    (50, 105, 235),
    (145, 60, 200),
    (250, 140, 195),
    (245, 245, 245),
)

SIZES: tuple[str, ...] = ("small", "medium", "large")
SIZE_SHARE: tuple[float, ...] = (0.22, 0.30, 0.40)
"""Longest side of a pictogram as a share of the canvas, per size."""

CONDITIONS: tuple[str, ...] = ("clean", "night", "blur", "noise", "clutter")

WORDS: tuple[str, ...] = (
    "open", "stop", "exit", "taxi", "cafe", "sale", "fish", "park",
    "bank", "post", "news", "milk", "shop", "gate", "love", "jazz",
    "home", "work", "east", "west", "gold", "iron", "rice", "soup",
    "yoga", "quiz", "zoom", "kiwi", "lamp", "ring", "bus", "hot",
)  # fmt: skip

NOVEL_EVERY = 8


def is_novel(kind: int, colour: int) -> bool:
    """Whether this kind x colour pair is held out of training (one colour per kind, spread over all colours)."""
    return (kind * 3 + colour) % NOVEL_EVERY == 0
