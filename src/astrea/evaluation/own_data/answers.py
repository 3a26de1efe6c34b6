"""A model answering items of one's own data, with their pictures and blind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.evaluation.own_data.items import LONG, Item
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor

LONGEST = {True: 96, False: 16}
"""Tokens of the longest answer that is waited for: of `LONG` kinds and of the others."""

BATCH = 16


@dataclass(frozen=True, slots=True)
class Answers:
    """One answer for each item, with pictures and ``blind``; None where it could not be given, such as when a picture
    turned out to be damaged. shares: (E,) what each expert got for the item's first picture; None without pictures."""

    with_pictures: list[str | None]
    blind: list[str | None]
    shares: list[torch.Tensor | None]


class ItemPredictor:
    """A model with its processor, answering greedily in batches.

    Args:
        batch: items at a time.
    """

    def __init__(self, model: AstreaForConditionalGeneration, processor: AstreaProcessor, batch: int = BATCH) -> None:
        self.model, self.processor, self.batch = model.eval(), processor, batch

    def answer(self, items: Sequence[Item], report: Reporter) -> Answers:
        """Answer every item twice. Items that cannot be answered are reported and left out."""
        found = Answers([None] * len(items), [None] * len(items), [None] * len(items))
        done = 0
        for rows in batches(items, self.batch):
            self._answer_with_pictures(items, rows, found, report)
            answered = [row for row in rows if found.with_pictures[row] is not None]
            if answered:
                texts, _ = self._generate(items, answered, None)
                for row, text in zip(answered, texts, strict=True):
                    found.blind[row] = text
            done += len(rows)
            report.track("answering", done, len(items))
        return found

    def answer_without(self, expert: str, items: Sequence[Item], report: Reporter) -> list[str]:
        """Answer items whose pictures can be read once more, with an expert masked."""
        texts = [""] * len(items)
        done = 0
        for rows in batches(items, self.batch):
            pictures = [items[row].sample.pictures() for row in rows]
            for row, text in zip(rows, self._generate(items, rows, pictures, without=expert)[0], strict=True):
                texts[row] = text
            done += len(rows)
            report.track(f"answering without {expert}", done, len(items))
        return texts

    def _answer_with_pictures(self, items: Sequence[Item], rows: list[int], found: Answers, report: Reporter) -> None:
        """Answer some items with their pictures; one by one where they cannot be answered together."""
        try:
            pictures = [items[row].sample.pictures() for row in rows]
            texts, shares = self._generate(items, rows, pictures)
        except AstreaError as error:
            if len(rows) > 1:
                for row in rows:
                    self._answer_with_pictures(items, [row], found, report)
            else:
                report.say(f"left out: {items[rows[0]].name}: {error.message}")
            return
        for row, text, share in zip(rows, texts, shares, strict=True):
            found.with_pictures[row], found.shares[row] = text, share

    @torch.inference_mode()
    def _generate(
        self, items: Sequence[Item], rows: list[int], pictures: list[list[Any]] | None, *, without: str | None = None
    ) -> tuple[list[str], list[torch.Tensor | None]]:
        shown = [None] * len(rows) if pictures is None else pictures
        asked = [items[row].conversation(own) for row, own in zip(rows, shown, strict=True)]
        inputs = self.processor.apply_chat_template(asked, tokenize=True, return_dict=True, add_generation_prompt=True)
        inputs = inputs.to(self.model.device)
        if without is not None:
            present = torch.tensor([name != without for name in self.model.experts.names])
            shown_pictures = sum(len(own or ()) for own in shown)
            inputs["present"] = present.expand(shown_pictures, -1).to(self.model.device)
        longest = LONGEST[items[rows[0]].kind in LONG]
        made = self.model.generate(**inputs, max_new_tokens=longest, do_sample=False).cpu()
        said = self.processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        shares: list[torch.Tensor | None] = [None] * len(rows)
        if "pixel_values" in inputs:
            each = iter(self.model.shares(**inputs).cpu())
            for place, own in enumerate(shown):
                of_row = [next(each) for _ in own or ()]
                shares[place] = of_row[0] if of_row else None
        return [text.strip() for text in said], shares


def batches(items: Sequence[Item], size: int) -> Iterator[list[int]]:
    """Places of items, so many at a time: those that want long answers apart, similar lengths together."""
    for long in (False, True):
        rows = [row for row, item in enumerate(items) if (item.kind in LONG) == long]
        rows.sort(key=lambda row: sum(len(turn["content"]) for turn in items[row].turns))
        for start in range(0, len(rows), size):
            yield rows[start : start + size]
