"""What things are called: names from captions by a rule, from a list where the rule does not do, and their plurals."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from astrea.world.scenes.phrases import with_article

BUNDLED = Path(__file__).with_name("names.json")

LONGEST = 24
_ASIDE = re.compile(r"\(.*?\)|[“”\"]")
_NAME = re.compile(r"(?:an?|the)\s+([a-z][a-z -]*)")
_SIBILANT = ("s", "x", "z", "ch", "sh")


@dataclass(frozen=True, slots=True)
class Names:
    """Facts about names that no rule gives.

    photographs: path of a cut-out of the Debian package -> its name; whatever else that package holds is a drawing, or
    has no short name. categories: beginning of a path -> category. known: name -> the label that the 1000 classes of
    ImageNet or the 80 of COCO have for it. alike: names that may be said of one another's things, which therefore
    never share a picture. phrases: name -> (as one thing, as several). plurals: where the rule is wrong.
    """

    photographs: Mapping[str, str]
    categories: Mapping[str, str]
    known: Mapping[str, str]
    alike: tuple[frozenset[str], ...]
    phrases: Mapping[str, tuple[str, str]]
    plurals: Mapping[str, str]

    def one(self, name: str) -> str:
        """``frog`` -> ``a frog``, ``red scissors`` -> ``a red pair of scissors``."""
        for known, (one, _) in self.phrases.items():
            if f" {name}".endswith(f" {known}"):
                return with_article(name.removesuffix(known) + one.split(" ", 1)[1])
        return with_article(name)

    def many(self, name: str) -> str:
        """``frog`` -> ``frogs``, ``scissors`` -> ``pairs of scissors``."""
        if name in self.phrases:
            return self.phrases[name][1]
        return self.plurals.get(name) or plural(name)

    def category(self, path: str) -> str:
        """Of a cut-out, by the longest beginning of its path in the list; else by its first folder."""
        fitting = [start for start in self.categories if path.startswith(start)]
        if fitting:
            return self.categories[max(fitting, key=len)]
        first = path.split("/")[0] if "/" in path else "thing"
        return singular(re.sub(r"[^a-z]+", " ", first.lower()).strip()) or "thing"

    def clash(self, a: str, b: str) -> bool:
        """Whether two different names may be said of one thing."""
        return any(a in group and b in group for group in self.alike)


@cache
def listed() -> Names:
    """The list in this package."""
    stored = json.loads(BUNDLED.read_text(encoding="utf-8"))
    return Names(
        stored["photographs"],
        stored["categories"],
        stored["known"],
        tuple(map(frozenset, stored["alike"])),
        {name: (one, many) for name, (one, many) in stored["phrases"].items()},
        stored["plurals"],
    )


def short_name(caption: str) -> str | None:
    """The thing that a caption names and no more: ``A frog.`` -> ``frog``; None where it says something else."""
    first = _ASIDE.sub("", caption.split(",")[0]).strip().rstrip(".!").lower()
    found = _NAME.fullmatch(first)
    name = " ".join(found[1].split()) if found else ""
    return name if 0 < len(name) <= LONGEST and len(name.split()) <= 3 else None


def plural(name: str) -> str:
    """By the rules of English spelling; its last word changes."""
    if name.endswith(_SIBILANT):
        return f"{name}es"
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return f"{name[:-1]}ies"
    if name.endswith(("ato", "ango")):
        return f"{name}es"
    return f"{name}s"


def singular(name: str) -> str:
    """Of a folder's name: ``animals`` -> ``animal``."""
    if name.endswith("ies") and len(name) > 4:
        return f"{name[:-3]}y"
    if name.endswith("es") and name[:-2].endswith(_SIBILANT):
        return name[:-2]
    return name[:-1] if name.endswith("s") and not name.endswith("ss") else name
