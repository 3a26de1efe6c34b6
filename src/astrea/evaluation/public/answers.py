"""A model answering the items of a task: every picture is looked at once, all that is asked about it in one go.

Letters: N pictures, C captions, P contrast width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from astrea.evaluation.answering import Answerer, Features
from astrea.evaluation.public.items import Item
from astrea.processor import AstreaProcessor

Tick = Callable[[int, int], None]


class Viewer:
    """A model with its processor, working in batches.

    Args:
        answerer: the model at work. processor: reads the pictures.
    """

    def __init__(self, answerer: Answerer, processor: AstreaProcessor) -> None:
        self.answerer, self.processor, self.model = answerer, processor, answerer.model

    @property
    def batch(self) -> int:
        """How many pictures, questions or texts at a time."""
        return self.answerer.batch

    @torch.inference_mode()
    def look(self, pictures: Sequence[Path]) -> Features:
        """Every expert's features of some pictures.

        Raises:
            AstreaError: a picture cannot be read; names it.
        """
        pixels = self.processor(images=[str(path) for path in pictures])["pixel_values"]
        return self.model.see(pixels.to(self.model.device))

    def answer(self, items: Sequence[Item], longest: int, tick: Tick) -> list[str]:
        """One greedy answer for each item, in their order.

        Args:
            longest: the most tokens of an answer.
            tick: told how many of how many are done.
        """
        answers = [""] * len(items)
        done = 0
        for rows in _by_picture(items, self.batch):
            places = {picture: at for at, picture in enumerate(dict.fromkeys(items[row].picture for row in rows))}
            features = self.look(list(places))
            which = torch.tensor([places[items[row].picture] for row in rows], device=self.model.device)
            made = self.answerer.answer([items[row].prompt for row in rows], features, which, longest=longest)
            for row, text in zip(rows, made.texts, strict=True):
                answers[row] = text
            done += len(rows)
            tick(done, len(items))
        return answers

    @torch.inference_mode()
    def embed_pictures(self, pictures: Sequence[Path], tick: Tick) -> Tensor:
        """Unit vectors (N, P)."""
        parts = []
        for start in range(0, len(pictures), self.batch):
            part = pictures[start : start + self.batch]
            parts.append(self.model.embed_image(features=self.look(part), present=self.answerer.present(len(part))))
            tick(start + len(part), len(pictures))
        return torch.cat(parts)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], tick: Tick) -> Tensor:
        """Unit vectors (C, P)."""
        parts = []
        packer = self.answerer.packer
        for start in range(0, len(texts), self.batch):
            rows = [packer.ids(text) or [packer.pad] for text in texts[start : start + self.batch]]
            length = max(map(len, rows))
            ids = torch.tensor([row + [packer.pad] * (length - len(row)) for row in rows], device=self.model.device)
            mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=ids.device)
            parts.append(self.model.embed_text(ids, mask))
            tick(start + len(rows), len(texts))
        return torch.cat(parts)


def _by_picture(items: Sequence[Item], batch: int) -> Iterator[list[int]]:
    """Rows in batches, such that what is asked about one picture is together."""
    rows_of: dict[Path, list[int]] = {}
    for row, item in enumerate(items):
        rows_of.setdefault(item.picture, []).append(row)
    order = [row for rows in rows_of.values() for row in rows]
    for start in range(0, len(order), batch):
        yield order[start : start + batch]
