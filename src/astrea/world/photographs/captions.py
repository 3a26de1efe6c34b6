"""Reference captions of compositions, a tolerant parser of generated ones, and the score of their facts.

A caption lists the things ("a red car, a frog and a pair of scissors."), states one or two clear relations ("the frog
is left of the scissors.") and the sign ("the sign says stop.").
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache

from astrea.experts.packaged.class_names import COLOURS
from astrea.world.photographs.cutouts import Catalogue
from astrea.world.photographs.view import OPPOSITE, PhotoView

OPENINGS: tuple[str, ...] = ("", "there are ", "the picture shows ", "we see ")
SIGN_SENTENCES: tuple[str, ...] = ("the sign says {0}.", "the sign reads {0}.", "the word on the sign is {0}.")

Mention = tuple[str | None, str]
"""(colour, name), the colour None where it was not said"""
Relation = tuple[Mention, str, Mention]


@dataclass(frozen=True, slots=True)
class CaptionFacts:
    """What a caption states: things (counted), relations (first, side, second), the sign's word."""

    things: Counter[Mention] = field(default_factory=Counter)
    relations: set[Relation] = field(default_factory=set)
    word: str | None = None


def mention_of(view: PhotoView, index: int) -> Mention:
    """A thing as captions name it."""
    return view.colours[index], view.names[index]


def _unique(view: PhotoView) -> list[int]:
    """Things that a caption can speak of without ambiguity."""
    counts = Counter(mention_of(view, i) for i in range(len(view)))
    return [
        i
        for i in range(len(view))
        if view.name_counts[view.names[i]] == 1 or (view.colours[i] is not None and counts[mention_of(view, i)] == 1)
    ]


def phrase(view: PhotoView, mention: Mention) -> str:
    """``a red car``, ``a frog``, ``a red pair of scissors``."""
    colour, name = mention
    return view.catalogue.names.one(name if colour is None else f"{colour} {name}")


def _definite(mention: Mention) -> str:
    colour, name = mention
    return f"the {name}" if colour is None else f"the {colour} {name}"


def captions(view: PhotoView, n: int, seed: int) -> list[str]:
    """``n`` references that differ in order and wording; the first is canonical and the same for every seed."""
    unique = _unique(view)
    left_to_right = sorted(range(len(view)), key=lambda i: (view.x[i], view.y[i], i))
    rank = {i: at for at, i in enumerate(left_to_right)}
    clear = [
        (a, side, b) for a in unique for b in unique if rank[a] < rank[b] and (side := view.main_side(a, b)) is not None
    ]
    clear.sort(key=lambda fact: (rank[fact[0]], rank[fact[2]]))
    several = 2 if len(view) <= 4 else 1
    texts = [_caption(view, left_to_right, clear[:several], "", SIGN_SENTENCES[0])]
    rng = random.Random(seed)
    for index in range(1, n):
        order = rng.sample(left_to_right, len(left_to_right))
        some = rng.sample(clear, min(several, len(clear)))
        turned = [fact if rng.random() < 0.5 else (fact[2], OPPOSITE[fact[1]], fact[0]) for fact in some]
        opening, sign = OPENINGS[index % len(OPENINGS)], SIGN_SENTENCES[index % len(SIGN_SENTENCES)]
        texts.append(_caption(view, order, turned, opening, sign))
    return texts


def _caption(view: PhotoView, order: list[int], relations: list[tuple[int, str, int]], opening: str, sign: str) -> str:
    things = [phrase(view, mention_of(view, i)) for i in order]
    listed = things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]
    if opening == "there are " and len(things) == 1:
        opening = "there is "
    sentences = [f"{opening}{listed}."]
    sentences += [
        f"{_definite(mention_of(view, a))} is {side} {_definite(mention_of(view, b))}." for a, side, b in relations
    ]
    if view.word:
        sentences.append(sign.format(view.word))
    return " ".join(sentences)


@dataclass(frozen=True, slots=True)
class Grammar:
    """Patterns of what captions about some names state."""

    relation: re.Pattern[str]
    thing: re.Pattern[str]
    word: re.Pattern[str]
    sentence_end: re.Pattern[str]


