"""The whole model: experts -> alignment -> fusion -> language model -> answer, as a transformers model.

Letters: B rows of text, N pictures (in reading order over the rows), L text length, E experts, M visual tokens per
picture, V words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.utils.generic import can_return_tuple

from astrea.common.errors import AstreaError
from astrea.common.float32 import score_best_again
from astrea.confidence.estimator import ConfidenceEstimator
from astrea.language.loss import label_loss, weighted_loss
from astrea.language.low_rank import inject
from astrea.model.backbone import AstreaModel, build_language_model
from astrea.model.configuration import AstreaConfig
from astrea.model.generation import Decoding
from astrea.model.inner import Inner
from astrea.model.inputs import Features, Inputs, Options
from astrea.model.layout import PARTS, inner_names, split_head, with_current_names
from astrea.model.outputs import AstreaOutput
from astrea.model.pretrained import AstreaPreTrainedModel
from astrea.model.step import Step


class AstreaForConditionalGeneration(Decoding, Inner, AstreaPreTrainedModel, GenerationMixin):
    """A language model that sees through several frozen experts at once: an `AstreaModel` with a head.

    Use it through `AstreaProcessor`, or `transformers.pipeline("image-text-to-text", model=folder)` after
    ``import astrea``. ``model`` is the `AstreaModel`, ``lm_head`` the layer that makes scores of its states.
    Gemma, Granite and others do more to the scores than that layer; what `forward` returns has it done.

    Args:
        allow_import: whether experts of kind "module:Class" may be imported.
        language_model: a loaded one, head included, that ``config.text_config`` describes; None = a fresh one.
    """

    confidence_estimator: ConfidenceEstimator | None = None
    """When an answer is not to be relied on, if the model's folder says so; see `astrea.confidence`."""

    def __init__(
        self, config: AstreaConfig, *, allow_import: bool = False, language_model: PreTrainedModel | None = None
    ) -> None:
        super().__init__(config)
        made: list[PreTrainedModel] = []

        def inside() -> PreTrainedModel:
            made.append(build_language_model(config) if language_model is None else language_model)
            return split_head(made[0])[0]

        self.model = AstreaModel(config, allow_import=allow_import, language_model=inside)
        self._take_head(made[0])
        self.post_init()
        # Not before: what is not the language model's own would be given fresh values of its kind.
        if config.low_rank is not None:
            inject(self.language_model, config.low_rank)

    @property
    def language_model(self) -> PreTrainedModel:
        """The whole language model: ``model.language_model`` and ``lm_head`` as the one model of its own class that
        they are the parts of."""
        return self._whole[0]

    @language_model.setter
    def language_model(self, whole: PreTrainedModel) -> None:
        self.model.language_model = split_head(whole)[0]
        self._take_head(whole)

    def _take_head(self, whole: PreTrainedModel) -> None:
        """Let ``lm_head`` be that of the whole language model, which is kept beside the parts rather than among them:
        its tensors have one name each. Near ties between words are decided in float32, whatever the head is in."""
        _, name = split_head(whole)
        # In a tuple, or torch would make it a part.
        self._whole, self._head_name = (whole,), name
        nn.Module.__setattr__(self, "lm_head", whole.get_submodule(name))
        names = inner_names(whole)
        self._tied_weights_keys = _renamed(whole._tied_weights_keys or {}, names)
        end = whole.get_output_embeddings()
        if score_best_again not in end._forward_hooks.values():
            end.register_forward_hook(score_best_again)

    def __setattr__(self, name: str, value: Any) -> None:
        """As in torch; a new part under the head, a new head and a new language model go where they belong."""
        if name in (*PARTS, "language_model"):
            # torch would take any module for a part of its own, whatever property has the name.
            object.__setattr__(self, name, value)
            return
        super().__setattr__(name, value)
        if name == "lm_head" and isinstance(value, nn.Module):
            setattr(self.language_model, self._head_name, value)

    def train(self, mode: bool = True) -> Any:
        """As in torch."""
        self.language_model.training = mode
        return super().train(mode)

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """As in transformers: which weights are one is for the language model to say."""
        found = super().get_expanded_tied_weights_keys(True) if all_submodels else {}
        return found | _renamed(self.language_model.get_expanded_tied_weights_keys(), inner_names(self.language_model))

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As in torch; tensors may have the names of earlier versions."""
        return super().load_state_dict(with_current_names(state_dict, self.config.text_config), *args, **kwargs)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()  # type: ignore[no-any-return]

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)
        self._take_head(self.language_model)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers: more or fewer words in the language model's tables, and in the configuration."""
        found = self.language_model.resize_token_embeddings(*args, **kwargs)
        self.config.text_config.vocab_size = self.language_model.config.vocab_size
        self._take_head(self.language_model)
        return found

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        features: Features | None = None,
        present: Tensor | None = None,
        question_mask: Tensor | None = None,
        labels: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        cache: Cache | None = None,
        logits_to_keep: int | Tensor = 0,
        original_images: Sequence[Tensor] | None = None,
        **kwargs: Unpack[Options],
    ) -> AstreaOutput:
        """One pass.

        Args:
            input_ids: (B, L) with M placeholders per picture; or ``inputs_embeds`` (B, L, D), with the embedding of the
                placeholder in their places. With a cache only what is not in it yet.
            attention_mask: (B, L), 0 = padding; with a cache it covers the cached keys too.
            pixel_values: (N, 3, H, W) in 0..1, or ``features`` of the same N pictures.
            original_images: the same N pictures as they are, (3, H, W) each, for experts that read those
                (`astrea.Expert.picture`); None = they read the squares.
            present: (N, E) bool, which experts may be used; None = all.
            question_mask: (B, L) bool, which tokens are the question; None = all text without a label. Of a row that is
                longer than its mask the rest is no question.
            labels: (B, L); -100 = no loss.
            past_key_values, cache: any cache of transformers, under its old or its new name, see `AstreaCache`.
            logits_to_keep: for how many of the last tokens, or for which ones, there are to be logits; 0 = all. Without
                gradients logits of a half-precision model are float32 (`astrea.common.float32.score_best_again`).
            **kwargs: see `astrea.model.inputs.Options`.

        Raises:
            AstreaError: the number of placeholders does not fit the number of pictures, the text is longer than the
                language model's positions or than the cache has room for, or no token of the batch has a label.
        """
        if labels is not None and not (isinstance(logits_to_keep, int) and logits_to_keep == 0):
            raise AstreaError("a loss needs the logits of all tokens", "leave out labels, or logits_to_keep")
        named = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "attention_mask": attention_mask}
        seen = {
            "pixel_values": pixel_values,
            "original_images": original_images,
            "features": features,
            "present": present,
        }
        asked = {"question_mask": question_mask, "labels": labels}
        kept = {"past_key_values": past_key_values, "cache": cache}
        step = self.model.step(Inputs.among(kwargs, **named, **seen, **asked, **kept))
        more = self.model.wanted(kwargs)
        if kwargs.get("answers_only"):
            return self._answers(step, labels, kwargs, more)
        out = self.language_model(**step.arguments(self.windows), logits_to_keep=logits_to_keep, **more)
        loss = None
        if labels is not None:
            loss = weighted_loss(out.logits, labels, kwargs.get("label_weights"), kwargs.get("num_items_in_batch"))
        return AstreaOutput(loss=loss, logits=out.logits, **step.outputs(out))

    def _answers(
        self, step: Step, labels_BL: Tensor | None, options: Mapping[str, Any], more: dict[str, bool]
    ) -> AstreaOutput:
        """A pass that scores nothing but the tokens with a label: A of them."""
        if labels_BL is None:
            raise AstreaError("answers_only was asked for, and there are no labels", "pass labels")
        step, place_BL = step.compact()
        rows_A, before_A = (labels_BL[:, 1:] != -100).nonzero(as_tuple=True)
        scored, index_A = place_BL[rows_A, before_A].unique(return_inverse=True)
        out = self.language_model(**step.arguments(self.windows), logits_to_keep=scored, **more)
        logits_AV = out.logits[rows_A, index_A]
        loss = label_loss(logits_AV, labels_BL, options.get("label_weights"), options.get("num_items_in_batch"))
        return AstreaOutput(loss=loss, label_logits=logits_AV, **step.outputs(out))


def _renamed(tied: Mapping[str, str], beginnings: Mapping[str, str]) -> dict[str, str]:
    """Pairs of tensors' names, each with another beginning."""

    def new(name: str) -> str:
        old = next((old for old in beginnings if name.startswith(old)), "")
        return beginnings.get(old, "") + name.removeprefix(old)

    return {new(one): new(other) for one, other in tied.items()}
