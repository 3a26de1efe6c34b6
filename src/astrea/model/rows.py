"""Which pictures and which questions a row of text holds.

Letters: B rows, N pictures (in reading order over the rows), L length, S questions per row, D language-model width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

from astrea.common.errors import AstreaError
from astrea.experts.protocol import ExpertFeatures


def rows_of_pictures(is_image_BL: Tensor, features: Mapping[str, ExpertFeatures] | None, tokens: int) -> Tensor:
    """Which row each picture of ``tokens`` visual tokens belongs to: (N,).

    Raises:
        AstreaError: the placeholders do not fit the pictures. A compiled or exported model does not look.
    """
    per_row = is_image_BL.sum(1)
    wanted = 0 if features is None else len(next(iter(features.values())).tokens)
    fixed = torch.compiler.is_compiling()
    if not fixed and (int(per_row.sum()) != wanted * tokens or bool((per_row % tokens).any())):
        raise AstreaError(
            f"{wanted} pictures of {tokens} visual tokens do not fit {per_row.tolist()} image placeholders per row",
            "build the inputs with AstreaProcessor, one <image> per picture, and do not truncate them",
        )
    rows = torch.arange(len(per_row), device=is_image_BL.device)
    return rows.repeat_interleave(per_row // tokens, output_size=wanted)


def row_mask(mask: Tensor, length: int) -> Tensor:
    """A mask (B, any) for the last ``length`` tokens of each row, bool. A mask of the prompt alone says nothing of what
    follows it: false."""
    mask = mask.bool()
    return mask[:, -length:] if mask.shape[1] >= length else pad(mask, (0, length - mask.shape[1]))


def asked_tokens(
    is_image_BL: Tensor, real_BL: Tensor, question_mask_BL: Tensor | None, labels_BL: Tensor | None
) -> Tensor:
    """Which tokens are a question's: (B, L) bool. An answer's own tokens never are."""
    asked_BL = real_BL & ~is_image_BL
    if question_mask_BL is not None:
        asked_BL = asked_BL & row_mask(question_mask_BL, real_BL.shape[1])
    if labels_BL is not None:
        asked_BL = asked_BL & (labels_BL == -100)
    return asked_BL


def mean_questions(embeds_BLD: Tensor, asked_BL: Tensor, numbers_BL: Tensor | None) -> Tensor:
    """Mean word embedding of every question: (B, S, D).

    Args:
        asked_BL: see `asked_tokens`.
        numbers_BL: which question (1..S) a token belongs to; None = each row is one question.
    """
    if numbers_BL is None:
        member_BLS = asked_BL.unsqueeze(-1)
    else:
        every_S = torch.arange(1, max(1, int(numbers_BL.max())) + 1, device=numbers_BL.device)
        member_BLS = (numbers_BL.unsqueeze(-1) == every_S) & asked_BL.unsqueeze(-1)
    weight_BLS = member_BLS.to(embeds_BLD.dtype)
    return torch.einsum("bls,bld->bsd", weight_BLS, embeds_BLD) / weight_BLS.sum(1).clamp_min(1).unsqueeze(-1)
