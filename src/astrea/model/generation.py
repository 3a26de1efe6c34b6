"""How an Astrea model generates: pictures are read once, then all that is to know of them lies in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, LogitsProcessor
from transformers.cache_utils import Cache

from astrea.common.transformers_compat import CACHE, cache_of, keep_every_key
from astrea.language.question_span import find_questions
from astrea.model.cache import AstreaCache, Keys
from astrea.model.rows import asked_tokens, row_mask

PICTURES = ("pixel_values", "original_images", "features", "present")

PASSED = ("logits_to_keep", "output_attentions", "output_hidden_states", "return_dict")
"""What ``generate`` wants of a step, whatever the step is about."""


class NoPlaceholder(LogitsProcessor):
    """An answer never says the mark that pictures stand for."""

    def __init__(self, image_token_id: int) -> None:
        self.image_token_id = image_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        mark = torch.arange(scores.shape[-1], device=scores.device) == self.image_token_id
        return scores.masked_fill(mark, -torch.inf)


class Decoding(GenerationMixin):
    """transformers' ``generate`` for a model whose rows hold pictures."""

    config: Any
    windows: Any
    num_visual_tokens: Any

    def _get_logits_processor(self, *args: Any, **kwargs: Any) -> Any:
        processors = super()._get_logits_processor(*args, **kwargs)  # type: ignore[misc]
        # First, or top-k could leave nothing else; and last, whatever the others do.
        processors.insert(0, NoPlaceholder(self.config.image_token_id))
        processors.append(NoPlaceholder(self.config.image_token_id))
        return processors

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        next_sequence_length: int | None = None,
        mm_token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What ``forward`` is given for the next token: tokens and pictures that are not in the cache yet.
        ``mm_token_type_ids`` says what the ids say already."""
        cache = past_key_values if cache is None else cache
        inputs = {"attention_mask": attention_mask, CACHE: cache, "use_cache": kwargs.get("use_cache", True)}
        inputs |= {name: kwargs[name] for name in PASSED if name in kwargs}
        pictures = {name: kwargs[name] for name in PICTURES if kwargs.get(name) is not None}
        past = 0 if cache is None else int(cache.get_seq_length())
        if inputs_embeds is not None:
            if not past:
                return (
                    inputs | pictures | {"inputs_embeds": inputs_embeds, "question_mask": kwargs.get("question_mask")}
                )
            return inputs | {"input_ids": input_ids[:, -(next_sequence_length or 1) :]}
        length = input_ids.shape[1]
        asked = question_of(kwargs.get("question_mask"), length)
        skip = read_before(length, past, attention_mask, next_sequence_length)
        if cache is not None and skip == past > 0 and pictures:
            kept = AstreaCache(cache)
            if self._asked_anew(input_ids, asked, attention_mask, pictures, kept.keys(), past):
                kept.forget(past)
                skip = 0
        if skip:
            pictures = self._new_pictures(input_ids, skip, pictures)
        new = {"input_ids": input_ids[:, skip:], "question_mask": None if asked is None else asked[:, skip:]}
        return inputs | new | pictures

    def _asked_anew(
        self,
        input_ids: Tensor,
        asked: Tensor | None,
        real: Tensor | None,
        pictures: dict[str, Any],
        known: Keys | None,
        past: int,
    ) -> bool:
        """Whether the pictures in a cache are given again, and with another question: then they are to be read again,
        as without a cache, because what is read of a picture depends on what is asked of it."""
        is_image = input_ids == self.config.image_token_id
        if known is None or not is_image[:, :past].any() or self._pictures_of(is_image) != count_of(pictures):
            return False
        everything = torch.ones_like(is_image) if real is None else row_mask(real, is_image.shape[1])
        wanted = asked_tokens(is_image, everything, asked, None)
        return bool(wanted[:, past:].any()) or not torch.equal(wanted[:, :past], known.asked)

    def _pictures_of(self, is_image: Tensor) -> int:
        found: int = int(is_image.sum()) // self.num_visual_tokens
        return found

    def _new_pictures(self, input_ids: Tensor, skip: int, pictures: dict[str, Any]) -> dict[str, Any]:
        """Of the pictures of whole rows those whose placeholders come after the first ``skip`` tokens; pictures that
        are as many as the new placeholders are the new ones already."""
        is_image = input_ids == self.config.image_token_id
        new = self._pictures_of(is_image[:, skip:])
        if not pictures or not new:
            return {}
        if count_of(pictures) == new:
            return pictures
        first, index = 0, []
        for row in is_image:
            index += list(range(first + self._pictures_of(row[:skip]), first + self._pictures_of(row)))
            first += self._pictures_of(row)
        return rows_of(pictures, torch.tensor(index, device=input_ids.device))

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        made = super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)  # type: ignore[misc]
        cache = cache_of(model_kwargs)
        if cache is not None and self.windows is not None and not int(cache.get_seq_length()):
            # The last argument is the longest that a row can become: see `AstreaCache.prepare`.
            keep_every_key(cache, max(kwargs.get("max_cache_length", 0), *(a for a in args if isinstance(a, int)), 0))
        return made

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        # Without a cache everything is read anew at each step.
        read = PICTURES if cache_of(model_kwargs) is not None else ()
        return {name: value for name, value in model_kwargs.items() if name not in read}

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Any = None,
        **model_kwargs: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """Copies of every row for beams, with the row's pictures: transformers would repeat picture by picture."""
        prompt = model_kwargs.get("inputs_embeds")
        prompt = input_ids if prompt is None else prompt[..., 0]
        if model_kwargs.get("question_mask") is None:
            # What is generated is never part of the question.
            span = self.config.question_span if prompt is input_ids else None
            every = torch.ones_like(prompt, dtype=torch.bool)
            model_kwargs["question_mask"] = every if span is None else find_questions(prompt, span)
        pictures = {name: model_kwargs.pop(name) for name in PICTURES if model_kwargs.get(name) is not None}
        if expand_size > 1 and pictures and input_ids is not None:
            per_row = (input_ids == self.config.image_token_id).sum(1) // self.num_visual_tokens
            rows = torch.arange(int(per_row.sum()), device=input_ids.device).split(per_row.tolist())
            pictures = rows_of(pictures, torch.cat([row.repeat(expand_size) for row in rows]))
        ids, model_kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        return ids, model_kwargs | pictures


