"""Rows of text in tokens, with what is known of each token: grown by pictures, cut, and padded to one length.

Letters: B rows, L tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from astrea.common.errors import AstreaError, shortened
from astrea.common.terminal import counted
from astrea.language.tokenizer import IMAGE
from astrea.model.image_processing import flat_images


@dataclass(frozen=True, slots=True)
class TextRow:
    """One text; every list has one entry per token.

    ids: of the tokens. asked: whether it belongs to the question. spans: its characters in the text, (0, 0) where the
    tokenizer does not tell. answered: 1 where it was said by the assistant.
    """

    name: str
    ids: list[int]
    asked: list[bool]
    spans: list[tuple[int, int]]
    answered: list[int]

    def grown(self, image_id: int, count: int) -> TextRow:
        """With ``count`` placeholders for each picture's mark, all of which stand for the mark's characters."""
        places = [at for at, one in enumerate(self.ids) for _ in range(count if one == image_id else 1)]
        return self._of(places)

    def cut(self, limit: int, side: str, image_id: int) -> TextRow:
        """With ``limit`` tokens at most, which a warning tells; ``side``: where tokens are taken away.

        Raises:
            AstreaError: placeholders of pictures, or the whole question, would have to go.
        """
        over = len(self.ids) - limit
        if over <= 0:
            return self
        kept = range(limit) if side == "right" else range(over, len(self.ids))
        short = self._of(kept)
        if short.ids.count(image_id) != self.ids.count(image_id):
            hint = "show fewer pictures or raise max_length; pictures are never cut"
            raise AstreaError(f"{self.name} has no room for its pictures in {limit} tokens", hint)
        if not any(short.asked):
            raise AstreaError(f"cut to {limit} tokens, {self.name} has lost its question", "raise max_length")
        warnings.warn(f"{self.name} had {len(self.ids)} tokens and was cut to {limit}", stacklevel=4)
        return short

    def _of(self, places: Sequence[int]) -> TextRow:
        columns: dict[str, Any] = {
            name: [getattr(self, name)[at] for at in places] for name in ("ids", "asked", "spans", "answered")
        }
        return replace(self, **columns)


def padded(
    rows: Sequence[TextRow], fill: int | None, padding: Any, side: str, limit: int, multiple: int | None
) -> dict[str, list[list[Any]]]:
    """All rows as columns of one length: input_ids, attention_mask, question_mask, offset_mapping, assistant_masks.

    Args:
        fill: the padding token. padding: True or "longest", "max_length" (to ``limit``), False or "do_not_pad". side:
            "left" or "right". multiple: the length is a multiple of this.

    Raises:
        AstreaError: an option is unknown, or there is no padding token.
    """
    padding = getattr(padding, "value", padding)
    if padding not in (True, False, "longest", "max_length", "do_not_pad") or side not in ("left", "right"):
        raise AstreaError(
            f"padding={shortened(repr(padding))} on the {shortened(repr(side))} is unknown",
            'padding is True, False or "max_length", padding_side "left" or "right"',
        )
    if multiple is not None and (isinstance(multiple, bool) or not isinstance(multiple, int) or multiple < 1):
        raise AstreaError(f"pad_to_multiple_of={shortened(repr(multiple))}", "give a whole number of at least 1")
    lengths = [len(row.ids) for row in rows]
    if padding in (False, "do_not_pad"):
        gaps = [0] * len(rows)
    else:
        wanted = limit if padding == "max_length" else max(lengths)
        wanted += -wanted % (multiple or 1)
        gaps = [wanted - length for length in lengths]
    if fill is None and any(gaps):
        raise AstreaError("the tokenizer has no padding token", "set tokenizer.pad_token")

    def pad(columns: list[list[Any]], what: Any) -> list[list[Any]]:
        filled = zip(columns, gaps, strict=True)
        return [[what] * gap + one if side == "left" else one + [what] * gap for one, gap in filled]

    return {
        "input_ids": pad([row.ids for row in rows], fill),
        "attention_mask": pad([[1] * length for length in lengths], 0),
        "question_mask": pad([row.asked for row in rows], False),
        "offset_mapping": pad([row.spans for row in rows], (0, 0)),
        "assistant_masks": pad([row.answered for row in rows], 0),
    }


def check_marks(marks: list[int], images: Any) -> None:
    """Whether every row has as many marks as pictures.

    Raises:
        AstreaError: one has not; names it.
    """
    nested = isinstance(images, (list, tuple)) and all(isinstance(i, (list, tuple)) or i is None for i in images)
    if nested and images:
        given = [sum(1 for _ in flat_images(row)) for row in images]
        if len(given) != len(marks):
            raise AstreaError(f"{len(marks)} texts but pictures for {len(given)}", "give one list per text")
        total = ""
    else:
        left = sum(1 for _ in flat_images(images))
        total = f" left for it ({counted(sum(marks), 'mark')} and {counted(left, 'picture')} in all)"
        given = []
        for row, marked in enumerate(marks):
            given.append(left if row == len(marks) - 1 else min(left, marked))
            left -= given[-1]
    for row, (marked, shown) in enumerate(zip(marks, given, strict=True)):
        if marked != shown:
            alone = len(marks) == 1
            raise AstreaError(
                f"{'the text' if alone else f'row {row}'} has {counted(marked, IMAGE + ' mark')} but "
                f"{counted(shown, 'picture')}{'' if alone else total}",
                f"write one {IMAGE} per picture, or put pictures into the messages and use apply_chat_template",
            )
