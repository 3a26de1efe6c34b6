"""The whole model: experts -> alignment -> fusion -> language model -> answer, as a transformers model.

Letters: B rows of text, N pictures (in reading order over the rows), L text length, E experts, M visual tokens per
picture, V words.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin
from transformers.cache_utils import Cache
from transformers.utils.generic import can_return_tuple

from astrea.common.errors import AstreaError
from astrea.common.float32 import score_best_again
from astrea.confidence.estimator import Doubt
from astrea.fusion.protocol import FusionStrategy
from astrea.language.loss import weighted_loss
from astrea.model.backbone import AstreaModel, Features
from astrea.model.generation import Decoding
from astrea.model.outputs import AstreaOutput


class AstreaForConditionalGeneration(Decoding, AstreaModel, GenerationMixin):
    """A language model that sees through several frozen experts at once: `AstreaModel` with its head.

    Use it through `AstreaProcessor`, or `transformers.pipeline("image-text-to-text", model=folder)` after
    ``import astrea``. ``model`` is the `AstreaModel` inside, ``lm_head`` the layer that makes scores of its states.
    Gemma, Granite and others do more to the scores than that layer; what `forward` returns has it done.
    """

    doubt: Doubt | None = None
    """When an answer is not to be believed, if the model's folder says so; see `astrea.confidence`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._decide_in_full()

    def _decide_in_full(self) -> None:
        """Have near ties between words decided in float32, whatever the head is kept in."""
        head = self.get_output_embeddings()
        if score_best_again not in head._forward_hooks.values():
            head.register_forward_hook(score_best_again)

    @property
    def model(self) -> AstreaModel:
        """The same model without its head: the very same parts under the very same names."""
        inner = self.__dict__.get("_headless")
        if inner is None:
            inner = self.__dict__["_headless"] = AstreaModel.__new__(AstreaModel)
        share_parts(self, inner)
        return inner  # type: ignore[no-any-return]

    @property
    def lm_head(self) -> nn.Module:
        """The layer that makes scores of words of hidden states."""
        return self.get_output_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)
        self._decide_in_full()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        found = super().resize_token_embeddings(*args, **kwargs)
        self._decide_in_full()
        return found

    @can_return_tuple
    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        features: Features | None = None,
        present: Tensor | None = None,
        question_mask: Tensor | None = None,
        segments: Tensor | None = None,
        questions: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | float | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_token_type_ids: Tensor | None = None,
        generator: torch.Generator | None = None,
        fusion: FusionStrategy | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> AstreaOutput:
        """One pass.

        Args:
            input_ids: (B, L) with M placeholders per picture; or ``inputs_embeds`` (B, L, D), with the embedding of the
                placeholder in their places. With a cache only what is not in it yet.
            attention_mask: (B, L), 0 = padding; with a cache it covers the cached keys too.
            pixel_values: (N, 3, H, W) in 0..1, or ``features`` of the same N pictures (cached).
            present: (N, E) bool, which experts may be used; None = all.
            question_mask: (B, L) bool, which tokens are the question; None = all text without a label. Of a row that is
                longer than its mask the rest is no question.
            segments, questions: (B, L) for packed rows, see `astrea.language.attention`.
            labels: (B, L); -100 = no loss. The keyword ``label_weights`` (B, L) makes the loss the weighted mean.
                (It is no named argument: Trainer would take it for a second label.)
            num_items_in_batch: what the labels' weights (1 each, if there are none) add up to in the whole batch, where
                these rows are only a part of it: another process or micro-step has the others. The loss is then this
                part's share of the batch's mean, so that parts add up, and 0 if no token here has a label. (The name
                is that of transformers, whose Trainer passes it.)
            past_key_values, cache: any cache of transformers, under its old or its new name. What later steps need to
                know of pictures is kept in it.
            logits_to_keep: for how many of the last tokens, or for which ones, there are to be logits; 0 = all. Without
                gradients logits of a half-precision model are float32 (`astrea.common.float32.score_best_again`).
            mm_token_type_ids: which tokens are pictures; the ids say that already.
            generator: drives the stochastic residual; None = evaluation.
            fusion: fuses instead of the model's own strategy; M is then its ``num_tokens``. For a training stage
                that reads less than the whole model does; decoding with a cache is not provided for.

        Raises:
            AstreaError: the number of placeholders does not fit the number of pictures, the text is longer than the
                language model's positions or than the cache has room for, or no token of the batch has a label.
        """
        if labels is not None and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            raise AstreaError("a loss needs the logits of all tokens", "leave out labels, or logits_to_keep")
        step = self.step(
            input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            features=features,
            present=present,
            question_mask=question_mask,
            segments=segments,
            questions=questions,
            labels=labels,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            cache=cache,
            use_cache=use_cache,
            generator=generator,
            fusion=fusion,
        )
        more = self.wanted(output_attentions=output_attentions, output_hidden_states=output_hidden_states)
        out = self.language_model(**step.arguments(self.windows), logits_to_keep=logits_to_keep, **more)
        loss = None
        if labels is not None:
            loss = weighted_loss(out.logits, labels, kwargs.get("label_weights"), num_items_in_batch)
        return AstreaOutput(loss=loss, logits=out.logits, **step.outputs(out))


OWN = frozenset({"forward", "_old_forward", "_hf_hook", "_headless"})
"""What belongs to one of two models that share all their parts, and not to the other."""


def share_parts(model: nn.Module, inner: nn.Module) -> None:
    """Make a module of the parts, parameters and buffers of another one: of the very same dictionaries, so that what is
    replaced in one is replaced in both. Hooks, and a forward that somebody has put over a model's own, stay apart."""
    if "_modules" not in vars(inner):
        nn.Module.__init__(inner)
        parts = ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set")
        vars(inner).update({name: vars(model)[name] for name in parts})
    hooks = {name for name in vars(inner) if "hook" in name}
    vars(inner).update({name: value for name, value in vars(model).items() if name not in OWN | hooks})
