"""One call of the language model, and what it leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from astrea.common.transformers_compat import CACHE, cache_of
from astrea.fusion.protocol import VisualTokens
from astrea.language.windows import Windows, masks_for
from astrea.model.keys import as_wide_as, remember
from astrea.model.reading import Reading


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the language model: what it is given, what it goes on from, and the pictures in it."""

    reading: Reading
    cache: Cache | None
    use_cache: bool
    visual: VisualTokens | None

    def arguments(self, windows: Windows) -> dict[str, Any]:
        """What the language model is called with."""
        mask = self.reading.mask
        wide_mask = masks_for(mask, self.reading.keys.positions, windows)
        if isinstance(wide_mask, Tensor):
            mask_or_masks: Any = as_wide_as(self.cache, wide_mask)
        else:
            mask_or_masks = {kind: as_wide_as(self.cache, found) for kind, found in wide_mask.items()}
        return {
            "inputs_embeds": self.reading.embeds,
            "attention_mask": mask_or_masks,
            "position_ids": self.reading.positions,
            "use_cache": self.use_cache,
            CACHE: self.cache,
        }

    def outputs(self, found: Any) -> dict[str, Any]:
        """What every output of ours says of this step, once the language model has run; what later steps need to know
        of the keys is left in the cache."""
        keys, visual = self.reading.keys, self.visual
        if self.cache is not None and int(self.cache.get_seq_length()) == keys.positions.shape[1]:
            remember(self.cache, keys)
        return {
            CACHE: cache_of(found),
            "hidden_states": found.get("hidden_states"),
            "attentions": found.get("attentions"),
            "shares": None if visual is None else visual.shares,
            "image_hidden_states": None if visual is None else visual.tokens,
            "aux_loss": None if visual is None else visual.auxiliary,
        }
