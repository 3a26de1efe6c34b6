"""What a language model's tokenizer makes of the experts' phrases: literal texts, and names that are written out.

It is worked out once, when a model is assembled, and lies in its configuration: a saved model needs no tokenizer to
read its phrases, and keeps them when an expert's class says them otherwise later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn
from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.experts.phrases import COUNT, Phrase, Slot, has_features, read_phrases, slots_of
from astrea.experts.protocol import Expert
from astrea.language.labels import BEFORE, inside_a_sentence
from astrea.language.whole_words import MOST

FINDINGS = ("tokens", "phrases", "written")
"""How a finding can enter the language model."""

MOST_PIECES = 4
"""Tokens of a name that is written out in a phrase: every finding has room for so many."""

COUNT_PIECES, MOST_COUNTED = 2, 9
"""Tokens of a number of findings with one word, and the largest one that is said."""

ROWS = 4096
"""Word embeddings that are looked at in one go."""

COUNT_END = f":{COUNT}"
"""Ends a slot's name in a phrase where it is counted."""

Id = Annotated[int, Field(ge=0, strict=True)]
Ids = tuple[Id, ...]
SpelledPhrase = tuple[Slot | Ids, ...]
"""A phrase with its literal texts as tokens."""


class PhraseIds(BaseModel):
    """The phrases of a model's experts in tokens.

    scale: the mean length of a word's embedding, which the tokens of slots are given. phrases: by expert; of every
    phrase the slots' names and the tokens of its literal texts, in reading order. names: by expert and slot, the tokens
    of every channel's name, of slots that are written out. spelled: by expert, the slots of features that are written
    out as the nearest known word. known: the tokens of every word that features are taught, spelling: those that it is
    written out with, counts: those of the numbers from 1. usual: by expert, mean and deviation of its features'
    cosines with known words, and least: how near to one of them its features have to be, see
    `astrea.alignment.known_words`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float = Field(gt=0, allow_inf_nan=False)
    phrases: dict[str, tuple[tuple[str | Ids, ...], ...]]
    names: dict[str, dict[str, tuple[Ids, ...]]] = {}
    spelled: dict[str, tuple[str, ...]] = {}
    known: tuple[Annotated[Ids, Field(min_length=1)], ...] = Field((), max_length=MOST)
    spelling: tuple[Annotated[Ids, Field(min_length=1, max_length=MOST_PIECES)], ...] = Field((), max_length=MOST)
    counts: tuple[Annotated[Ids, Field(min_length=1, max_length=COUNT_PIECES)], ...] = Field(
        (), max_length=MOST_COUNTED
    )
    usual: dict[str, tuple[Annotated[float, Field(ge=-1, le=1)], Annotated[float, Field(gt=0, le=1)]]] = {}
    least: dict[str, Annotated[float, Field(ge=-1e3, le=1e3)]] = {}

    def of(self, name: str, expert: type[Expert] | Expert) -> tuple[SpelledPhrase, ...]:
        """The phrases of one expert.

        Raises:
            AstreaError: they name a slot that the expert does not have, or have more or fewer names than its channels.
        """
        slots = slots_of(name, expert)
        phrases = self.phrases.get(name, ())
        for part in (part.removesuffix(COUNT_END) for phrase in phrases for part in phrase if isinstance(part, str)):
            said = self.names.get(name, {}).get(part)
            if part not in slots or (said is not None and len(said) != slots[part].stop - slots[part].start):
                raise AstreaError(
                    f"the configuration's phrases of expert {name!r} do not fit its slot {part!r}",
                    "load the model with the version of the expert that it was made with",
                )
        written = {*self.names.get(name, {}), *self.spelled.get(name, ())}
        found = {slot.name: replace(slot, written=slot.name in written) for slot in slots.values()}
        found |= {f"{slot.name}{COUNT_END}": replace(slot, kind="count") for slot in slots.values()}
        return tuple(tuple(found[p] if isinstance(p, str) else p for p in phrase) for phrase in phrases)


def check_phrase_ids(written: Any, vocabulary: int) -> PhraseIds | None:
    """What a configuration says of phrases, as it was written by somebody; None = nothing.

    Args:
        vocabulary: how many words the language model has.

    Raises:
        AstreaError: it is malformed, or holds a token that is none of the language model's.
    """
    if written is None:
        return None
    hint = "it is what `astrea train` wrote into config.json; copy or download the folder again"
    try:
        found = PhraseIds.model_validate(written)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("phrase_ids", *first["loc"])))
        raise AstreaError(f"{where:.80} of the configuration: {first['msg']}", hint) from error
    literal = [part for phrases in found.phrases.values() for phrase in phrases for part in phrase]
    named = [ids for slots in found.names.values() for names in slots.values() for ids in names]
    if found.spelling and len(found.spelling) != len(found.known):
        raise AstreaError(
            f"phrase_ids of the configuration: {len(found.known)} known words, the spelling of {len(found.spelling)}",
            hint,
        )
    every = [
        ids for ids in [*literal, *named, *found.known, *found.spelling, *found.counts] if not isinstance(ids, str)
    ]
    largest = max((token for ids in every for token in ids), default=0)
    if largest >= vocabulary:
        raise AstreaError(
            f"phrase_ids of the configuration holds the token {largest}, the language model has {vocabulary}", hint
        )
    return found


def spell(
    findings: str, experts: Mapping[str, type[Expert] | Expert], tokenizer: PreTrainedTokenizerBase, scale: float
) -> PhraseIds | None:
    """The phrases of a model's experts in tokens; None where findings enter as single tokens.

    Args:
        findings: one of `FINDINGS`. Written out are the phrases that have words for everything.
        scale: see `word_scale`.

    Raises:
        AstreaError: a declaration does not fit together, or nothing can be written out.
    """
    if findings == "tokens":
        return None
    all_written = findings == "written"
    phrases: dict[str, tuple[Phrase, ...]] = {}
    names: dict[str, dict[str, tuple[Ids, ...]]] = {}
    nearest_to: dict[str, tuple[str, ...]] = {}
    for name, expert in experts.items():
        declared = read_phrases(name, expert)
        if all_written:
            declared = tuple(phrase for phrase in declared if not has_features(phrase))
        worded = [part for phrase in declared for part in phrase if isinstance(part, Slot) and part.kind == "words"]
        # Of several labels one follows another, so they are words inside a sentence.
        begun = {part.name for part, *_ in declared if isinstance(part, Slot) and not part.multi_label}
        first, most = (set(), None) if all_written else (begun, MOST_PIECES)
        out = {
            slot.name: tuple(
                () if label is None else name_ids(label, tokenizer, most, first=slot.name in first)
                for label in expert.labels[slot.start : slot.stop]
            )
            for slot in worded
            if slot.written or all_written
        }
        if out or all_written:
            names[name] = out
        phrases[name] = declared
        nearest = [part.name for phrase in declared for part in phrase if isinstance(part, Slot) and part.is_spelled]
        if nearest:
            nearest_to[name] = tuple(nearest)
    if all_written and not any(phrases.values()):
        raise AstreaError(
            f"none of the experts {', '.join(experts)} can be written out: they declare no phrase of words",
            "declare phrases (astrea.Expert.phrases), or set model.findings=phrases",
        )
    spelled = {name: tuple(_spelled(phrase, tokenizer) for phrase in some) for name, some in phrases.items()}
    has_counts = any(_is_count(part) for some in phrases.values() for phrase in some for part in phrase)
    numbers = range(1, MOST_COUNTED + 1) if has_counts else ()
    counts = tuple(name_ids(str(number), tokenizer, COUNT_PIECES) for number in numbers)
    return PhraseIds(scale=scale, phrases=spelled, names=names, spelled=nearest_to, counts=counts)


def name_ids(name: str, tokenizer: PreTrainedTokenizerBase, most: int | None, *, first: bool = False) -> Ids:
    """The tokens of a name inside a sentence. Of one that has more than ``most``, those of its last words, which say
    what it is.

    Args:
        first: as at the beginning of a text: an answer that is a name begins with these tokens, and can repeat them
            from a phrase that does.
    """

    def tokens(text: str) -> list[int]:
        if first:
            return list(tokenizer(text, add_special_tokens=False).input_ids)
        return inside_a_sentence(text, tokenizer)

    words = name.split()
    found = tokens(name)
    while most is not None and len(found) > most and len(words) > 1:
        words = words[1:]
        found = tokens(" ".join(words))
    return tuple(found[:most])


def _spelled(phrase: Phrase, tokenizer: PreTrainedTokenizerBase) -> tuple[str | Ids, ...]:
    """The words of slots bring the space before them along, as words inside a sentence do; so a literal text has none
    at its end, and the first one of a phrase, which stands behind another phrase, has one at its beginning."""
    found: list[str | Ids] = []
    for number, part in enumerate(phrase):
        if isinstance(part, Slot):
            found.append(f"{part.name}{COUNT_END}" if _is_count(part) else part.name)
            continue
        text = part.rstrip(" ")
        found.append(tuple(behind_a_word(text if number or text[:1].isspace() else f" {text}", tokenizer)))
    return tuple(found)


def _is_count(part: str | Slot) -> bool:
    return isinstance(part, Slot) and part.kind == "count"


def behind_a_word(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens of a text as it stands behind a word, with or without a space between the two."""
    before = list(tokenizer(BEFORE, add_special_tokens=False).input_ids)
    whole = list(tokenizer(f"{BEFORE}{text}", add_special_tokens=False).input_ids)
    if whole[: len(before)] == before and len(whole) > len(before):
        return whole[len(before) :]
    return list(tokenizer(text, add_special_tokens=False).input_ids)


@torch.no_grad()
def word_scale(embedding: nn.Module, words: int) -> float:
    """The mean length of a word's embedding, as the language model's embedding module gives it.

    Args:
        words: how many rows are the tokenizer's; a table may have more.
    """
    rows = torch.arange(words).split(ROWS)
    return float(sum(embedding(ids).float().norm(dim=-1).sum() for ids in rows) / words)