@lru_cache(maxsize=8)
def grammar(names: tuple[str, ...]) -> Grammar:
    """Patterns for these names, the longest ones first, so that "race car" is no car."""
    colour = rf"(?:({'|'.join(COLOURS)})\s+)?(?:(?:pair|head)\s+of\s+)?"
    name = rf"({'|'.join(re.escape(each) for each in sorted(names, key=lambda each: (-len(each), each)))})\b"
    side = r"(?:to\s+the\s+)?(left|right|above|below)(?:\s+of)?"
    return Grammar(
        re.compile(rf"\b{colour}{name}\s+(?:is|lies)\s+{side}\s+(?:the\s+|an?\s+)?{colour}{name}"),
        re.compile(rf"\b{colour}{name}"),
        re.compile(r"\bsign\s+(?:says|reads|is)\s+([a-z0-9]+)"),
        re.compile(r"[.;?!\n]+"),
    )


_SIDES = {"left": "left of", "right": "right of", "above": "above", "below": "below"}


def parse_caption(text: str, names: tuple[str, ...]) -> CaptionFacts:
    """The facts stated in ``text``, e.g. a generated one. Whatever is not understood is passed over; never raises."""
    patterns = grammar(names)
    things: Counter[Mention] = Counter()
    relations: set[Relation] = set()
    word: str | None = None
    for sentence in patterns.sentence_end.split(text.lower()):
        said = patterns.word.search(sentence)
        if said is not None:
            word = word or said[1]
            sentence = sentence[: said.start()] + " , " + sentence[said.end() :]
        for found in patterns.relation.finditer(sentence):
            relations.add(((found[1], found[2]), _SIDES[found[3]], (found[4], found[5])))
        # What a relation names has been listed before, so it is no further thing.
        things.update((found[1], found[2]) for found in patterns.thing.finditer(patterns.relation.sub(" , ", sentence)))
    return CaptionFacts(things, relations, word)


def caption_f1(text: str, view: PhotoView, catalogue: Catalogue) -> float:
    """Harmonic mean of precision and recall of a caption's facts, 0..1.

    Facts are things (counted; with their colour where the caption tells it and the thing has a clear one), relations
    and the sign's word. Precision is over all facts stated; a relation is true if it holds for any two things that its
    names fit. Recall is over the things, the sign, and one relation, if two things stand clearly apart.
    """
    facts = parse_caption(text, tuple(catalogue.of))
    things = _matched(facts.things, view)
    relations = sum(_true(view, *relation) for relation in facts.relations)
    word = int(facts.word is not None and facts.word == view.word)
    # A relation can only be asked for where one can be told without ambiguity, and then one is enough.
    unique = _unique(view)
    clear = any(view.main_side(a, b) for a in unique for b in unique if a < b)
    stated = facts.things.total() + len(facts.relations) + (facts.word is not None)
    wanted = len(view) + clear + (view.word is not None)
    true, found = things + relations + word, things + (clear and relations > 0) + word
    if true == 0 or found == 0:
        return 0.0
    precision, recall = true / stated, found / wanted
    return 2 * precision * recall / (precision + recall)


def _matched(stated: Counter[Mention], view: PhotoView) -> int:
    """How many mentions have a thing of their own; exact ones choose first."""
    left = list(range(len(view)))
    mentions = list(stated.elements())
    for exact in (True, False):
        for mention in list(mentions):
            fitting = (i for i in left if (mention_of(view, i) == mention if exact else _fits(view, i, mention)))
            if (match := next(fitting, None)) is not None:
                left.remove(match)
                mentions.remove(mention)
    return len(view) - len(left)


def _fits(view: PhotoView, index: int, mention: Mention) -> bool:
    colour, name = mention
    return view.names[index] == name and (colour is None or view.colours[index] in (None, colour))


def _true(view: PhotoView, first: Mention, side: str, second: Mention) -> bool:
    everything = range(len(view))
    return any(
        a != b and _fits(view, a, first) and _fits(view, b, second) and _lies(view, a, side, b)
        for a in everything
        for b in everything
    )


def _lies(view: PhotoView, a: int, side: str, b: int) -> bool:
    far = view.x[b] - view.x[a] if side in ("left of", "right of") else view.y[b] - view.y[a]
    return far > 0 if side in ("left of", "above") else far < 0
