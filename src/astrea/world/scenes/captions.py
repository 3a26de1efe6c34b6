"""Reference captions of a scene, the compact caption of the captioning expert, and a tolerant parser of captions.

A caption lists the objects ("a red sun, a blue cow and a green cat."), states one or two clear relations
("the red sun is left of the blue cow.") and the printed word ("the sign says stop.").
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field

from astrea.world.scenes.phrases import OPPOSITE, RELATION_PHRASES, SceneView, with_article
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.vocabulary import COLOURS, KINDS

OPENINGS: tuple[str, ...] = ("", "there are ", "the picture shows ", "we see ")
WORD_SENTENCES: tuple[str, ...] = ("the sign says {0}.", "the sign reads {0}.", "the printed word is {0}.")
MANY_OBJECTS = 4
"""Beyond this many objects only one relation is told, to stay within about 40 words."""

Pair = tuple[str, str]
"""(colour, kind)"""
Mention = tuple[str | None, str]
"""(colour, kind), the colour None where it was not said"""


@dataclass(frozen=True, slots=True)
class CaptionFacts:
    """What a caption states: objects (counted), relations (first, left/right/above/below, second), printed word."""

    objects: Counter[Pair] = field(default_factory=Counter)
    relations: set[tuple[Mention, str, Mention]] = field(default_factory=set)
    word: str | None = None


def captions(scene: Scene, n: int = 3, seed: int | None = None) -> list[str]:
    """``n`` references that differ in order and wording; the first is canonical and the same for every seed.

    seed: of the wording; None takes the scene's own, so the references are always the same.
    """
    view = SceneView(scene)
    relations = view.clear_relations()
    stated = 2 if len(view) <= MANY_OBJECTS else 1
    left_to_right = sorted(range(len(view)), key=lambda i: (view.x[i], view.y[i], i))
    rank = {i: at for at, i in enumerate(left_to_right)}
    canonical = [r if rank[r[0]] < rank[r[2]] else _turned(r) for r in relations]
    canonical.sort(key=lambda r: (rank[r[0]], rank[r[2]]))

    texts = [_caption(view, left_to_right, canonical[:stated], "", WORD_SENTENCES[0], word_first=False)]
    rng = random.Random(scene.spec.seed if seed is None else seed)
    for index in range(1, n):
        order = rng.sample(left_to_right, len(left_to_right))
        some = [r if rng.random() < 0.5 else _turned(r) for r in rng.sample(relations, min(stated, len(relations)))]
        opening = OPENINGS[index % len(OPENINGS)]
        sentence = WORD_SENTENCES[index % len(WORD_SENTENCES)]
        texts.append(_caption(view, order, some, opening, sentence, word_first=rng.random() < 0.3))
    return texts[: max(n, 0)]


def _turned(relation: tuple[int, str, int]) -> tuple[int, str, int]:
    """The same fact told from the other object."""
    first, side, second = relation
    return second, OPPOSITE[side], first


def _caption(
    view: SceneView,
    order: list[int],
    relations: list[tuple[int, str, int]],
    opening: str,
    word_sentence: str,
    word_first: bool,
) -> str:
    sentences = []
    if order:
        things = [with_article(view.full_name(i)) for i in order]
        listed = things[0] if len(things) == 1 else ", ".join(things[:-1]) + " and " + things[-1]
        if opening == "there are " and len(things) == 1:
            opening = "there is "
        sentences.append(f"{opening}{listed}.")
    for a, side, b in relations:
        sentences.append(f"the {view.full_name(a)} is {RELATION_PHRASES[side]} the {view.full_name(b)}.")
    if view.word:
        sentences.insert(0 if word_first else len(sentences), word_sentence.format(view.word))
    return " ".join(sentences)


def short_caption(scene: Scene) -> list[str]:
    """At most 7 words: colour and kind of the largest visible object, its side of the second largest, that one's
    colour and kind, then "sign" and the printed word; parts that the scene lacks are left out.
    """
    view = SceneView(scene)
    order = sorted(range(len(view)), key=lambda i: (-view.area[i], i))
    words: list[str] = []
    if order:
        words += [COLOURS[view.colours[order[0]]], KINDS[view.kinds[order[0]]].name]
    if len(order) > 1:
        first, second = order[:2]
        words += [view.dominant(first, second), COLOURS[view.colours[second]], KINDS[view.kinds[second]].name]
    if view.word:
        words += ["sign", view.word]
    return words


_COLOUR = "|".join(COLOURS)
_KIND = "|".join(kind.name for kind in KINDS)
_RELATION = re.compile(
    rf"\b(?:({_COLOUR})\s+)?({_KIND})\s+is\s+(?:to\s+the\s+)?(left|right|above|below)(?:\s+of)?\s+"
    rf"(?:the\s+|an?\s+)?(?:({_COLOUR})\s+)?({_KIND})\b"
)
_OBJECT = re.compile(rf"\b({_COLOUR})\s+({_KIND})\b")
_WORD = re.compile(r"\b(?:sign\s+(?:says|reads)|printed\s+word\s+is)\s+([a-z0-9]+)")
_SENTENCE_END = re.compile(r"[.;?!\n]+")


def parse_caption(text: str) -> CaptionFacts:
    """The facts stated in ``text``, e.g. a generated one. Whatever is not understood is passed over; never raises.

    The first printed word counts, should several be named.
    """
    objects: Counter[Pair] = Counter()
    relations: set[tuple[Mention, str, Mention]] = set()
    word: str | None = None
    for sentence in _SENTENCE_END.split(text.lower()):
        said = _WORD.search(sentence)
        if said is not None:
            word = word or said[1]
            sentence = sentence[: said.start()] + " , " + sentence[said.end() :]
        for found in _RELATION.finditer(sentence):
            relations.add(((found[1], found[2]), found[3], (found[4], found[5])))
        # What a relation names has been listed before, so it is no further object.
        objects.update((found[1], found[2]) for found in _OBJECT.finditer(_RELATION.sub(" , ", sentence)))
    return CaptionFacts(objects, relations, word)
