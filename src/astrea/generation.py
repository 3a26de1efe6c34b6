"""How an Astrea model generates: the pictures are read once, then everything about them lies in the cache and in what
one step hands to the next.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationMixin
from transformers.cache_utils import Cache, DynamicCache

CARRIED = ("key_bias", "key_words", "key_positions", "next_position")
"""What later steps need to know of the keys that are in the cache."""


class Decoding(GenerationMixin):
    """transformers' ``generate`` for a model whose rows hold pictures."""

    config: Any

    @property
    def num_visual_tokens(self) -> int:
        """How many image placeholders one picture takes in ``input_ids``."""
        raise NotImplementedError

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        use_cache = kwargs.get("use_cache", True)
        inputs = {"attention_mask": attention_mask, "past_key_values": past_key_values, "use_cache": use_cache}
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if past:
            return inputs | {name: kwargs.get(name) for name in CARRIED} | {"input_ids": input_ids[:, past:]}
        first = ("pixel_values", "features", "present", "question_mask")
        return inputs | {"input_ids": input_ids} | {key: kwargs[key] for key in first if kwargs.get(key) is not None}

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        # A cache made for windows drops keys by their number; here windows count positions, and a picture is one.
        plain = generation_config.use_cache is not False and generation_config.cache_implementation in (None, "dynamic")
        if plain and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = DynamicCache()
            return None
        return super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)  # type: ignore[misc]

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        asked = model_kwargs.get("question_mask")
        if asked is None:
            asked = torch.ones_like(outputs.key_bias, dtype=torch.bool)
        # Without a cache everything is read anew at each step; what has been generated is never part of the question.
        carried = {name: outputs[name] for name in CARRIED if name in outputs}
        return model_kwargs | {"question_mask": F.pad(asked, (0, 1))} | carried

    def _expand_inputs_for_generation(  # type: ignore[override]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Any = None,
        **model_kwargs: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """Copies of every row for beams, with the row's pictures: transformers would repeat picture by picture."""
        names = ("pixel_values", "features", "present")
        pictures = {name: model_kwargs.pop(name) for name in names if model_kwargs.get(name) is not None}
        if expand_size > 1 and pictures and input_ids is not None:
            per_row = (input_ids == self.config.image_token_id).sum(1) // self.num_visual_tokens
            rows = torch.arange(int(per_row.sum()), device=input_ids.device).split(per_row.tolist())
            copies = torch.cat([row.repeat(expand_size) for row in rows])
            for name, value in pictures.items():
                if name == "features":
                    pictures[name] = {expert: found.rows(copies) for expert, found in value.items()}
                else:
                    pictures[name] = value[copies]
        ids, model_kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        return ids, model_kwargs | pictures
