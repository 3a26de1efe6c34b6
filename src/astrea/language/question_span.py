"""Where the question stands in a row of tokens, for callers who have only the tokens.

The processor says it exactly (``question_mask``). Collators that put a prompt and its answer together, or tokens that
were made elsewhere, come without; then the marks that the chat template puts around a user's words are looked for.

Letters: B rows, L length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from astrea.common.errors import AstreaError, shortened

MOST_MARKS = 64


def check_span(span: Any) -> dict[str, Any] | None:
    """What a configuration says of it, as it was written by somebody: ``start`` and ``stop``, the tokens in front of
    and behind a user's words, and ``included``, whether these belong to the question; or None.

    Raises:
        AstreaError: it is nothing of the kind.
    """
    if span is None:
        return None
    marks = [span.get("start"), span.get("stop")] if isinstance(span, Mapping) else []
    good = [
        isinstance(mark, list) and 0 < len(mark) <= MOST_MARKS and all(type(i) is int and i >= 0 for i in mark)
        for mark in marks
    ]
    if len(good) != 2 or not all(good) or not isinstance(span.get("included"), bool):
        hint = 'it is null, or {"start": [token ids], "stop": [token ids], "included": true or false}'
        raise AstreaError(f"question_span of the configuration is {shortened(repr(span))}", hint)
    return {"start": list(span["start"]), "stop": list(span["stop"]), "included": span["included"]}


def find_questions(input_ids_BL: Tensor, span: Mapping[str, Any]) -> Tensor:
    """Which tokens belong to the last user's turn: (B, L) bool; all of a row that has no such turn."""
    start, stop = span["start"], span["stop"]
    length = input_ids_BL.shape[1]
    places_L = torch.arange(length, device=input_ids_BL.device)
    behind_BL = _first_tokens(input_ids_BL, start) * (places_L + len(start))
    first_B1 = behind_BL.amax(1, keepdim=True)
    stops_BL = _first_tokens(input_ids_BL, stop) & (places_L >= first_B1)
    last_B1 = torch.where(stops_BL, places_L, length).amin(1, keepdim=True)
    if span["included"]:
        first_B1, last_B1 = first_B1 - len(start), last_B1 + len(stop)
    return (places_L >= first_B1) & (places_L < last_B1)


def _first_tokens(ids_BL: Tensor, marks: Sequence[int]) -> Tensor:
    """Where these tokens begin, one after another: (B, L) bool."""
    found_BL = torch.ones_like(ids_BL, dtype=torch.bool)
    for step, mark in enumerate(marks):
        here_BL = torch.zeros_like(found_BL)
        here_BL[:, : ids_BL.shape[1] - step] = ids_BL[:, step:] == mark
        found_BL = found_BL & here_BL
    return found_BL
