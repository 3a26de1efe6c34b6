"""One call of the language model, and what it leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.transformers_compat import CACHE, cache_of
from astrea.fusion.protocol import VisualTokens
from astrea.language.windows import Windows, masks_for
from astrea.model.cache import AstreaCache
from astrea.model.compact import compact
from astrea.model.reading import Reading


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the language model: what it is given, the cache that it goes on from, and the pictures in it."""

    reading: Reading
    cache: AstreaCache | None
    use_cache: bool
    visual: VisualTokens | None

    def compact(self) -> tuple[Step, Tensor]:
        """The same without tokens that nobody reads, and where each token stands now, see `astrea.model.compact`.

        Raises:
            AstreaError: a cache is to be filled, in which every token has its place.
        """
        if self.cache is not None:
            raise AstreaError("answers_only leaves tokens out, and a cache keeps all", "pass use_cache=False")
        reading, place = compact(self.reading)
        return replace(self, reading=reading), place

    def arguments(self, windows: Windows) -> dict[str, Any]:
        """What the language model is called with."""
        masks = masks_for(self.reading.mask, self.reading.keys.positions, windows)
        if self.cache is not None:
            widened = self.cache.widened
            masks = widened(masks) if isinstance(masks, Tensor) else {kind: widened(one) for kind, one in masks.items()}
        return {
            "inputs_embeds": self.reading.embeds,
            "attention_mask": masks,
            "position_ids": self.reading.positions,
            "use_cache": self.use_cache,
            CACHE: None if self.cache is None else self.cache.cache,
        }

    def outputs(self, found: Any) -> dict[str, Any]:
        """What every output says of this step, once the language model has run; what later steps need to know of the
        keys is left in the cache."""
        visual = self.visual
        if self.cache is not None:
            self.cache.keep(self.reading.keys)
        return {
            CACHE: cache_of(found),
            "hidden_states": found.get("hidden_states"),
            "attentions": found.get("attentions"),
            "shares": None if visual is None else visual.shares,
            "image_hidden_states": None if visual is None else visual.tokens,
            "aux_loss": None if visual is None else visual.auxiliary,
            "router_logits": None if visual is None else visual.router_logits,
        }
