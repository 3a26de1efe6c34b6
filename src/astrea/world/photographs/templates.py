"""Questions about compositions: for each template its wordings, and a maker of (answer, arguments) true of a scene.

Text alone must not tell the answer. So things are asked about by place, or by a name whose colour, size and place are
as good as random; colours by name only where the thing has been given one; whatever is left the balancer evens out.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from astrea.world.photographs.colours import PAINTS
from astrea.world.photographs.cutouts import Catalogue
from astrea.world.photographs.signs import WORDS
from astrea.world.photographs.view import OPPOSITE, PhotoView
from astrea.world.scenes.questions import Templates

Option = tuple[str, tuple[str, ...]]
"""(answer, arguments of the wording)"""
Maker = Callable[[PhotoView, random.Random], list[Option]]
Item = TypeVar("Item")

WORDINGS: dict[str, tuple[str, ...]] = {
    # {0}, {1} are the arguments; {a0}, {a1} the same with "a" or "an".
    "existence.thing": ("is there {a0}?", "do you see {a0}?", "does the picture show {a0}?", "can you see {a0} here?"),
    "existence.coloured": ("is there {a0}?", "do you see {a0}?", "does the picture show {a0}?", "can you see {a0}?"),
    "counting.all": ("how many things are there?", "how many things do you see?", "count the things."),
    "counting.thing": ("how many {0} are there?", "how many {0} do you see?", "count the {0}."),
    "counting.category": ("how many {0} are there?", "how many {0} do you see?", "count the {0}."),
    "attribute.colour": (
        "what colour is the thing at the {0}?",
        "which colour does the thing at the {0} have?",
        "what color is the thing at the {0}?",
    ),
    "attribute.painted": ("what colour is the {0}?", "which colour does the {0} have?", "what color is the {0}?"),
    "attribute.size": (
        "is the {0} small or large?",
        "is the {0} large or small?",
        "how large is the {0}, small or large?",
    ),
    "attribute.name": ("what is in the picture?", "what do you see?", "what does the picture show?"),
    "spatial.where": ("where is the {0}?", "where do you see the {0}?", "in which corner is the {0}?"),
    "spatial.name": ("what is at the {0}?", "what do you see at the {0}?", "which thing is at the {0}?"),
    "spatial.side": ("is the {0} {1} the {2}?", "does the {0} lie {1} the {2}?", "do you see the {0} {1} the {2}?"),
    "spatial.beside": ("what is {0} the {1}?", "which thing is {0} the {1}?", "what do you see {0} the {1}?"),
    "logic.both": ("is there {a0} and {a1}?", "do you see both {a0} and {a1}?", "are there both {a0} and {a1}?"),
    "logic.either": ("is there {a0} or {a1}?", "do you see {a0} or {a1}?", "does the picture show {a0} or {a1}?"),
    "logic.more": ("are there more {0} than {1}?", "do you see more {0} than {1}?", "does it show more {0} than {1}?"),
    "logic.same": (
        "are the {0} and the {1} the same colour?",
        "do the {0} and the {1} have the same colour?",
        "is the colour of the {0} that of the {1}?",
    ),
    "reading.word": ("what does the sign say?", "what word is on the sign?", "which word do you read?"),
    "reading.sign": ("is there a sign?", "do you see a sign?", "does the picture show a sign?"),
    "reading.says": ("does the sign say {0}?", "is the word on the sign {0}?", "can you read {0} on the sign?"),
    "knowledge.category": ("is there {a0}?", "do you see {a0}?", "does the picture show {a0}?"),
    "knowledge.kind": (
        "what kind of thing is at the {0}?",
        "what sort of thing is at the {0}?",
        "which kind of thing do you see at the {0}?",
    ),
    "knowledge.which": ("which thing is {a0}?", "what is the {0} in the picture?", "which {0} do you see?"),
    "knowledge.where": ("where is the {0}?", "where do you see the {0}?", "in which corner is the {0}?"),
    "area.compare": (
        "is the {0} larger than the {1}?",
        "does the {0} cover more of the picture than the {1}?",
        "do you see more of the {0} than of the {1}?",
    ),
    "area.largest": ("what is the largest thing?", "which thing is the largest?", "what covers the most?"),
    "area.smallest": ("what is the smallest thing?", "which thing is the smallest?", "what covers the least?"),
}

NAMING = ("attribute.name", "spatial.name", "spatial.beside")
"""Templates that ask for a name."""

NEW_THINGS = {
    "existence": ("existence.thing",),
    "place": ("spatial.where",),
    "name": ("attribute.name", "spatial.name"),
}
"""What is asked about things that no training picture shows."""

MOST_COUNTED = 4
SOME = 8

_YES_NO = ("no", "yes")


def _some(items: list[Item], rng: random.Random, most: int = SOME) -> list[Item]:
    return items if len(items) <= most else rng.sample(items, most)


def _shuffled(a: str, b: str, rng: random.Random) -> tuple[str, str]:
    return (a, b) if rng.random() < 0.5 else (b, a)


def _pairs(things: list[int], rng: random.Random) -> list[tuple[int, int]]:
    """Some pairs of things, each once, in random order."""
    things = rng.sample(things, len(things))
    return _some([(a, b) for at, a in enumerate(things) for b in things[at + 1 :]], rng)


# ---- existence and counting


def _existence_thing(view: PhotoView, rng: random.Random) -> list[Option]:
    here: list[Option] = [("yes", (name,)) for name in view.name_counts if name in view.asked]
    return here + [("no", (name,)) for name in _some(view.absent(), rng)]


def _existence_coloured(view: PhotoView, rng: random.Random) -> list[Option]:
    options: list[Option] = []
    for i in view.single:
        if view.painted[i]:
            other = rng.choice([paint for paint in PAINTS if paint != view.colours[i]])
            options += [("yes", (f"{view.colours[i]} {view.names[i]}",)), ("no", (f"{other} {view.names[i]}",))]
    return options


def _counting_all(view: PhotoView, rng: random.Random) -> list[Option]:
    return [(str(len(view)), ())]


def _counting_thing(view: PhotoView, rng: random.Random) -> list[Option]:
    names = [*view.name_counts, *_some(view.absent(), rng, 3)]
    counted = ((view.name_counts[name], view.catalogue.names.many(name)) for name in names)
    return [(str(n), (many,)) for n, many in counted if n <= MOST_COUNTED]


def _counting_category(view: PhotoView, rng: random.Random) -> list[Option]:
    counted = ((view.category_counts[each], view.catalogue.names.many(each)) for each in _categories(view))
    return [(str(n), (many,)) for n, many in counted if n <= MOST_COUNTED]


def _categories(view: PhotoView) -> list[str]:
    return sorted(set(view.catalogue.categories.values()))


# ---- attribute


def _attribute_colour(view: PhotoView, rng: random.Random) -> list[Option]:
    return [(colour, (quarter,)) for i, quarter in view.alone() if (colour := view.colours[i]) is not None]


def _attribute_painted(view: PhotoView, rng: random.Random) -> list[Option]:
    found = [(view.colours[i], view.names[i]) for i in view.single if view.painted[i]]
    return [(colour, (name,)) for colour, name in found if colour is not None]


def _attribute_size(view: PhotoView, rng: random.Random) -> list[Option]:
    return [(size, (view.names[i],)) for i in view.single if (size := view.size(i)) is not None]


def _attribute_name(view: PhotoView, rng: random.Random) -> list[Option]:
    return [(view.names[0], ())] if len(view) == 1 else []


# ---- spatial


def _spatial_where(view: PhotoView, rng: random.Random) -> list[Option]:
    return [(quarter, (view.names[i],)) for i in view.single if (quarter := view.quarter(i)) is not None]


def _spatial_name(view: PhotoView, rng: random.Random) -> list[Option]:
    return [(view.names[i], (quarter,)) for i, quarter in view.alone()]


def _spatial_side(view: PhotoView, rng: random.Random) -> list[Option]:
    options: list[Option] = []
    for a, b in _pairs(view.single, rng):
        one, two = view.names[a], view.names[b]
        for side in view.side(a, b):
            # Either way round is as good; both answers are offered for the same two names.
            options += [("yes", (one, side, two)), ("yes", (two, OPPOSITE[side], one))]
            options += [("no", (two, side, one)), ("no", (one, OPPOSITE[side], two))]
    return options


def _spatial_beside(view: PhotoView, rng: random.Random) -> list[Option]:
    options: list[Option] = []
    for i in view.single:
        for side in OPPOSITE:
            other = view.beside(i, side)
            if other is not None:
                options.append((view.names[other], (side, view.names[i])))
    return options


# ---- logic


def _logic_both(view: PhotoView, rng: random.Random) -> list[Option]:
    here = sorted(view.name_counts)
    options: list[Option] = [("yes", _shuffled(a, b, rng)) for at, a in enumerate(here) for b in here[at + 1 :]]
    absent = _some(view.absent(), rng)
    if len(here) > 1:  # a picture with one thing could only answer "no"
        options += [("no", _shuffled(rng.choice(here), name, rng)) for name in absent]
    return options


def _logic_either(view: PhotoView, rng: random.Random) -> list[Option]:
    here, absent = sorted(view.name_counts), _some(view.absent(), rng, 12)
    rng.shuffle(absent)
    options: list[Option] = [("yes", _shuffled(a, b, rng)) for a, b in zip(here, absent, strict=False)]
    return options + [("no", pair) for pair in zip(absent[::2], absent[1::2], strict=False)]


def _logic_more(view: PhotoView, rng: random.Random) -> list[Option]:
    names = view.catalogue.names
    groups: list[list[tuple[int, str]]] = [
        [(n, names.many(name)) for name, n in view.name_counts.items()],
        [(view.category_counts[each], names.many(each)) for each in _categories(view)],
    ]
    options: list[Option] = []
    for group in groups:
        if len(group) < 2:
            continue
        for (n, a), (m, b) in (rng.sample(group, 2) for _ in range(4)):
            if n != m:
                more, fewer = (a, b) if n > m else (b, a)
                options += [("yes", (more, fewer)), ("no", (fewer, more))]
    return options


def _logic_same(view: PhotoView, rng: random.Random) -> list[Option]:
    things = [i for i in view.single if view.painted[i]]
    return [
        (_YES_NO[view.colours[a] == view.colours[b]], (view.names[a], view.names[b])) for a, b in _pairs(things, rng)
    ]


# ---- reading and knowledge


def _reading_word(view: PhotoView, rng: random.Random) -> list[Option]:
    return [(view.word, ())] if view.word else []


def _reading_sign(view: PhotoView, rng: random.Random) -> list[Option]:
    return [(_YES_NO[view.word is not None], ())]


def _reading_says(view: PhotoView, rng: random.Random) -> list[Option]:
    if view.word is None:
        return []
    other = rng.choice([word for word in WORDS if word != view.word])
    return [("yes", (view.word,)), ("no", (other,))]


def _knowledge_category(view: PhotoView, rng: random.Random) -> list[Option]:
    return [(_YES_NO[each in view.category_counts], (each,)) for each in _categories(view)]


def _knowledge_kind(view: PhotoView, rng: random.Random) -> list[Option]:
    return [(view.categories[i], (quarter,)) for i, quarter in view.alone()]


def _knowledge_which(view: PhotoView, rng: random.Random) -> list[Option]:
    if len(view) < 2:
        return []
    things = [i for i, each in enumerate(view.categories) if view.category_counts[each] == 1]
    return [(view.names[i], (view.categories[i],)) for i in things]


def _knowledge_where(view: PhotoView, rng: random.Random) -> list[Option]:
    things = [i for i, each in enumerate(view.categories) if view.category_counts[each] == 1]
    return [(quarter, (view.categories[i],)) for i in things if (quarter := view.quarter(i)) is not None]


# ---- size comparison


def _area_compare(view: PhotoView, rng: random.Random) -> list[Option]:
    options: list[Option] = []
    for pair in _pairs(view.single, rng):
        small, big = sorted(pair, key=view.area.__getitem__)
        if view.extreme(view.area.__getitem__, list(pair)) is not None:
            options += [("yes", (view.names[big], view.names[small])), ("no", (view.names[small], view.names[big]))]
    return options


def _area_largest(view: PhotoView, rng: random.Random) -> list[Option]:
    found = view.extreme(view.area.__getitem__, list(range(len(view))))
    return [] if found is None else [(view.names[found], ())]


def _area_smallest(view: PhotoView, rng: random.Random) -> list[Option]:
    found = view.extreme(lambda i: 1 / max(view.area[i], 1e-6), list(range(len(view))))
    return [] if found is None else [(view.names[found], ())]


MAKERS: dict[str, Maker] = {
    "existence.thing": _existence_thing,
    "existence.coloured": _existence_coloured,
    "counting.all": _counting_all,
    "counting.thing": _counting_thing,
    "counting.category": _counting_category,
    "attribute.colour": _attribute_colour,
    "attribute.painted": _attribute_painted,
    "attribute.size": _attribute_size,
    "attribute.name": _attribute_name,
    "spatial.where": _spatial_where,
    "spatial.name": _spatial_name,
    "spatial.side": _spatial_side,
    "spatial.beside": _spatial_beside,
    "logic.both": _logic_both,
    "logic.either": _logic_either,
    "logic.more": _logic_more,
    "logic.same": _logic_same,
    "reading.word": _reading_word,
    "reading.says": _reading_says,
    "reading.sign": _reading_sign,
    "knowledge.category": _knowledge_category,
    "knowledge.kind": _knowledge_kind,
    "knowledge.which": _knowledge_which,
    "knowledge.where": _knowledge_where,
    "area.compare": _area_compare,
    "area.largest": _area_largest,
    "area.smallest": _area_smallest,
}
"""A template's task is its name up to the dot."""


