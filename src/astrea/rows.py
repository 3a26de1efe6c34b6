"""Which pictures and which questions a row of text holds.

Letters: B rows, N pictures (in reading order over the rows), L length, S questions per row, D language-model width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from astrea.errors import AstreaError
from astrea.experts.protocol import ExpertFeatures


def rows_of_pictures(is_image_BL: Tensor, features: Mapping[str, ExpertFeatures] | None, tokens: int) -> Tensor:
    """Which row each picture of ``tokens`` visual tokens belongs to: (N,).

    Raises:
        AstreaError: the placeholders do not fit the pictures.
    """
    per_row = is_image_BL.sum(1)
    wanted = 0 if features is None else len(next(iter(features.values())).tokens)
    if int(per_row.sum()) != wanted * tokens or bool((per_row % tokens).any()):
        raise AstreaError(
            f"{wanted} pictures of {tokens} visual tokens do not fit {per_row.tolist()} image placeholders per row",
            "build the inputs with AstreaProcessor, one <image> per picture, and do not truncate them",
        )
    rows = torch.arange(len(per_row), device=is_image_BL.device)
    return rows.repeat_interleave(per_row // tokens)


def mean_questions(
    embeds_BLD: Tensor,
    is_image_BL: Tensor,
    real_BL: Tensor,
    question_mask_BL: Tensor | None,
    labels_BL: Tensor | None,
    numbers_BL: Tensor | None,
) -> Tensor:
    """Mean word embedding of every question: (B, S, D). An answer's own tokens never count.

    Args:
        numbers_BL: which question (1..S) a token belongs to; None = each row is one question.
    """
    asked_BL = real_BL & ~is_image_BL
    if question_mask_BL is not None:
        asked_BL = asked_BL & question_mask_BL.bool()
    if labels_BL is not None:
        asked_BL = asked_BL & (labels_BL == -100)
    if numbers_BL is None:
        member_BLS = asked_BL.unsqueeze(-1)
    else:
        every_S = torch.arange(1, max(1, int(numbers_BL.max())) + 1, device=numbers_BL.device)
        member_BLS = (numbers_BL.unsqueeze(-1) == every_S) & asked_BL.unsqueeze(-1)
    weight_BLS = member_BLS.to(embeds_BLD.dtype)
    return torch.einsum("bls,bld->bsd", weight_BLS, embeds_BLD) / weight_BLS.sum(1).clamp_min(1).unsqueeze(-1)
