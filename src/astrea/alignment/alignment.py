"""All adapters side by side: from every expert's features to the expert matrix, and the contrast heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from astrea.alignment.adapter import Adapter
from astrea.alignment.heads import PictureHead, TextHead
from astrea.alignment.matrix import ExpertMatrix
from astrea.alignment.phrases import NONE, Phrased, PhraseTokens
from astrea.experts.protocol import ExpertFeatures

Columns = tuple[Tensor, Tensor, Tensor, Tensor]


class Alignment(nn.Module):
    """Adapters and heads: everything that `align` trains, and everything that has a momentum copy.

    Args:
        shapes: expert name -> (tokens, width), in the order of the expert matrix.
        phrases: every expert's adapter where findings enter as phrases; None = each is one token.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        *,
        hidden: int,
        model_width: int,
        contrast: int,
        phrases: Mapping[str, Phrased] | None = None,
    ) -> None:
        super().__init__()
        self.names = list(shapes)
        self.width, self.has_phrases = model_width, phrases is not None
        self.adapters = nn.ModuleDict(
            {name: Adapter(width, hidden, model_width) for name, (_, width) in shapes.items()}
            if phrases is None
            else phrases
        )
        self.picture_head = PictureHead(model_width, contrast)
        self.text_head = TextHead(model_width, contrast)
        # Plain numbers, not a buffer: from_pretrained leaves buffers that are not in the file uninitialised.
        self.each = [1] * len(shapes) if phrases is None else [phrases[name].count for name in shapes]
        self.counts = [tokens * each for (tokens, _), each in zip(shapes.values(), self.each, strict=True)]

    def forward(self, features: Mapping[str, ExpertFeatures], present_BE: Tensor | None = None) -> ExpertMatrix:
        """The expert matrix of a batch. Experts missing from ``features`` or not in ``present_BE`` are absent, and so
        are, for the picture concerned, those that say NaN or infinity."""
        found = next(iter(features.values())).confidence
        # In written findings nothing learns: then the head says which type this is kept in.
        dtype = next(iter(self.adapters.parameters()), self.picture_head.norm.weight).dtype
        columns = []
        sound = torch.ones(len(found), len(self.names), dtype=torch.bool, device=found.device)
        for index, name in enumerate(self.names):
            if name not in features:
                columns.append(self._absent(index, found, dtype))
                continue
            # What is not read must be harmless: zero times NaN is NaN, and a broken expert may well say NaN.
            part = features[name]
            filled = part.confidence > 0
            broken = (filled & ~part.tokens.isfinite().all(-1)) | ~part.confidence.isfinite()
            sound[:, index] = ~broken.any(1)
            unread = ~filled | broken.any(1, keepdim=True)
            if present_BE is not None:
                unread = unread | ~present_BE[:, index : index + 1]
            columns.append(self._read(index, part, unread, dtype))
        here = [name in features for name in self.names]
        tokens, confidence, places, ids = (torch.cat(each, 1) for each in zip(*columns, strict=True))
        present = torch.tensor(here, device=confidence.device).expand(len(found), -1)
        owner = [index for index, count in enumerate(self.counts) for _ in range(count)]
        expert = torch.tensor(owner, device=confidence.device)
        matrix = ExpertMatrix(tokens, confidence, confidence > 0, present, expert, places)
        if self.has_phrases:
            matrix = replace(
                matrix,
                ids=ids,
                features=torch.tensor(self._per_token("features"), dtype=torch.bool, device=confidence.device),
                phrase=torch.tensor(self._per_token("phrase"), dtype=torch.long, device=confidence.device),
                piece=torch.tensor(self._per_token("piece"), dtype=torch.long, device=confidence.device),
            )
        return matrix.with_presence(sound if present_BE is None else sound & present_BE)

    def _read(self, index: int, part: ExpertFeatures, unread_BT: Tensor, dtype: torch.dtype) -> Columns:
        """The tokens of an expert, their confidence and places, and which words of the language model's they are."""
        adapter, each = self.adapters[self.names[index]], self.each[index]
        said = part.tokens.masked_fill(unread_BT.unsqueeze(-1), 0)
        confidence = part.confidence.masked_fill(unread_BT, 0).to(dtype)
        # Without a place: not a number, which no comparison below ever takes for one.
        places = torch.full((*confidence.shape, 2), float("nan"), dtype=dtype, device=confidence.device)
        if part.places is not None:
            places = part.places.to(dtype).masked_fill(unread_BT.unsqueeze(-1), float("nan"))
        if not self.has_phrases:
            return adapter(said.to(dtype)), confidence, places, torch.full_like(unread_BT, NONE, dtype=torch.long)
        made: PhraseTokens = adapter(said, confidence, places)
        confidence = confidence.repeat_interleave(each, 1) * made.read
        return made.tokens.to(dtype), confidence, places.repeat_interleave(each, 1), made.ids

    def _absent(self, index: int, like_BT: Tensor, dtype: torch.dtype) -> Columns:
        """The same of an expert that says nothing."""
        # Not where the weights are: those that come from the disk as they are used are nowhere.
        none = torch.zeros(len(like_BT), self.counts[index], dtype=dtype, device=like_BT.device)
        unplaced = torch.full((*none.shape, 2), float("nan"), dtype=dtype, device=like_BT.device)
        return (
            none.unsqueeze(-1).expand(-1, -1, self.width),
            none,
            unplaced,
            torch.full_like(none, NONE, dtype=torch.long),
        )

    def _per_token(self, what: str) -> list[Any]:
        """Something that every expert's adapter says of a finding's tokens, for all tokens of the matrix."""
        parts = zip(self.names, self.counts, self.each, strict=True)
        return [v for name, count, each in parts for v in getattr(self.adapters[name], what) * (count // max(1, each))]

    def only(self, matrix: ExpertMatrix, index: int) -> Tensor:
        """Which tokens of the matrix are valid and belong to expert ``index``: (B, T) bool."""
        return matrix.valid & (matrix.expert == index)
