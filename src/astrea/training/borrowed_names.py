"""Things called by names that training does not have, so that experts' own words are copied, and not recognised.

A language model that answers with the same few hundred names soon chooses among them, and says none of the others even
where an expert reads it out. So in some training pictures a thing that an expert calls rightly is called by another of
that expert's labels, in the finding and in all that is asked and answered; its features, which still say the old name,
are hidden, and so is what other experts see of it.

Letters: P pictures, T findings of an expert, N names of a slot.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures
from astrea.language.whole_words import WholeWords, letter_groups
from astrea.training.own_words import TwoWays, hidden

LABEL = re.compile(r"[a-z]+(?: [a-z]+)?")
"""Labels that are lent: one or two plain words, which a phrase has room to write out."""


@dataclass(frozen=True)
class Renaming:
    """What a thing of a picture is called instead. number, word: its name in training. label: the borrowed name.
    plurals: of the word, as texts have them."""

    number: int
    word: str
    label: str
    plurals: tuple[str, ...] = ()

    def __call__(self, text: str) -> str:
        """A text with the borrowed name for the thing's own."""
        forms = "|".join(map(re.escape, sorted((self.word, *self.plurals), key=len, reverse=True)))
        return re.sub(rf"\b(?:(an?)\s+)?({forms})\b", self._said, text, flags=re.IGNORECASE)

    def _said(self, found: re.Match[str]) -> str:
        article, form = found.groups()
        label = self.label if form.lower() == self.word else f"{self.label}s"
        if article is None:
            return label
        return f"{article[0]}{'n' if label[0] in 'aeiou' else ''} {label}"


@dataclass(frozen=True)
class Lent:
    """The labels that are lent. channels: by expert, the channels of its name slot that are; labels: what they say."""

    labels: Mapping[str, Sequence[str]]
    channels: Mapping[str, Tensor]


def lent_labels(experts: ExpertBank, ways: Mapping[str, TwoWays], withheld: Collection[str]) -> Lent:
    """The labels of experts that are no words of the training data.

    Args:
        withheld: names that are not lent either.
    """
    labels, channels = {}, {}
    unsaid = {word for name in withheld for word in letter_groups(name)}
    for name, way in ways.items():
        own = experts[name].labels[way.name]
        labels[name] = [label or "" for label in own]
        free = [
            at
            for at, (label, words) in enumerate(zip(labels[name], way.words, strict=True))
            if not words and LABEL.fullmatch(label) and not unsaid & set(label.split())
        ]
        channels[name] = torch.tensor(free, dtype=torch.long)
    return Lent(labels, channels)


def borrow_names(
    features: Mapping[str, ExpertFeatures],
    ways: Mapping[str, TwoWays],
    lent: Lent,
    words: WholeWords,
    told: Sequence[frozenset[int]],
    chance: float,
    generator: torch.Generator,
) -> tuple[dict[str, ExpertFeatures], list[Renaming | None]]:
    """The features with some things called by another name, and what each picture's thing is called.

    Args:
        told: per picture, the words of its texts. chance: that a picture of which an expert calls a thing rightly has
            one with a borrowed name.
    """
    if not chance:
        return dict(features), [None] * len(told)
    drawn = torch.rand(len(told), 3, generator=generator).tolist()
    right = {name: way.right(features[name], told) for name, way in ways.items()}
    renamed: list[Renaming | None] = [None] * len(told)
    tokens = {name: part.tokens.clone() for name, part in features.items() if name in ways}
    called = {name: torch.zeros_like(right_PT) for name, right_PT in right.items()}
    for picture, (luck, which, whose) in enumerate(drawn):
        if luck >= chance:
            continue
        said = {name: _words_of(features[name], way, right[name], picture, told[picture]) for name, way in ways.items()}
        found = sorted(
            {(word, name) for name, some in said.items() if len(lent.channels[name]) for word in some.values()}
        )
        if not found:
            continue
        word, lender = found[int(which * len(found))]
        free = lent.channels[lender]
        label = lent.labels[lender][int(free[int(whose * len(free))])]
        spelled = words.words[word]
        last = spelled.split()[-1]
        plurals = tuple(spelled.removesuffix(last) + many for many, one in words.folded.items() if one == last)
        renamed[picture] = Renaming(word, spelled, label, plurals)
        for name, some in said.items():
            for at in (at for at, its in some.items() if its == word):
                _call(tokens[name][picture, at, ways[name].name], lent.labels[name], label)
                called[name][picture, at] = True
    changed = {name: replace(part, tokens=tokens[name]) if name in tokens else part for name, part in features.items()}
    return hidden(changed, ways, called), renamed


def _words_of(
    part: ExpertFeatures, way: TwoWays, right_PT: Tensor, picture: int, told: frozenset[int]
) -> dict[int, int]:
    """Of a picture's findings that are rightly called: finding -> its word."""
    found = {}
    for at in right_PT[picture].nonzero()[:, 0].tolist():
        channel = int(part.tokens[picture, at, way.name].argmax())
        found[at] = min(way.words[channel] & told)
    return found


def _call(weight_N: Tensor, labels: Sequence[str], label: str) -> None:
    """Let a finding be called by a label: in place, the likeliest name and that one change places. An expert that has
    no such label says nothing."""
    if label not in labels:
        weight_N.zero_()
        return
    old, new = int(weight_N.argmax()), labels.index(label)
    weight_N[[old, new]] = weight_N[[new, old]]
