"""Who may read whom: positions and the additive attention mask that carries the experts' shares.

Letters: B rows, H attention heads, L keys, K queries (the last K of the L), S question segments.

A picture takes *one* position, whatever its number of tokens: visual tokens are a set (their place is in their
content), so taking an expert away moves nothing. Within a picture attention goes both ways. Findings that are phrases
are read like text instead: in order, each token with a position of its own, none for tokens that are not read.

Several questions can share one picture in one row ("packed"): ``segments`` is 0 for the shared prefix, s >= 1 for the
s-th question with its answer, -1 for padding. A question sees the prefix and itself, as if it were alone. A segment may
hold pictures of its own and several turns (a whole conversation): ``questions`` then says which question each token
belongs to, numbered from 1 over the row.
"""

from __future__ import annotations

import torch
from torch import Tensor

WARMED_UP = "astrea_word_match"
"""What a language model's configuration calls the word match that it was trained with."""


def picture_starts(is_image_BL: Tensor, size: int | None = None) -> Tensor:
    """Where a picture begins: (B, L) bool. Every ``size`` placeholders of a row are one picture; without a size,
    neighbouring placeholders are."""
    if size is None:
        return is_image_BL & ~torch.nn.functional.pad(is_image_BL, (1, 0))[:, :-1]
    return is_image_BL & ((is_image_BL.cumsum(1) - 1) % size == 0)


def picture_blocks(is_image_BL: Tensor, size: int | None = None) -> Tensor:
    """Number the pictures of every row from 1: (B, L) long, 0 for text; ``size`` as in `picture_starts`."""
    return picture_starts(is_image_BL, size).long().cumsum(1) * is_image_BL


def position_ids(
    is_image_BL: Tensor,
    real_BL: Tensor,
    segments_BL: Tensor | None,
    size: int | None = None,
    *,
    read_BL: Tensor | None = None,
) -> Tensor:
    """Positions (B, L): text counts one each, a picture one in all, padding nothing; packed segments all start behind
    the shared prefix.

    Args:
        size: as in `picture_starts`.
        read_BL: where pictures are read like text, which of their tokens are; each of these counts one.
    """
    seen_BL = picture_starts(is_image_BL, size) if read_BL is None else is_image_BL & read_BL
    steps = ((~is_image_BL & real_BL) | seen_BL).long()
    if segments_BL is None:
        return (steps.cumsum(1) - 1).clamp_min(0)
    prefix = (steps * (segments_BL == 0)).cumsum(1)
    total = steps.cumsum(1)
    # Count from the start of one's own segment: subtract what all earlier segments took.
    first = torch.nn.functional.pad(segments_BL, (1, 0), value=0)[:, :-1] != segments_BL
    # Where a segment begins with a picture, that picture is a step of its own like any word.
    before = torch.where(first & (segments_BL > 0), total - steps, 0).cummax(1).values
    own = torch.where(segments_BL > 0, total - before, 0)
    return (prefix + own - 1).clamp_min(0)


def attention_mask(
    real_BL: Tensor,
    blocks_BL: Tensor | None,
    segments_BL: Tensor | None,
    bias_BSL: Tensor | None,
    match_BHKL: Tensor | None = None,
    *,
    queries: int,
    dtype: torch.dtype,
    questions_BL: Tensor | None = None,
    cross_only_BL: Tensor | None = None,
    in_order: bool = False,
) -> Tensor:
    """Additive mask (B, 1, K, L), or (B, H, K, L) with a match per head, for the last ``queries`` positions.

    Args:
        real_BL: keys that may be read at all (no padding, no empty expert slot).
        blocks_BL: `picture_blocks`, or None where the queries hold no picture.
        segments_BL: packed segments, or None.
        bias_BSL: what question s adds to its score of key l (log-share; 0 for text). Without packing S = 1.
        match_BHKL: what each text query adds to its score of key l by itself, per head (word match; 0 for text keys).
        questions_BL: which question (1..S) a token belongs to, 0 for none; None = its segment.
        cross_only_BL: visual tokens that text reads and other visual tokens do not, bool; None = none.
        in_order: visual tokens read only what stands before them, as text does.
    """
    length = real_BL.shape[1]
    keys = torch.arange(length, device=real_BL.device)
    rows = keys[length - queries :]
    seen = (keys[None, :] <= rows[:, None]).unsqueeze(0)
    if blocks_BL is not None:
        mine = blocks_BL[:, length - queries :, None]
        if not in_order:
            seen = seen | ((mine == blocks_BL[:, None, :]) & (mine > 0))
        if cross_only_BL is not None:
            seen = seen & ~(cross_only_BL[:, None, :] & (mine > 0))
    if segments_BL is not None:
        theirs = segments_BL[:, None, :]
        seen = seen & ((theirs == 0) | (theirs == segments_BL[:, length - queries :, None]))
    seen = seen & real_BL[:, None, :]
    # Every query keeps itself, so that no row of the softmax is empty (padding, masked visual tokens).
    seen = seen | (keys[None, :] == rows[:, None]).unsqueeze(0)
    floor = torch.finfo(dtype).min
    seen = seen.unsqueeze(1)
    if bias_BSL is None and match_BHKL is None:
        return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, floor)
    asks = torch.ones_like(seen[..., :1])
    bias: Tensor | float = 0.0
    numbers = segments_BL if questions_BL is None else questions_BL
    if numbers is not None:
        number = numbers[:, length - queries :]
        asks = (number > 0)[:, None, :, None]
    if bias_BSL is not None:
        bias = bias_BSL[:, :1]
        if numbers is not None:
            bias = bias_BSL.gather(1, (number - 1).clamp_min(0).unsqueeze(-1).expand(-1, -1, length))
        bias = bias.unsqueeze(1)
    if match_BHKL is not None:
        bias = bias + match_BHKL
    if blocks_BL is not None:
        asks = asks & (blocks_BL[:, length - queries :] == 0)[:, None, :, None]
    bias = torch.where(asks, bias, 0).to(dtype)
    return torch.where(seen, bias, floor)


def within_window(mask_BHKL: Tensor, positions_BL: Tensor, window: int) -> Tensor:
    """The same mask for layers that look no further back than ``window`` positions, one's own among them.

    Positions are counted and not tokens: a picture is as far away as one word, however many tokens it has.

    Args:
        positions_BL: of all keys; the queries are the last K of them.
    """
    distance_BKL = positions_BL[:, -mask_BHKL.shape[2] :, None] - positions_BL[:, None, :]
    return mask_BHKL.masked_fill((distance_BKL >= window).unsqueeze(1), torch.finfo(mask_BHKL.dtype).min)


def word_match(words_BKD: Tensor, keys_BLD: Tensor, gamma_H: Tensor) -> Tensor:
    """What every word adds to its attention score of every token: (B, H, K, L), ``gamma_h cos(word, token)``.

    Keys come with unit length (zero where nothing may match); a head with gamma 0 looks where it has learned to look.
    """
    cosine = torch.nn.functional.normalize(words_BKD, dim=-1) @ keys_BLD.transpose(1, 2)
    return gamma_H.view(1, -1, 1, 1) * cosine.unsqueeze(1)


def word_match_start(heads: int, gamma: float) -> Tensor:
    """Where gamma (H,) starts: all heads but every fourth look for the word, the others are free to look elsewhere.

    With every head bound to the token that says the word, a word could not look at the words before it.
    """
    return gamma * ((torch.arange(heads) + 1) % 4 > 0)
