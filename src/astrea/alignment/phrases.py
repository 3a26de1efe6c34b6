"""Adapters that write a finding as a phrase: several tokens in the language model's own grammar instead of one sum.

"[feature] top left ;" says what one vector of a sum of words says, and a language model reads it like any text. The
tokens of words that are written as they are (literal texts, word pieces, names) are only named here, by id: their
embeddings are the language model's, which knows them.

Letters: B pictures, T findings of this expert, C its width, K tokens of a finding, D language-model width, N channels
of a slot, P pieces of the longest name, R channels of the residual.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.alignment.adapter import Adapter
from astrea.alignment.phrase_ids import COUNT_PIECES, MOST_PIECES, Ids, PhraseIds, SpelledPhrase
from astrea.experts.phrases import Slot
from astrea.experts.protocol import Expert

FREQUENCIES = 5
"""Octaves in which a place is written for the residual: half a picture to a thirty-second."""

NONE = -1
"""The id where there is no token of the language model's own."""

COUNTED = -2
"""The piece that a number of findings with the same known word begins at."""

MOST_LABELS = 6
"""Names that are written out of a finding with several: as many as things in a drawn scene."""

SHORTEST = 1e-6
"""Mixtures of words that are shorter than this are left as short, so that nothing is divided by zero."""


@dataclass(frozen=True, slots=True)
class PhraseTokens:
    """The tokens of an expert's findings, finding by finding.

    tokens: (B, T * K, D), what is to be added to the embeddings of ``ids``. ids: (B, T * K) long, `NONE` for tokens
    that are no words of the language model's own. read: (B, T * K) bool, false where there is nothing to read.
    """

    tokens: Tensor
    ids: Tensor
    read: Tensor


class WordMixture(nn.Module):
    """A slot whose channels have names: the mixture of their words, as long as one word."""

    def __init__(self, channels: int, model_width: int, scale: float) -> None:
        super().__init__()
        self.mixture = nn.Linear(channels, model_width, bias=False)
        self.scale = scale

    def forward(self, weight_BTN: Tensor) -> Tensor:
        return as_long_as(self.mixture(weight_BTN), self.scale)


class FeatureToken(nn.Module):
    """A slot whose channels have no names: what an MLP makes of them, as long as one word."""

    def __init__(self, channels: int, hidden: int, model_width: int, scale: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, model_width)
        )
        self.scale = scale

    def forward(self, features_BTN: Tensor) -> Tensor:
        return as_long_as(self.layers(features_BTN), self.scale)