def read_before(length: int, past: int, mask: Tensor | None, following: int | None) -> int:
    """How many of the ``length`` tokens that ``generate`` has are in the cache already, which holds ``past``.

    Args:
        mask: (B, all tokens), or None where nothing is padding.
        following: how many are not, where transformers says it.
    """
    if not past:
        return 0
    if following is not None:
        return length - following
    alone = mask is not None and mask.shape[1] == length + past
    # Only what is new may be given, with a mask of everything.
    return past if length > past and not alone else 0


def question_of(mask: Tensor | None, length: int) -> Tensor | None:
    """The mask of a question for rows that have become longer."""
    return None if mask is None else row_mask(mask, length)


def count_of(pictures: dict[str, Any]) -> int:
    """How many pictures there are."""
    found = pictures.get("pixel_values")
    return len(next(iter(pictures["features"].values())).tokens if found is None else found)


def rows_of(pictures: dict[str, Any], index: Tensor) -> dict[str, Any]:
    """Some of the pictures, under whatever names they come."""
    return {name: _rows(value, index) for name, value in pictures.items()}


def _rows(value: Any, index: Tensor) -> Any:
    """Some rows of a tensor, of a list, or of every expert's features."""
    if isinstance(value, Mapping):
        return {expert: found.rows(index) for expert, found in value.items()}
    return value[index] if isinstance(value, Tensor) else [value[one] for one in index.tolist()]
