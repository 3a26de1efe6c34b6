"""Which layers of a language model look how far back, and the masks that they are given.

transformers lets a model have layers of several kinds (Gemma 2 and 3, Qwen with windows), which take a dict of masks,
one per kind; or one window for all layers (Mistral, Phi-3), which take one mask. A mask of four dimensions is taken as
it is, so the window must be in it.

Letters: B rows, H attention heads, K queries, L keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.language.attention import within_window

Windows = int | Mapping[str, int | None] | None
"""One window for all layers; or the window of each kind of layer, None = no end; or None, no layer has one."""


def windows_of(text_config: Any) -> Windows:
    """The windows that a language model's configuration asks for.

    Raises:
        AstreaError: it has layers that an attention mask does not govern (chunked, linear, recurrent ones).
    """
    kinds = set(getattr(text_config, "layer_types", None) or ())
    window = getattr(text_config, "sliding_window", None)
    strange = sorted(kinds - {"full_attention", "sliding_attention"})
    if strange:
        raise AstreaError(
            f"the language model ({text_config.model_type}) has layers of kind {strange[0]!r}, which cannot be told "
            "which tokens to read",
            "choose a language model whose layers all use full or sliding-window attention",
        )
    if not kinds:
        return window or None
    return {"full_attention": None, "sliding_attention": window} if "sliding_attention" in kinds else None


def masks_for(mask_BHKL: Tensor, positions_BL: Tensor, windows: Windows) -> Tensor | dict[str, Tensor]:
    """What the language model is given as its ``attention_mask``.

    Args:
        positions_BL: of all keys; the queries are the last K of them.
    """
    if windows is None:
        return mask_BHKL
    if isinstance(windows, int):
        return within_window(mask_BHKL, positions_BL, windows)
    return {
        kind: mask_BHKL if window is None else within_window(mask_BHKL, positions_BL, window)
        for kind, window in windows.items()
    }
