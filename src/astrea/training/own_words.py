"""Findings that experts call rightly in their own words, read without their features.

Aligned features name what training shows, so a language model that is always given them learns to pass over the own
words of experts, which alone know anything new. Where a picture's texts say that the own word is right, it has to be
read: the features of that finding are hidden, and so are those of what other experts see of the same thing, or these
would name it.

Letters: P pictures, T findings of an expert (U of another), C its channels, N names of a slot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from astrea.alignment.known_words import NEAR
from astrea.alignment.phrases import PhraseAdapter
from astrea.data.protocol import Samples
from astrea.experts.bank import ExpertBank
from astrea.experts.phrases import Slot
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.draws import rand_rows
from astrea.language.whole_words import WholeWords


@dataclass(frozen=True)
class TwoWays:
    """An expert that knows in two ways. feature: channels of its features. name: channels of the slot that its other
    phrase begins with. words: of each of the slot's N channels, the words of training that its name says."""

    feature: slice
    name: slice
    words: tuple[frozenset[int], ...]

    def right(self, part: ExpertFeatures, told: Sequence[frozenset[int]]) -> Tensor:
        """Which findings (P, T) of some pictures are called by a word that a picture's texts have.

        Args:
            told: per picture, the words of its texts.
        """
        weight_PTN = part.tokens[..., self.name]
        said = weight_PTN.argmax(-1).tolist()
        found = [[bool(self.words[n] & here) for n in row] for row, here in zip(said, told, strict=True)]
        right_PT = torch.tensor(found, dtype=torch.bool, device=part.tokens.device)
        return right_PT & (weight_PTN != 0).any(-1) & (part.confidence > 0)


def two_ways(experts: ExpertBank, adapters: Mapping[str, nn.Module], words: WholeWords) -> dict[str, TwoWays]:
    """The experts that have a phrase of features and one of own words.

    Args:
        words: of the training data.
    """
    found = {}
    for name, adapter in adapters.items():
        slots = _slots(adapter) if isinstance(adapter, PhraseAdapter) else None
        if slots is not None:
            feature, own = slots
            labels = experts[name].labels[own.start : own.stop]
            told = tuple(frozenset(words.of([label or ""])) for label in labels)
            found[name] = TwoWays(slice(feature.start, feature.stop), slice(own.start, own.stop), told)
    return found


def _slots(adapter: PhraseAdapter) -> tuple[Slot, Slot] | None:
    """The slot of features, and the first slot of the phrase that has none."""
    slots = [[part for part in phrase if isinstance(part, Slot)] for phrase in adapter.phrases]
    feature = next((slot for some in slots for slot in some if slot.kind == "feature"), None)
    own = next((some[0] for some in slots if all(slot.kind != "feature" for slot in some)), None)
    return None if feature is None or own is None or own.kind != "words" else (feature, own)


def hide_features(
    features: Mapping[str, ExpertFeatures],
    ways: Mapping[str, TwoWays],
    told: Sequence[frozenset[int]],
    chance: float,
    generator: torch.Generator,
) -> dict[str, ExpertFeatures]:
    """The same without the features of some findings whose own words are right: channels of nothing but zeros are not
    read.

    Args:
        told: per picture, the words of its texts. chance: that such a finding loses its features, and with it what the
            other experts see there.
    """
    chosen = {}
    for name, way in ways.items():
        part = features[name]
        drawn_PT = rand_rows(*part.confidence.shape, generator=generator).to(part.tokens.device) < chance
        chosen[name] = way.right(part, told) & drawn_PT
    return hidden(features, ways, chosen)


def hidden(
    features: Mapping[str, ExpertFeatures], ways: Mapping[str, TwoWays], chosen: Mapping[str, Tensor]
) -> dict[str, ExpertFeatures]:
    """The same without the features of the chosen findings (P, T) of each expert in ``ways``, and without those of what
    the other experts see there."""
    found = dict(features)
    for name, way in ways.items():
        part, hidden_PT = features[name], chosen[name]
        for other, chosen_PU in chosen.items():
            if other != name:
                hidden_PT = hidden_PT | same_thing(part, features[other], chosen_PU)
        tokens = part.tokens.clone()
        tokens[..., way.feature] = tokens[..., way.feature].masked_fill(hidden_PT.unsqueeze(-1), 0)
        found[name] = replace(part, tokens=tokens)
    return found


def same_thing(part: ExpertFeatures, other: ExpertFeatures, chosen_PU: Tensor) -> Tensor:
    """The findings (P, T) of an expert that are nearest to a chosen finding of another one, and near enough."""
    if part.places is None or other.places is None:
        return torch.zeros_like(part.confidence, dtype=torch.bool)
    apart_PTU = torch.cdist(part.places.nan_to_num(torch.inf), other.places.nan_to_num(-torch.inf))
    apart_PTU = apart_PTU.masked_fill((part.confidence <= 0).unsqueeze(-1), torch.inf)
    nearest_PTU = (apart_PTU == apart_PTU.amin(1, keepdim=True)) & (apart_PTU < NEAR)
    return (nearest_PTU & chosen_PU.unsqueeze(1)).any(-1)


def words_told(samples: Samples, words: WholeWords) -> list[frozenset[int]]:
    """Per picture, the words of the texts of the sample that shows it first; none for one that none shows first."""
    found: list[frozenset[int]] = [frozenset()] * samples.pictures
    for first, texts in zip(samples.first.tolist(), samples.texts, strict=True):
        if first >= 0:
            found[first] = found[first] | frozenset(words.of(texts))
    return found
