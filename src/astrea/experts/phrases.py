"""How an expert's finding is written for a language model: phrases of words and slots.

``"{feature} {vertical} {horizontal} ;"`` is a phrase of three slots and one literal. A slot is a group of the expert's
channels (`Expert.slots`), and what its channels are decides what it becomes:

* words: channels have names in `Expert.labels`. One token, the mixture of the names' word embeddings; a channel without
  a name among them weighs nothing. ``{thing:name}`` writes out the likeliest name instead, in the language model's own
  word pieces: nothing can be learned there, but a name of several words can be read, and repeated in an answer. Of a
  slot in `Expert.multi_label`, every name that is more likely than not is written out.
* feature: no channel has a name. One token, which the adapter makes of the channels. ``{feature:name}`` writes out that
  word of the training data instead which the token is nearest to: what the adapter was taught is then read like text.
  ``{feature:count}`` behind it is a number: this finding is the expert's first, second, ... with that word. A small
  language model finds the last of these numbers, where it does not count words in a list.
* text: the slot is called ``text``. Its channels are ids of the language model's own word pieces as whole numbers, -1
  where there are fewer, and each is a token.

Experts that know in two ways, by features and by words of their own, write a phrase for each, features first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from string import Formatter
from typing import Literal

from astrea.common.errors import AstreaError, shortened
from astrea.experts.names import wrong_with
from astrea.experts.protocol import Expert

TEXT = "text"
"""The name of the slot that holds word pieces."""

NAME = "name"
"""Behind a slot and a colon: its likeliest name is written out; of features, the nearest word of the training data."""

COUNT = "count"
"""Behind the slot of features and a colon: how many findings with the same nearest word there were, with this one."""

MOST_PHRASES = 2
"""Features and own words: which of the two is dropped in training is one draw."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A group of channels in a phrase: ``start`` is the first one, ``stop`` the one behind the last. written: of words
    and features, whether the likeliest name is written out. multi_label: of words, whether several names may hold at
    once. A count is of findings whose features, those channels, have the same nearest word."""

    name: str
    start: int
    stop: int
    kind: Literal["words", "feature", "text", "count"]
    written: bool = False
    multi_label: bool = False

    @property
    def is_spelled(self) -> bool:
        """Whether it is the word that features are nearest to."""
        return self.kind == "feature" and self.written


Phrase = tuple[str | Slot, ...]
"""Literal texts as they are written, spaces included, and slots, in reading order."""


def read_phrases(name: str, expert: type[Expert] | Expert) -> tuple[Phrase, ...]:
    """The phrases that an expert declares; none = it declares none.

    Args:
        name: of the expert, for messages.

    Raises:
        AstreaError: a slot lies outside of the channels, or one of text has names; one of several labels is none of
            names; or a phrase is malformed, names a slot that the expert does not have, uses a channel twice, writes
            out what has no names, or has no slot at all.
    """
    slots = slots_of(name, expert)
    phrases = expert.phrases
    if isinstance(phrases, str) or not all(isinstance(phrase, str) for phrase in phrases):
        raise AstreaError(f"expert {name!r}: phrases is {shortened(repr(phrases))}", "give a tuple of texts")
    if len(phrases) > MOST_PHRASES:
        raise AstreaError(
            f"expert {name!r} declares {len(phrases)} phrases; at most {MOST_PHRASES} are read",
            "write one of its features and one of its own words",
        )
    found = tuple(_read(name, phrase, slots) for phrase in phrases)
    used = {part for phrase in found for part in phrase if isinstance(part, Slot) and part.kind != "count"}
    both = [slot.name for slot in used if slot.written and replace(slot, written=False) in used]
    if both:
        raise AstreaError(
            f"expert {name!r}: slot {both[0]!r} is a mixture in one phrase and written out in another",
            f"write {{{both[0]}:{NAME}}} in both, or in neither",
        )
    return found


def has_features(phrase: Phrase) -> bool:
    """Whether a phrase tells what has no words."""
    return any(isinstance(part, Slot) and part.kind == "feature" for part in phrase)


def said_beside(name: str, expert: type[Expert] | Expert) -> set[str]:
    """The names that an expert's phrase of features says in slots of their own, such as colours and sides.

    Raises:
        AstreaError: see `read_phrases`.
    """
    return {
        label
        for phrase in read_phrases(name, expert)
        if has_features(phrase)
        for part in phrase
        if isinstance(part, Slot) and part.kind == "words"
        for label in expert.labels[part.start : part.stop]
        if label is not None
    }


def slots_of(name: str, expert: type[Expert] | Expert) -> dict[str, Slot]:
    """The slots that an expert declares, by name.

    Raises:
        AstreaError: see `read_phrases`.
    """
    found = {slot.name: slot for slot in _slots(name, expert)}
    for slot in expert.multi_label:
        if not isinstance(slot, str) or slot not in found or found[slot].kind != "words":
            raise AstreaError(
                f"expert {name!r}: multi_label has {shortened(repr(slot))}, no slot whose channels have names",
                f"the expert's slots: {', '.join(found) or 'none'}",
            )
        found[slot] = replace(found[slot], multi_label=True)
    return found


def _slots(name: str, expert: type[Expert] | Expert) -> Iterator[Slot]:
    for slot, channels in expert.slots.items():
        if wrong_with(slot) is not None:
            raise AstreaError(
                f"expert {name!r}: {shortened(repr(slot))} is no name for a slot",
                "use a word of letters, such as thing",
            )
        whole = isinstance(channels, tuple) and len(channels) == 2 and all(type(at) is int for at in channels)
        if not whole or not 0 <= channels[0] < channels[1] <= expert.width:
            raise AstreaError(
                f"expert {name!r}: slot {slot!r} is {shortened(repr(channels))}, and there are {expert.width} channels",
                "a slot is its first channel and the one behind its last, such as (0, 80)",
            )
        named = [label is not None for label in expert.labels[slice(*channels)]]
        if any(named) and slot == TEXT:
            raise AstreaError(
                f"expert {name!r}: {sum(named)} of the {len(named)} channels of slot {slot!r} have names",
                "its channels are ids of word pieces: label them None, or call the slot something else",
            )
        kind: Literal["words", "feature", "text"] = "text" if slot == TEXT else "words" if any(named) else "feature"
        yield Slot(slot, channels[0], channels[1], kind)


def _read(name: str, phrase: str, slots: dict[str, Slot]) -> Phrase:
    where = f"expert {name!r}: the phrase {shortened(repr(phrase))}"
    found: list[str | Slot] = []
    try:
        pieces = list(Formatter().parse(phrase))
    except ValueError as error:
        raise AstreaError(f"{where} cannot be read: {error}", "write a slot as {name}, and a brace twice") from error
    for literal, field, spec, conversion in pieces:
        if literal.strip():
            found.append(literal)
        if field is None:
            continue
        if field not in slots or conversion:
            known = ", ".join(slots) or "none"
            raise AstreaError(f"{where} has no slot {field!r}", f"the expert's slots: {known}; write one as {{name}}")
        slot = slots[field]
        if spec == COUNT and slot.kind == "feature" and replace(slot, written=True) in found:
            found.append(replace(slot, kind="count"))
            continue
        if spec and (spec != NAME or slot.kind == "text"):
            hint = f"{{slot:{NAME}}} is known, of words or features, and {{slot:{COUNT}}} behind that of features"
            raise AstreaError(f"{where} cannot write {field!r} as {shortened(spec)!r}", hint)
        found.append(replace(slot, written=bool(spec)))
    used = [part for part in found if isinstance(part, Slot) and part.kind != "count"]
    if not used:
        raise AstreaError(f"{where} has no slot", "write what the expert found as {name}")
    channels = [channel for slot in used for channel in range(slot.start, slot.stop)]
    if len(set(channels)) < len(channels):
        raise AstreaError(f"{where} uses a channel twice", "every channel stands in one slot of a phrase")
    return tuple(found)
