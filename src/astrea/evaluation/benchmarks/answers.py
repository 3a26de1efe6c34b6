"""A model answering the items of a task: every picture is encoded once, and all its questions are asked together.

Letters: N pictures, C captions, P contrast width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.terminal import counted
from astrea.evaluation.benchmarks.items import Item
from astrea.evaluation.generate import Features, Predictor
from astrea.language.chat import user
from astrea.model.fingerprint import model_fingerprint
from astrea.model.processing import AstreaProcessor

Tick = Callable[[int, int], None]
Keep = Callable[[Sequence[Item], Sequence[str]], None]
NAMED = 5
"""How many unreadable pictures are named."""


class Viewer:
    """A model with its processor, working in batches.

    Args:
        predictor: the model at work. processor: reads the pictures.
    """

    def __init__(self, predictor: Predictor, processor: AstreaProcessor) -> None:
        self.predictor, self.processor, self.model = predictor, processor, predictor.model

    @property
    def batch(self) -> int:
        """How many pictures, questions or texts at a time."""
        return self.predictor.batch

    @torch.inference_mode()
    def encode(self, pictures: Sequence[Path]) -> Features:
        """Every expert's features of some pictures.

        Raises:
            AstreaError: a picture cannot be read; names it.
        """
        made = self.processor(images=[str(path) for path in pictures]).to(self.model.device)
        found: Features = self.model.encode_images(made["pixel_values"], made.get("original_images"))
        return found

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits from the model's weights and settings."""
        return model_fingerprint(self.model)

    def asked(self, prompt: str) -> str:
        """A prompt about one picture to the letter, as the chat template writes it."""
        return self.predictor.packer.format.render([user(prompt, 1)], prompt=True)

    def answer(self, items: Sequence[Item], longest: int, tick: Tick, keep: Keep) -> None:
        """One greedy answer for each item. A picture that cannot be read stops nothing but what is asked about it.

        Args:
            longest: the most tokens of an answer.
            tick: called with the number done and the total.
            keep: given items and their answers as they come.

        Raises:
            AstreaError: at the end, if there were pictures that could not be read; names some of them.
        """
        done = 0
        unread: dict[Path, AstreaError] = {}
        for rows in _by_picture(items, self.batch):
            features, places = self._seen(list(dict.fromkeys(items[row].picture for row in rows)), unread)
            mine = [items[row] for row in rows if items[row].picture in places]
            if mine:
                which = torch.tensor([places[item.picture] for item in mine], device=self.model.device)
                made = self.predictor.answer([item.prompt for item in mine], features, which, longest=longest)
                keep(mine, made.texts)
            done += len(rows)
            tick(done, len(items))
        if unread:
            errors = "\n".join(error.message for error in list(unread.values())[:NAMED])
            more = f"\n... and {len(unread) - NAMED:,} more" if len(unread) > NAMED else ""
            what = f"{counted(len(unread), 'picture')} cannot be read; all else is answered and kept:\n{errors}{more}"
            raise AstreaError(what, "correct or replace them; the same command then asks only what is left")

    def _seen(self, pictures: list[Path], unread: dict[Path, AstreaError]) -> tuple[Features | None, dict[Path, int]]:
        """Features of those pictures that can be read, and which row is whose; the others go to ``unread``."""
        try:
            return self.encode(pictures), {picture: at for at, picture in enumerate(pictures)}
        except AstreaError as error:
            if len(pictures) == 1:
                unread[pictures[0]] = error
                return None, {}
        good = [picture for picture in pictures if self._seen([picture], unread)[1]]
        return (self.encode(good) if good else None), {picture: at for at, picture in enumerate(good)}

    @torch.inference_mode()
    def embed_pictures(self, pictures: Sequence[Path], tick: Tick) -> Tensor:
        """Unit vectors (N, P)."""
        parts = []
        for start in range(0, len(pictures), self.batch):
            part = pictures[start : start + self.batch]
            parts.append(self.model.embed_image(features=self.encode(part), present=self.predictor.present(len(part))))
            tick(start + len(part), len(pictures))
        return torch.cat(parts)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], tick: Tick) -> Tensor:
        """Unit vectors (C, P)."""
        parts = []
        packer = self.predictor.packer
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
