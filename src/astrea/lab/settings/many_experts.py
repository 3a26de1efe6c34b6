"""Sixteen experts out of four: each compact kind split by what it speaks of, four ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from astrea.world.experts.captioning import RELATIONS
from astrea.world.experts.classification import GROUPS, KIND_NAMES, ClassificationExpert
from astrea.world.experts.detection import DetectionExpert
from astrea.world.scenes.vocabulary import COLOURS, WORDS


def quarters(words: Sequence[str], parts: int = 4) -> list[tuple[str, ...]]:
    """Words in so many runs of nearly equal length."""
    bounds = [len(words) * part // parts for part in range(parts + 1)]
    return [tuple(words[start:stop]) for start, stop in pairwise(bounds)]


PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "captioning": {
        "colours": COLOURS,
        "things_a": KIND_NAMES[: len(KIND_NAMES) // 2],
        "things_b": KIND_NAMES[len(KIND_NAMES) // 2 :],
        "signs": (*RELATIONS, "sign", *WORDS),
    },
    "classification": {
        # Along the tokens, each of which speaks of a third of the kinds; the last of the scene.
        **{f"tags_{letter}": words for letter, words in zip("abc", quarters(KIND_NAMES, GROUPS), strict=True)},
        "scene": tuple(filter(None, ClassificationExpert.labels[len(KIND_NAMES) : -1])),
    },
    "segmentation": {
        "living": ("animal", "weather"),
        "games": ("chess", "card"),
        "tools": ("tool",),
        "other": ("sign", "gadget"),
    },
    "detection": {
        f"{letter}": words for letter, words in zip("abcd", quarters(DetectionExpert.class_names), strict=True)
    },
}
"""Kind -> part -> the words it speaks of."""


def experts() -> dict[str, dict[str, object]]:
    """The recipe's ``experts``: sixteen, of 112 tokens in all."""
    return {
        f"{kind}_{part}": {"kind": kind, "options": {"only": list(words)}}
        for kind, parts in PARTS.items()
        for part, words in parts.items()
    }
