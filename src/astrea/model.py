"""The whole model: experts -> alignment -> fusion -> language model -> answer, as a transformers model.

Letters: B rows of text, N pictures (in reading order over the rows), L text length, E experts, M visual tokens per
picture, S questions per row, D language-model width, P contrast width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from astrea.alignment.alignment import Alignment
from astrea.attention import attention_mask as additive_mask
from astrea.attention import picture_blocks, position_ids, word_match
from astrea.configuration import AstreaConfig
from astrea.errors import AstreaError
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens
from astrea.fusion.strategies import build_strategy

Features = Mapping[str, ExpertFeatures]


@dataclass
class AstreaOutput(ModelOutput):
    """What `AstreaForConditionalGeneration` returns.

    loss: mean next-token loss over the labels, or None. logits: (B, L, V). shares: (N, S, E).
    key_bias: (B, L), key_words: (B, L, D) or None and next_position: (B, 1), what later decoding steps need to know of
    the pictures.
    visual: the fused tokens of this call's pictures, for the auxiliary losses.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    shares: Tensor | None = None
    key_bias: Tensor | None = None
    key_words: Tensor | None = None
    next_position: Tensor | None = None
    visual: Any = None


class AstreaForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A language model that sees through several frozen experts at once.

    Experts, adapters, fusion and language model live in one module and in one safetensors folder. Use it through
    `AstreaProcessor`, or `transformers.pipeline("image-text-to-text", model=folder)` after ``import astrea``.
    """

    config_class = AstreaConfig
    base_model_prefix = "astrea"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules: list[str] = []

    def __init__(self, config: AstreaConfig, *, allow_import: bool = False) -> None:
        super().__init__(config)
        self.experts = ExpertBank(config.experts, allow_import=allow_import)
        width = config.text_config.hidden_size
        self.alignment = Alignment(
            {name: (self.experts[name].num_tokens, self.experts[name].width) for name in self.experts.names},
            hidden=config.adapter_hidden,
            model_width=width,
            contrast=config.contrast_width,
        )
        layout = Layout(
            width, tuple(self.experts.names), tuple(self.experts.token_counts), config.text_config.num_attention_heads
        )
        self.fusion = build_strategy(config.strategy, layout, config.fusion)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: Any, *args: Any, trust_remote_code: bool | None = None, **kwargs: Any
    ) -> Any:
        """As in transformers. Experts of kind "module:Class" are imported only with ``trust_remote_code=True``."""
        allowed = bool(trust_remote_code)
        loaded = super().from_pretrained(
            folder, *args, trust_remote_code=trust_remote_code, allow_import=allowed, **kwargs
        )
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # transformers leaves buffers that are not in the file uninitialised; the language model and our own parts have
        # an answer to that, the experts of others need not.
        lost = unsaved_buffers(model.experts)
        if lost:
            fresh = unsaved_buffers(ExpertBank(model.config.experts, allow_import=allowed))
            for name, buffer in lost.items():
                buffer.copy_(fresh[name])
        return loaded

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Every part initialises itself; nothing here may overwrite a zero start or pretrained weights."""

    @property
    def num_visual_tokens(self) -> int:
        """M: how many image placeholders one picture takes in ``input_ids``."""
        return self.fusion.num_tokens

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: torch.nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.language_model.get_output_embeddings()

    def see(self, pixel_values: Tensor | None) -> dict[str, ExpertFeatures]:
        """Every expert's features of pictures (N, 3, H, W) in 0..1; no gradient reaches an expert.

        Raises:
            AstreaError: there are no pictures.
        """
        if pixel_values is None:
            raise AstreaError("neither pixel_values nor features were given", "pass one of them")
        with torch.no_grad():
            return self.experts(pixel_values)

    def fuse(
        self,
        features: Features,
        present: Tensor | None,
        question_NSD: Tensor,
        generator: torch.Generator | None,
        fusion: FusionStrategy | None = None,
    ) -> VisualTokens:
        """Alignment and fusion (the model's own, or another one's) of pictures whose questions are (N, S, D)."""
        fusion = self.fusion if fusion is None else fusion
        return fusion(self.alignment(features, present), question_NSD, generator)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        features: Features | None = None,
        present: Tensor | None = None,
        question_mask: Tensor | None = None,
        segments: Tensor | None = None,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
        past_key_values: Cache | None = None,
        key_bias: Tensor | None = None,
        key_words: Tensor | None = None,
        next_position: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        generator: torch.Generator | None = None,
        fusion: FusionStrategy | None = None,
        **kwargs: Any,
    ) -> AstreaOutput:
        """One pass.

        Args:
            input_ids: (B, L) with M placeholders per picture.
            attention_mask: (B, L), 0 = padding; with a cache it covers the cached keys too.
            pixel_values: (N, 3, H, W) in 0..1, or ``features`` of the same N pictures (cached).
            present: (N, E) bool, which experts may be used; None = all.
            question_mask: (B, L) bool, which tokens are the question; None = all text without a label.
            segments: (B, L) for packed rows, see `astrea.attention`.
            labels, label_weights: (B, L); -100 = no loss. The loss is the weighted mean.
            generator: drives the stochastic residual; None = evaluation.
            fusion: fuses instead of the model's own strategy; M is then its ``num_tokens``. For a training stage
                that reads less than the whole model does; decoding with a cache is not provided for.

        Raises:
            AstreaError: the number of placeholders does not fit the number of pictures.
        """
        fusion = self.fusion if fusion is None else fusion
        batch, length = input_ids.shape
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        embeds = self.get_input_embeddings()(input_ids)
        real = torch.ones(batch, past + length, dtype=torch.bool, device=input_ids.device)
        if attention_mask is not None:
            real = attention_mask.bool()
        visual = None
        if past and key_bias is not None and next_position is not None:
            # Decoding: everything about the pictures is in the cache and in key_bias.
            positions = next_position + torch.arange(length, device=input_ids.device)
            key_bias = F.pad(key_bias, (0, past + length - key_bias.shape[1]))
            real = real & (key_bias > torch.finfo(embeds.dtype).min / 2)
            match = None
            if key_words is not None and fusion.word_match is not None:
                key_words = F.pad(key_words, (0, 0, 0, past + length - key_words.shape[1]))
                match = word_match(embeds, key_words, fusion.word_match)
            mask = additive_mask(real, None, None, key_bias.unsqueeze(1), match, queries=length, dtype=embeds.dtype)
        else:
            is_image = input_ids == self.config.image_token_id
            if features is None and pixel_values is not None:
                features = self.see(pixel_values)
            rows = self._rows_of_pictures(is_image, features, fusion.num_tokens)
            bias = match = key_words = None
            readable = real
            if features is not None:
                asked = self._questions(embeds, is_image, real, question_mask, labels, segments)
                visual = self.fuse(features, present, asked[rows], generator, fusion)
                if visual.words is not None and fusion.word_match is not None:
                    key_words = torch.zeros_like(embeds).masked_scatter(is_image.unsqueeze(-1), visual.words)
                    match = word_match(embeds, key_words, fusion.word_match)
                embeds = embeds.masked_scatter(is_image.unsqueeze(-1), visual.tokens.to(embeds.dtype))
                readable = real.masked_scatter(is_image, visual.valid)
                if visual.bias is not None:
                    bias = embeds.new_zeros(batch, length, asked.shape[1])
                    bias = bias.masked_scatter(is_image.unsqueeze(-1), visual.bias.transpose(1, 2)).transpose(1, 2)
            positions = position_ids(is_image, real, segments)
            blocks = picture_blocks(is_image)
            mask = additive_mask(readable, blocks, segments, bias, match, queries=length, dtype=embeds.dtype)
            key_bias = embeds.new_zeros(batch, length) if bias is None else bias[:, 0]
            key_bias = key_bias.masked_fill(~readable, torch.finfo(embeds.dtype).min)
        out = self.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
        )
        loss = None if labels is None else weighted_loss(out.logits, labels, label_weights)
        return AstreaOutput(
            loss=loss,
            logits=out.logits,
            past_key_values=out.past_key_values,
            shares=None if visual is None else visual.shares,
            key_bias=key_bias.detach(),
            key_words=None if key_words is None else key_words.detach(),
            next_position=positions[:, -1:] + 1,
            visual=visual,
        )

    @staticmethod
    def _rows_of_pictures(is_image_BL: Tensor, features: Features | None, tokens: int) -> Tensor:
        """Which row each picture of ``tokens`` visual tokens belongs to (N,), after checking the placeholders."""
        per_row = is_image_BL.sum(1)
        wanted = 0 if features is None else len(next(iter(features.values())).tokens)
        if int(per_row.sum()) != wanted * tokens or bool((per_row % tokens).any()):
            raise AstreaError(
                f"{wanted} pictures of {tokens} visual tokens do not fit {per_row.tolist()} image placeholders per row",
                "build the inputs with AstreaProcessor, one <image> per picture, and do not truncate them",
            )
        rows = torch.arange(len(per_row), device=is_image_BL.device)
        return rows.repeat_interleave(per_row // tokens)

    @staticmethod
    def _questions(
        embeds: Tensor,
        is_image: Tensor,
        real: Tensor,
        question_mask: Tensor | None,
        labels: Tensor | None,
        segments: Tensor | None,
    ) -> Tensor:
        """Mean word embedding of every question: (B, S, D). An answer's own tokens never count."""
        asked = real & ~is_image
        if question_mask is not None:
            asked = asked & question_mask.bool()
        if labels is not None:
            asked = asked & (labels == -100)
        if segments is None:
            member = asked.unsqueeze(-1)
        else:
            count = max(1, int(segments.max()))
            member = (segments.unsqueeze(-1) == torch.arange(1, count + 1, device=segments.device)) & asked.unsqueeze(
                -1
            )
        weight = member.to(embeds.dtype)
        return torch.einsum("bls,bld->bsd", weight, embeds) / weight.sum(1).clamp_min(1).unsqueeze(-1)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        next_position: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        use_cache = kwargs.get("use_cache", True)
        inputs = {"attention_mask": attention_mask, "past_key_values": past_key_values, "use_cache": use_cache}
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if past:
            carried = {"key_bias": kwargs.get("key_bias"), "key_words": kwargs.get("key_words")}
            return inputs | carried | {"input_ids": input_ids[:, past:], "next_position": next_position}
        first = ("pixel_values", "features", "present", "question_mask")
        return inputs | {"input_ids": input_ids} | {key: kwargs[key] for key in first if kwargs.get(key) is not None}

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        asked = model_kwargs.get("question_mask")
        if asked is None:
            asked = torch.ones_like(outputs.key_bias, dtype=torch.bool)
        # Without a cache everything is read anew at each step; what has been generated is never part of the question.
        carried = {name: outputs[name] for name in ("key_bias", "key_words", "next_position") if name in outputs}
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

    @torch.no_grad()
    def shares(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        question_mask: Tensor | None = None,
        features: Features | None = None,
        present: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> Tensor:
        """The share of every expert (N, E) for rows of one question each, without running the language model."""
        is_image = input_ids == self.config.image_token_id
        features = features if features is not None else self.see(pixel_values)
        real = torch.ones_like(is_image) if attention_mask is None else attention_mask.bool()
        embeds = self.get_input_embeddings()(input_ids)
        asked = self._questions(embeds, is_image, real, question_mask, None, None)
        rows = self._rows_of_pictures(is_image, features, self.num_visual_tokens)
        return self.fuse(features, present, asked[rows], None).shares[:, 0]

    @torch.no_grad()
    def embed_image(
        self, pixel_values: Tensor | None = None, features: Features | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Unit vectors (N, P) of pictures, comparable with `embed_text` by dot product."""
        return self.picture_vectors(features if features is not None else self.see(pixel_values), present)

    def picture_vectors(
        self, features: Features, present: Tensor | None = None, *, alignment: Alignment | None = None
    ) -> Tensor:
        """`embed_image` with gradient: the head reads the fused tokens for the empty question.

        Args:
            alignment: the momentum copy instead of the model's own adapters and heads.
        """
        alignment = alignment or self.alignment
        matrix = alignment(features, present)
        nothing = matrix.tokens.new_zeros(len(matrix.tokens), 1, matrix.tokens.shape[-1])
        fused = self.fusion(matrix, nothing)
        return alignment.picture_head(fused.tokens, fused.valid)

    @torch.no_grad()
    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Unit vectors (B, P) of texts without pictures or chat marks."""
        return self.alignment.text_head(self.text_states(input_ids, attention_mask))

    @torch.no_grad()
    def text_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The language model's own mean hidden state of each text: (B, D)."""
        real = attention_mask.bool()
        hidden = self.language_model.base_model(
            inputs_embeds=self.get_input_embeddings()(input_ids),
            attention_mask=additive_mask(real, None, None, None, queries=real.shape[1], dtype=self.dtype),
            position_ids=position_ids(torch.zeros_like(real), real, None),
            use_cache=False,
        ).last_hidden_state
        weight = real.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


def unsaved_buffers(module: torch.nn.Module) -> dict[str, Tensor]:
    """The buffers that a state dict leaves out, by name."""
    saved = module.state_dict().keys()
    return {name: buffer for name, buffer in module.named_buffers() if name not in saved}


def weighted_loss(logits_BLV: Tensor, labels_BL: Tensor, weights_BL: Tensor | None) -> Tensor:
    """Weighted mean next-token cross-entropy; an all-masked batch is an error, not a loss of 0.

    Raises:
        AstreaError: no token has a label.
    """
    target = labels_BL[:, 1:]
    keep = target != -100
    if not bool(keep.any()):
        raise AstreaError("every label of this batch is masked", "check the chat template and the answers")
    loss = F.cross_entropy(logits_BLV[:, :-1][keep].float(), target[keep], reduction="none")
    if weights_BL is None:
        return loss.mean()
    weight = weights_BL[:, 1:][keep]
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)
