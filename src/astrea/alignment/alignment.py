"""All adapters side by side: from every expert's features to the expert matrix, and the contrast heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from astrea.alignment.adapter import Adapter
from astrea.alignment.heads import PictureHead, TextHead
from astrea.alignment.matrix import ExpertMatrix
from astrea.experts.protocol import ExpertFeatures


class Alignment(nn.Module):
    """Adapters and heads: everything that `align` trains, and everything that has a momentum copy.

    Args:
        shapes: expert name -> (tokens, width), in the order of the expert matrix.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, int]], *, hidden: int, model_width: int, contrast: int) -> None:
        super().__init__()
        self.names = list(shapes)
        self.adapters = nn.ModuleDict(
            {name: Adapter(width, hidden, model_width) for name, (_, width) in shapes.items()}
        )
        self.picture_head = PictureHead(model_width, contrast)
        self.text_head = TextHead(model_width, contrast)
        # Plain numbers, not a buffer: from_pretrained leaves buffers that are not in the file uninitialised.
        self.counts = [tokens for tokens, _ in shapes.values()]

    def forward(self, features: Mapping[str, ExpertFeatures], present_BE: Tensor | None = None) -> ExpertMatrix:
        """The expert matrix of a batch. Experts missing from ``features`` or not in ``present_BE`` are absent, and so
        are, for the picture concerned, those that say NaN or infinity."""
        found = next(iter(features.values())).confidence
        first: Adapter = self.adapters[self.names[0]]  # type: ignore[assignment]
        weight = first.mixture.weight
        # Not where the weights are: those that come from the disk as they are used are nowhere.
        own: dict[str, Any] = {"dtype": weight.dtype, "device": found.device}
        columns, sure, places = [], [], []
        sound = torch.ones(len(found), len(self.names), dtype=torch.bool, device=found.device)
        for index, name in enumerate(self.names):
            # Without a place: not a number, which no comparison below ever takes for one.
            where = torch.full((len(found), self.counts[index], 2), float("nan"), **own)
            if name in features:
                # What is not read must be harmless: zero times NaN is NaN, and a broken expert may well say NaN.
                part = features[name]
                filled = part.confidence > 0
                broken = (filled & ~part.tokens.isfinite().all(-1)) | ~part.confidence.isfinite()
                sound[:, index] = ~broken.any(1)
                unread = ~filled | broken.any(1, keepdim=True)
                if present_BE is not None:
                    unread = unread | ~present_BE[:, index : index + 1]
                said = part.tokens.masked_fill(unread.unsqueeze(-1), 0)
                columns.append(self.adapters[name](said.to(weight.dtype)))
                sure.append(part.confidence.masked_fill(unread, 0).to(weight.dtype))
                if part.places is not None:
                    where = part.places.to(weight.dtype).masked_fill(unread.unsqueeze(-1), float("nan"))
            else:
                columns.append(torch.zeros(len(found), self.counts[index], weight.shape[0], **own))
                sure.append(torch.zeros(len(found), self.counts[index], **own))
            places.append(where)
        here = [name in features for name in self.names]
        confidence = torch.cat(sure, 1)
        present = torch.tensor(here, device=confidence.device).expand(len(found), -1)
        owner = [index for index, count in enumerate(self.counts) for _ in range(count)]
        expert = torch.tensor(owner, device=confidence.device)
        matrix = ExpertMatrix(torch.cat(columns, 1), confidence, confidence > 0, present, expert, torch.cat(places, 1))
        return matrix.with_presence(sound if present_BE is None else sound & present_BE)

    def only(self, matrix: ExpertMatrix, index: int) -> Tensor:
        """Which tokens of the matrix are valid and belong to expert ``index``: (B, T) bool."""
        return matrix.valid & (matrix.expert == index)
