"""Question templates: for each, its wordings and a maker of (answer, arguments) options true in a scene.

Text alone must not tell the answer. So the arguments of "yes" and "no" come from the same kinds of objects, pairs are
asked both ways round, wordings are drawn without looking at the answer, and a pair held out of training is named
only where the scene itself holds such pairs. What remains (a kind that is drawn larger, say) the balancer evens out.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from astrea.world.scenes.phrases import CLEAR_STEPS, NOUN, NOUNS, OPPOSITE, RELATION_PHRASES, SceneView
from astrea.world.scenes.vocabulary import CATEGORIES, COLOURS, KINDS, SIZES, is_novel

Option = tuple[str, tuple[str, ...]]
"""(answer, arguments of the wording)"""
Maker = Callable[[SceneView, random.Random], list[Option]]

WORDINGS: dict[str, tuple[str, ...]] = {
    # {0}, {1} are the arguments; {a0}, {a1} the same with "a" or "an".
    "existence.pair": ("is there {a0}?", "do you see {a0}?", "does the picture show {a0}?"),
    "existence.kind": ("is there {a0}?", "do you see {a0}?", "does the picture show {a0}?"),
    "existence.category": ("is there {a0}?", "do you see {a0}?", "does the picture show {a0}?"),
    "counting.kind": ("how many {0} are there?", "how many {0} do you see?"),
    "counting.colour": ("how many {0} things are there?", "how many {0} things do you see?"),
    "counting.category": ("how many {0} are there?", "how many {0} do you see?"),
    "counting.all": ("how many things are there?", "how many things do you see?"),
    "attribute.colour": ("what colour is the {0}?", "which colour does the {0} have?"),
    "attribute.kind": ("which thing is {0}?", "what is the {0} thing?"),
    "attribute.size": ("how big is the {0}?", "what size is the {0}?"),
    "spatial.side": ("is the {0} {1} the {2}?", "does the {0} lie {1} the {2}?"),
    "spatial.where": ("where is the {0} compared to the {1}?", "where is the {0} seen from the {1}?"),
    "spatial.extreme": ("which thing is {0}?", "what is {0}?"),
    "logic.both": ("is there {a0} and {a1}?", "do you see both {a0} and {a1}?"),
    "logic.either": ("is there {a0} or {a1}?", "do you see {a0} or {a1}?"),
    "logic.more": ("are there more {0} than {1}?", "do you see more {0} than {1}?"),
    "logic.same": ("are the {0} and the {1} the same colour?", "do the {0} and the {1} have the same colour?"),
    "logic.every": ("is every {0} {1}?", "is each {0} {1}?"),
    "reading.word": ("what word is printed?", "which word do you read?", "what does the plate say?"),
    "reading.letter": ("which letter does the printed word start with?", "what is the first letter of the word?"),
    "knowledge.exists": ("is there something that {0}?", "do you see something that {0}?"),
    "knowledge.fact": ("what colour is the thing that {0}?", "which colour does the thing that {0} have?"),
    "knowledge.category": ("what colour is the {0}?", "which colour does the {0} have?"),
    "area.compare": (
        "does the {0} cover more of the picture than the {1}?",
        "do you see more of the {0} than of the {1}?",
    ),
    "area.thing": ("which thing covers the most of the picture?", "what covers the most of the picture?"),
    "area.colour": ("which colour covers the most of the picture?", "what colour covers the most of the picture?"),
}

EXTREMES: dict[str, str] = {
    "left": "furthest left",
    "right": "furthest right",
    "above": "highest",
    "below": "lowest",
}
EXTREME_STEPS = 4.0
AREA_MARGIN = 1.3
MOST_COUNTED = 4
MOST_THINGS = 6
SOME = 6
"""How many options to draw where a scene would allow very many."""

_YES_NO = ("no", "yes")


def _some(items: list[Any], rng: random.Random, most: int = SOME) -> list[Any]:
    return items if len(items) <= most else rng.sample(items, most)


def _absent_kinds(view: SceneView, rng: random.Random, most: int = SOME) -> list[int]:
    return _some([k for k in range(len(KINDS)) if k not in view.kind_counts], rng, most)


def _pair_text(pair: tuple[int, int]) -> str:
    return f"{COLOURS[pair[0]]} {KINDS[pair[1]].name}"


def _absent_pairs(view: SceneView, rng: random.Random) -> list[tuple[int, int]]:
    """Pairs that are not there but nearly: one attribute of a present object is swapped, colour or kind."""
    near = set()
    for colour, kind in view.pair_counts:
        for other in view.colour_counts:
            near.add((other, kind))
        near.add((rng.randrange(len(COLOURS)), kind))
        near.add((colour, rng.randrange(len(KINDS))))
    return sorted(p for p in near if p not in view.pair_counts and (view.novel or not is_novel(p[1], p[0])))


# ---- existence and counting


def _existence_pair(view: SceneView, rng: random.Random) -> list[Option]:
    yes: list[Option] = [("yes", (_pair_text(pair),)) for pair in view.pair_counts]
    return yes + [("no", (_pair_text(pair),)) for pair in _some(_absent_pairs(view, rng), rng, 12)]


def _existence_kind(view: SceneView, rng: random.Random) -> list[Option]:
    yes: list[Option] = [("yes", (KINDS[kind].name,)) for kind in view.kind_counts]
    return yes + [("no", (KINDS[kind].name,)) for kind in _absent_kinds(view, rng)]


def _existence_category(view: SceneView, rng: random.Random) -> list[Option]:
    return [(_YES_NO[c in view.category_counts], (NOUN[c],)) for c in range(len(CATEGORIES))]


def _counting_kind(view: SceneView, rng: random.Random) -> list[Option]:
    kinds = [*view.kind_counts, *_absent_kinds(view, rng)]
    counted = ((view.kind_counts[kind], KINDS[kind].plural) for kind in kinds)
    return [(str(n), (plural,)) for n, plural in counted if n <= MOST_COUNTED]


def _counting_colour(view: SceneView, rng: random.Random) -> list[Option]:
    counted = ((view.colour_counts[c], name) for c, name in enumerate(COLOURS))
    return [(str(n), (name,)) for n, name in counted if n <= MOST_COUNTED]


def _counting_category(view: SceneView, rng: random.Random) -> list[Option]:
    counted = ((view.category_counts[c], plural) for c, plural in enumerate(NOUNS))
    return [(str(n), (plural,)) for n, plural in counted if n <= MOST_COUNTED]


def _counting_all(view: SceneView, rng: random.Random) -> list[Option]:
    return [(str(len(view)), ())] if 1 <= len(view) <= MOST_THINGS else []


# ---- attribute


def _attribute_colour(view: SceneView, rng: random.Random) -> list[Option]:
    return [(COLOURS[c], (KINDS[k].name,)) for c, k in view.pairs if view.kind_counts[k] == 1]


def _attribute_kind(view: SceneView, rng: random.Random) -> list[Option]:
    return [(KINDS[k].name, (COLOURS[c],)) for c, k in view.pairs if view.colour_counts[c] == 1]


def _attribute_size(view: SceneView, rng: random.Random) -> list[Option]:
    return [(SIZES[view.size[i]], (name,)) for i, name in view.named()]


# ---- spatial


def _named_pairs(view: SceneView, rng: random.Random, most: int = 8) -> list[tuple[int, str, int, str]]:
    """Some pairs of uniquely named objects, each once, the order within a pair random."""
    named = view.named()
    rng.shuffle(named)
    return _some([(*a, *b) for at, a in enumerate(named) for b in named[at + 1 :]], rng, most)


def _spatial_side(view: SceneView, rng: random.Random) -> list[Option]:
    options: list[Option] = []
    for a, name_a, b, name_b in _named_pairs(view, rng):
        for relation in ("left", "above"):
            far = view.distance(relation, a, b)
            if abs(far) < CLEAR_STEPS:
                continue
            true = relation if far > 0 else OPPOSITE[relation]
            # Either way round is as good; both answers are offered for the same two names.
            options.append(("yes", (name_a, RELATION_PHRASES[true], name_b)))
            options.append(("yes", (name_b, RELATION_PHRASES[OPPOSITE[true]], name_a)))
            options.append(("no", (name_b, RELATION_PHRASES[true], name_a)))
            options.append(("no", (name_a, RELATION_PHRASES[OPPOSITE[true]], name_b)))
    return options


def _spatial_where(view: SceneView, rng: random.Random) -> list[Option]:
    options: list[Option] = []
    for a, name_a, b, name_b in _named_pairs(view, rng, 15):
        side = view.where(a, b)
        if side is not None:
            options += [(side, (name_a, name_b)), (OPPOSITE[side], (name_b, name_a))]
    return options


def _spatial_extreme(view: SceneView, rng: random.Random) -> list[Option]:
    if len(view) < 2:
        return []
    options: list[Option] = []
    for values, low, high in ((view.x, "left", "right"), (view.y, "above", "below")):
        order = sorted(range(len(view)), key=values.__getitem__)
        if values[order[1]] - values[order[0]] >= EXTREME_STEPS:
            options.append((KINDS[view.kinds[order[0]]].name, (EXTREMES[low],)))
        if values[order[-1]] - values[order[-2]] >= EXTREME_STEPS:
            options.append((KINDS[view.kinds[order[-1]]].name, (EXTREMES[high],)))
    return options


# ---- logic


def _shuffled(a: str, b: str, rng: random.Random) -> tuple[str, str]:
    return (a, b) if rng.random() < 0.5 else (b, a)


def _logic_both(view: SceneView, rng: random.Random) -> list[Option]:
    here = [_pair_text(pair) for pair in view.pair_counts]
    rng.shuffle(here)
    pairs = _some([(a, b) for at, a in enumerate(here) for b in here[at + 1 :]], rng, 10)
    options: list[Option] = [("yes", pair) for pair in pairs]
    if pairs:  # a scene with one thing could only say "no"
        for pair in _some(_absent_pairs(view, rng), rng, 10):
            options.append(("no", _shuffled(rng.choice(here), _pair_text(pair), rng)))
    return options


def _logic_either(view: SceneView, rng: random.Random) -> list[Option]:
    here = [KINDS[kind].name for kind in view.kind_counts]
    absent = [KINDS[kind].name for kind in _absent_kinds(view, rng, 12)]
    options: list[Option] = [("yes", _shuffled(a, b, rng)) for a, b in zip(here, absent, strict=False)]
    if len(here) > 1:
        options.append(("yes", tuple(rng.sample(here, 2))))
    options += [("no", pair) for pair in zip(absent[::2], absent[1::2], strict=False)]
    return options


def _logic_more(view: SceneView, rng: random.Random) -> list[Option]:
    kinds = [*view.kind_counts, *_absent_kinds(view, rng, 3)]
    groups = (
        [(view.kind_counts[k], KINDS[k].plural) for k in kinds],
        [(view.category_counts[c], plural) for c, plural in enumerate(NOUNS)],
        [(view.colour_counts[c], f"{name} things") for c, name in enumerate(COLOURS)],
    )
    options: list[Option] = []
    for group in groups:
        for (n, a), (m, b) in (rng.sample(group, 2) for _ in range(5)):
            if n != m:
                more, fewer = (a, b) if n > m else (b, a)
                options += [("yes", (more, fewer)), ("no", (fewer, more))]
    return options


def _logic_same(view: SceneView, rng: random.Random) -> list[Option]:
    unique = [i for i, kind in enumerate(view.kinds) if view.kind_counts[kind] == 1]
    rng.shuffle(unique)
    return [
        (_YES_NO[view.colours[a] == view.colours[b]], (KINDS[view.kinds[a]].name, KINDS[view.kinds[b]].name))
        for at, a in enumerate(unique)
        for b in unique[at + 1 :]
    ]


def _logic_every(view: SceneView, rng: random.Random) -> list[Option]:
    colours = {*view.colour_counts, rng.randrange(len(COLOURS)), rng.randrange(len(COLOURS))}
    options: list[Option] = []
    for category in view.category_counts:
        worn = {c for c, group in zip(view.colours, view.categories, strict=True) if group == category}
        options += [(_YES_NO[worn == {c}], (NOUN[category], COLOURS[c])) for c in sorted(colours)]
    return options


# ---- reading and knowledge


def _reading_word(view: SceneView, rng: random.Random) -> list[Option]:
    return [(view.word or "nothing", ())]


def _reading_letter(view: SceneView, rng: random.Random) -> list[Option]:
    return [(view.word[0], ())] if view.word else []


def _knowledge_exists(view: SceneView, rng: random.Random) -> list[Option]:
    yes: list[Option] = [("yes", (KINDS[kind].fact,)) for kind in view.kind_counts]
    return yes + [("no", (KINDS[kind].fact,)) for kind in _absent_kinds(view, rng)]


def _knowledge_fact(view: SceneView, rng: random.Random) -> list[Option]:
    return [(COLOURS[c], (KINDS[k].fact,)) for c, k in view.pairs if view.kind_counts[k] == 1]


def _knowledge_category(view: SceneView, rng: random.Random) -> list[Option]:
    worn = zip(view.colours, view.categories, strict=True)
    return [(COLOURS[c], (NOUN[group],)) for c, group in worn if view.category_counts[group] == 1]


# ---- area


def _area_compare(view: SceneView, rng: random.Random) -> list[Option]:
    options: list[Option] = []
    for a, name_a, b, name_b in _named_pairs(view, rng, 15):
        big, small = (name_a, name_b) if view.area[a] > view.area[b] else (name_b, name_a)
        if max(view.area[a], view.area[b]) >= AREA_MARGIN * min(view.area[a], view.area[b]):
            options += [("yes", (big, small)), ("no", (small, big))]
    return options


def _area_thing(view: SceneView, rng: random.Random) -> list[Option]:
    order = sorted(range(len(view)), key=view.area.__getitem__, reverse=True)
    clear = len(order) > 1 and view.area[order[0]] >= AREA_MARGIN * view.area[order[1]]
    return [(KINDS[view.kinds[order[0]]].name, ())] if clear else []


def _area_colour(view: SceneView, rng: random.Random) -> list[Option]:
    shares = [0] * len(COLOURS)
    for colour, area in zip(view.colours, view.area, strict=True):
        shares[colour] += area
    order = sorted(range(len(COLOURS)), key=shares.__getitem__, reverse=True)
    clear = shares[order[1]] > 0 and shares[order[0]] >= AREA_MARGIN * shares[order[1]]
    return [(COLOURS[order[0]], ())] if clear else []


MAKERS: dict[str, Maker] = {
    "existence.pair": _existence_pair,
    "existence.kind": _existence_kind,
    "existence.category": _existence_category,
    "counting.kind": _counting_kind,
    "counting.colour": _counting_colour,
    "counting.category": _counting_category,
    "counting.all": _counting_all,
    "attribute.colour": _attribute_colour,
    "attribute.kind": _attribute_kind,
    "attribute.size": _attribute_size,
    "spatial.side": _spatial_side,
    "spatial.where": _spatial_where,
    "spatial.extreme": _spatial_extreme,
    "logic.both": _logic_both,
    "logic.either": _logic_either,
    "logic.more": _logic_more,
    "logic.same": _logic_same,
    "logic.every": _logic_every,
    "reading.word": _reading_word,
    "reading.letter": _reading_letter,
    "knowledge.exists": _knowledge_exists,
    "knowledge.fact": _knowledge_fact,
    "knowledge.category": _knowledge_category,
    "area.compare": _area_compare,
    "area.thing": _area_thing,
    "area.colour": _area_colour,
}
"""A template's task is its name up to the dot."""