class PhraseAdapter(nn.Module):
    """Every finding as its expert's phrases, one after another. Slots that are written out give the likeliest name, or
    every likely one where several may hold.

    What no slot says (the exact place, the confidence, channels that stand in no phrase) is a residual of each phrase's
    first slot, or of the next one where that is to be a known word; it starts at nothing. Of a known word only the
    vector is made here that says which one it is (`astrea.alignment.known_words`). A phrase whose first slot says
    nothing (no weight on any name, no text, features of nothing but zeros) is not read.

    Args:
        names: by written slot, the tokens of every channel's name.

    Attributes:
        count: K. features: K booleans, which tokens are made of channels without names. phrase: K numbers, which of
            the expert's phrases a token is of. piece: K numbers, which piece of a known word a token is for,
            `COUNTED` for the first one of a number of findings with that word, `NONE` for others.
    """

    def __init__(
        self,
        phrases: Sequence[SpelledPhrase],
        width: int,
        names: Mapping[str, Sequence[Ids]],
        *,
        hidden: int,
        model_width: int,
        scale: float,
    ) -> None:
        super().__init__()
        self.phrases, self.model_width = tuple(phrases), model_width
        # Lists, no buffers: a model that is loaded leaves buffers that are in no file uninitialised.
        self.names = {slot: padded(some) for slot, some in names.items()}
        parts_of = [part for phrase in phrases for part in phrase if isinstance(part, Slot)]
        slots = {part.name: part for part in parts_of if part.kind != "count"}
        self.slots = nn.ModuleDict()
        for slot in slots.values():
            channels = slot.stop - slot.start
            if slot.kind == "words" and not slot.written:
                self.slots[slot.name] = WordMixture(channels, model_width, scale)
            elif slot.kind == "feature":
                self.slots[slot.name] = FeatureToken(channels, hidden, model_width, scale)
        said = {channel for slot in slots.values() for channel in range(slot.start, slot.stop)}
        self.rest = [channel for channel in range(width) if channel not in said]
        self.residuals = nn.ModuleList(
            nn.Linear(4 * FREQUENCIES + 1 + len(self.rest), model_width) for _ in self.phrases
        )
        for residual in self.residuals:
            nn.init.zeros_(residual.weight)  # type: ignore[arg-type]
            nn.init.zeros_(residual.bias)  # type: ignore[arg-type]
        lengths = [[_length(part, self.names) for part in phrase] for phrase in phrases]
        parts = [
            (part, number)
            for phrase, some in zip(phrases, lengths, strict=True)
            for part, length in zip(phrase, some, strict=True)
            for number in range(length)
        ]
        # Of a known word the first piece holds the vector that says which one it is.
        self.features = [isinstance(part, Slot) and part.kind == "feature" and not number for part, number in parts]
        self.piece = [_piece(part, number) for part, number in parts]
        self.phrase = [number for number, some in enumerate(lengths) for _ in range(sum(some))]
        self.count = len(self.phrase)

    @torch.no_grad()
    def start_at_words(self, words_CD: Tensor) -> None:
        """Start every slot that mixes names at the mixture of their word embeddings (C, D)."""
        for slot in (part for phrase in self.phrases for part in phrase if isinstance(part, Slot)):
            if slot.kind == "words" and not slot.written:
                mixture: nn.Linear = self.slots[slot.name].mixture  # type: ignore[assignment]
                mixture.weight.copy_(words_CD[slot.start : slot.stop].T)

    def forward(self, features_BTC: Tensor, confidence_BT: Tensor, places_BT2: Tensor) -> PhraseTokens:
        """The tokens.

        Args:
            features_BTC: ids of word pieces as exact as the expert gave them.
            places_BT2: NaN for findings without a place.
        """
        dtype = next(self.parameters()).dtype
        x_BTC = features_BTC.to(dtype)
        rest = [place_code(places_BT2.to(dtype)), confidence_BT.to(dtype).unsqueeze(-1), x_BTC[..., self.rest]]
        rest_BTR = torch.cat(rest, -1)
        made = [
            self._write(phrase, residual(rest_BTR), features_BTC, x_BTC)
            for phrase, residual in zip(self.phrases, self.residuals, strict=True)
        ]
        return joined(made)

    def _write(
        self, phrase: SpelledPhrase, residual_BTD: Tensor, features_BTC: Tensor, x_BTC: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One phrase of every finding: tokens (B, T, k, D), ids and whether they are read (B, T, k)."""
        columns: list[tuple[Tensor, Tensor, Tensor]] = []
        for part in phrase:
            if not isinstance(part, Slot):
                columns.append(literal(part, x_BTC, self.model_width))
            elif part.kind == "count":
                columns.append(literal((NONE,) * COUNT_PIECES, x_BTC, self.model_width))
            elif part.kind == "text":
                columns.append(pieces(features_BTC[..., part.start : part.stop], x_BTC, self.model_width))
            elif part.written and not part.is_spelled:
                columns.append(pieces(written_out(part, self.names, features_BTC), x_BTC, self.model_width))
            else:
                channels = x_BTC[..., part.start : part.stop]
                token = self.slots[part.name](channels).unsqueeze(2)
                said = (channels != 0).any(-1, keepdim=True)
                column = (token, torch.full_like(said, NONE, dtype=torch.long), said)
                columns.append(with_room(column, MOST_PIECES) if part.is_spelled else column)
        return as_phrase(phrase, columns, residual_BTD)


class WrittenAdapter(nn.Module):
    """Every finding written out in words: of every slot the likeliest name, or every likely one where several may hold.
    Nothing in it learns.

    Args:
        names: by slot, the tokens of every channel's name.

    Attributes: see `PhraseAdapter`.
    """

    def __init__(
        self, phrases: Sequence[SpelledPhrase], names: dict[str, tuple[Ids, ...]], *, model_width: int
    ) -> None:
        super().__init__()
        self.phrases, self.model_width = tuple(phrases), model_width
        self.names = {slot: padded(some) for slot, some in names.items()}
        lengths = [[_length(part, self.names) for part in phrase] for phrase in phrases]
        self.phrase = [number for number, some in enumerate(lengths) for _ in range(sum(some))]
        self.count = len(self.phrase)
        self.features, self.piece = [False] * self.count, [NONE] * self.count

    def start_at_words(self, words_CD: Tensor) -> None:
        """Nothing to start."""

    def forward(self, features_BTC: Tensor, confidence_BT: Tensor, places_BT2: Tensor) -> PhraseTokens:
        """The tokens, as `PhraseAdapter` gives them."""
        made = []
        for phrase in self.phrases:
            columns = []
            for part in phrase:
                if not isinstance(part, Slot):
                    columns.append(literal(part, features_BTC, self.model_width))
                    continue
                if part.kind == "text":
                    ids = features_BTC[..., part.start : part.stop]
                else:
                    ids = written_out(part, self.names, features_BTC)
                columns.append(pieces(ids, features_BTC, self.model_width))
            made.append(as_phrase(phrase, columns, None))
        if made:
            return joined(made)
        nothing = features_BTC.new_zeros(len(features_BTC), 0)
        return PhraseTokens(nothing.unsqueeze(-1).expand(-1, -1, self.model_width), nothing.long(), nothing.bool())


class WordLongAdapter(nn.Module):
    """One token a finding, as long as a word: for experts without phrases among others that have some."""

    count = 1

    def __init__(self, width: int, *, hidden: int, model_width: int, scale: float) -> None:
        super().__init__()
        self.adapter, self.scale = Adapter(width, hidden, model_width), scale
        self.features, self.phrase, self.piece = [True], [0], [NONE]

    def start_at_words(self, words_CD: Tensor) -> None:
        """As `Adapter.start_at_words`."""
        self.adapter.start_at_words(words_CD)

    def forward(self, features_BTC: Tensor, confidence_BT: Tensor, places_BT2: Tensor) -> PhraseTokens:
        """The tokens, as `PhraseAdapter` gives them."""
        tokens = as_long_as(self.adapter(features_BTC.to(self.adapter.mixture.weight.dtype)), self.scale)
        ids = torch.full(tokens.shape[:2], NONE, device=tokens.device)
        return PhraseTokens(tokens, ids, torch.ones_like(ids, dtype=torch.bool))


Phrased = PhraseAdapter | WrittenAdapter | WordLongAdapter
"""Whatever makes phrases of findings."""


def phrase_adapter(
    name: str, expert: Expert, ids: PhraseIds, findings: str, *, hidden: int, model_width: int
) -> Phrased:
    """The adapter of an expert whose findings enter as phrases, or written out.

    Raises:
        AstreaError: see `PhraseIds.of`.
    """
    phrases = ids.of(name, expert)
    if findings == "written":
        return WrittenAdapter(phrases, ids.names.get(name, {}), model_width=model_width)
    if not phrases:
        return WordLongAdapter(expert.width, hidden=hidden, model_width=model_width, scale=ids.scale)
    names = ids.names.get(name, {})
    return PhraseAdapter(phrases, expert.width, names, hidden=hidden, model_width=model_width, scale=ids.scale)


def as_long_as(tokens: Tensor, scale: float) -> Tensor:
    """Vectors in their directions, with the length of a word."""
    return F.normalize(tokens, dim=-1, eps=SHORTEST * scale) * scale


def place_code(places_BT2: Tensor) -> Tensor:
    """Sines and cosines of a place: (B, T, 2) -> (B, T, 4 * `FREQUENCIES`); zeros where there is none."""
    octaves = 2.0 ** torch.arange(FREQUENCIES, device=places_BT2.device, dtype=places_BT2.dtype) * math.pi
    angle = (places_BT2.nan_to_num(0.0).unsqueeze(-1) * octaves).flatten(-2)
    known_BT1 = ~places_BT2.isnan().any(-1, keepdim=True)
    return torch.cat([angle.sin(), angle.cos()], -1) * known_BT1


def literal(ids: Ids, like_BTC: Tensor, model_width: int) -> tuple[Tensor, Tensor, Tensor]:
    """A literal text behind every finding."""
    row = torch.tensor(ids, device=like_BTC.device).expand(*like_BTC.shape[:2], -1)
    return pieces(row, like_BTC, model_width)


def pieces(ids_BTk: Tensor, like_BTC: Tensor, model_width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Word pieces of every finding, `NONE` where there are fewer."""
    ids_BTk = ids_BTk.round().long() if ids_BTk.is_floating_point() else ids_BTk
    read_BTk = ids_BTk >= 0
    tokens = like_BTC.new_zeros(*ids_BTk.shape, model_width)
    return tokens, ids_BTk.masked_fill(~read_BTk, NONE), read_BTk


def with_room(column: tuple[Tensor, Tensor, Tensor], pieces: int) -> tuple[Tensor, Tensor, Tensor]:
    """A token of every finding, and behind it room for so many pieces of a word in all, which are not read yet."""
    tokens, ids, read = column
    more = pieces - 1
    return F.pad(tokens, (0, 0, 0, more)), F.pad(ids, (0, more), value=NONE), F.pad(read, (0, more), value=False)


def as_phrase(
    phrase: SpelledPhrase, columns: Sequence[tuple[Tensor, Tensor, Tensor]], residual_BTD: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The parts of a phrase one after another; nothing is read where its first slot says nothing."""
    slots = [number for number, part in enumerate(phrase) if isinstance(part, Slot)]
    first = slots[0]
    tokens, ids, read = (list(each) for each in zip(*columns, strict=True))
    said_BT1 = read[first][..., :1]
    if residual_BTD is not None:
        free = next((number for number in slots if not _is_known(phrase[number])), first)
        rest = tokens[free][:, :, 1:]
        tokens[free] = torch.cat([tokens[free][:, :, :1] + residual_BTD.unsqueeze(2), rest], 2)
    return torch.cat(tokens, 2), torch.cat(ids, 2), torch.cat(read, 2) & said_BT1


def joined(phrases: Sequence[tuple[Tensor, Tensor, Tensor]]) -> PhraseTokens:
    """The phrases of every finding one after another, finding by finding."""
    tokens, ids, read = (torch.cat(each, 2).flatten(1, 2) for each in zip(*phrases, strict=True))
    return PhraseTokens(tokens, ids, read)


def padded(names: Sequence[Ids]) -> list[list[int]]:
    """The tokens of names, as many for each: `NONE` behind those of short ones."""
    longest = max(map(len, names))
    return [[*ids, *[NONE] * (longest - len(ids))] for ids in names]


def likeliest(names: list[list[int]], weight_BTN: Tensor) -> Tensor:
    """The tokens (B, T, P) of each finding's likeliest name; `NONE` where no name has a weight."""
    names_NP = torch.tensor(names, device=weight_BTN.device)
    return names_NP[weight_BTN.argmax(-1)].masked_fill((weight_BTN == 0).all(-1, keepdim=True), NONE)


def likely(names: list[list[int]], weight_BTN: Tensor) -> Tensor:
    """The tokens (B, T, `MOST_LABELS` * P, or fewer names) of every name that is more likely than not, likeliest
    first."""
    names_NP = torch.tensor(names, device=weight_BTN.device)
    named = weight_BTN.masked_fill(names_NP[:, 0] == NONE, 0)
    top = named.topk(min(MOST_LABELS, len(names)), sorted=True)
    return names_NP[top.indices].masked_fill(top.values.unsqueeze(-1) <= 0.5, NONE).flatten(-2)


def written_out(slot: Slot, names: Mapping[str, list[list[int]]], features_BTC: Tensor) -> Tensor:
    """The tokens of a slot's names in every finding."""
    weight_BTN = features_BTC[..., slot.start : slot.stop]
    return (likely if slot.multi_label else likeliest)(names[slot.name], weight_BTN)


def _length(part: Slot | Ids, names: Mapping[str, list[list[int]]]) -> int:
    """How many tokens a part of a phrase is."""
    if not isinstance(part, Slot):
        return len(part)
    if part.kind == "count":
        return COUNT_PIECES
    if part.is_spelled:
        return MOST_PIECES
    if part.name in names:
        pieces_of_one = len(names[part.name][0])
        return pieces_of_one * min(MOST_LABELS, len(names[part.name])) if part.multi_label else pieces_of_one
    return part.stop - part.start if part.kind == "text" else 1


def _is_known(part: Slot | Ids) -> bool:
    """Whether a part is a known word, or a number of findings with it."""
    return isinstance(part, Slot) and (part.is_spelled or part.kind == "count")


def _piece(part: Slot | Ids, number: int) -> int:
    """What `PhraseAdapter.piece` says of a token: the ``number``-th of a part of a phrase."""
    if not isinstance(part, Slot) or not _is_known(part):
        return NONE
    if part.is_spelled:
        return number
    return NONE if number else COUNTED