def features(args: tuple[str, ...]) -> list[object]:
    """What a reader of the text alone could hold on to: each argument and its place, its last word, equal words."""
    found: list[object] = [(i, arg) for i, arg in enumerate(args)]
    counts = Counter(word for arg in args for word in arg.split())
    return found + (["repeat"] if counts and max(counts.values()) > 1 else [])


def templates(catalogue: Catalogue, *, new: bool = False) -> Templates:
    """The questions about compositions of a catalogue's things.

    Args:
        new: only `NEW_THINGS`, and only about those: the split "new".
    """
    if not new:
        return Templates(
            WORDINGS,
            MAKERS,
            lambda scene: PhotoView(scene, catalogue, catalogue.trained),
            features,
            catalogue.names.one,
        )
    asked = [name for names in NEW_THINGS.values() for name in names]
    return Templates(
        WORDINGS,
        {name: partial(_about_new, MAKERS[name]) for name in asked},
        lambda scene: PhotoView(scene, catalogue, catalogue.new),
        features,
        catalogue.names.one,
        tuple(dict.fromkeys(name.partition(".")[0] for name in asked)),
    )


def _about_new(maker: Maker, view: PhotoView, rng: random.Random) -> list[Option]:
    return [(answer, args) for answer, args in maker(view, rng) if {answer, *args} & view.catalogue.held_out]
