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
from transformers.cache_utils import Cache, DynamicCache
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
from astrea.generation import Decoding
from astrea.language.low_rank import inject
from astrea.language.windows import masks_for, windows_of
from astrea.rows import mean_questions, rows_of_pictures

Features = Mapping[str, ExpertFeatures]


@dataclass
class AstreaOutput(ModelOutput):
    """What `AstreaForConditionalGeneration` returns.

    loss: mean next-token loss over the labels, or None. logits: (B, L, V). shares: (N, S, E).
    key_bias: (B, L), key_words: (B, L, D) or None, key_positions: (B, L) or None and next_position: (B, 1), what later
    decoding steps need to know of the pictures.
    visual: the fused tokens of this call's pictures, for the auxiliary losses.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    shares: Tensor | None = None
    key_bias: Tensor | None = None
    key_words: Tensor | None = None
    key_positions: Tensor | None = None
    next_position: Tensor | None = None
    visual: Any = None


class AstreaForConditionalGeneration(Decoding, PreTrainedModel, GenerationMixin):
    """A language model that sees through several frozen experts at once.

    Experts, adapters, fusion and language model live in one module and in one safetensors folder. Use it through
    `AstreaProcessor`, or `transformers.pipeline("image-text-to-text", model=folder)` after ``import astrea``.

    The language model may be any that `AutoModelForCausalLM` builds and that obeys a four-dimensional mask. Its own
    input embeddings, as its embedding *module* gives them (Gemma scales them there), are the space that visual tokens
    live in. It may have a type of its own (bfloat16, say): whatever meets it is cast where they meet, shares and word
    matches are computed in float32 at least.

    Args:
        allow_import: whether experts of kind "module:Class" may be imported.
        language_model: a loaded one that ``config.text_config`` describes; None = a fresh one.
    """

    config_class = AstreaConfig
    base_model_prefix = "astrea"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules: list[str] = []

    def __init__(
        self, config: AstreaConfig, *, allow_import: bool = False, language_model: PreTrainedModel | None = None
    ) -> None:
        super().__init__(config)
        self.windows = windows_of(config.text_config)
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
        if language_model is None:
            kind = {} if config.language_dtype is None else {"dtype": config.language_dtype}
            language_model = AutoModelForCausalLM.from_config(config.text_config, **kind)
        self.language_model = language_model
        self.post_init()
        # Not before: what is not the language model's own would be given fresh values of its kind.
        if config.low_rank is not None:
            inject(self.language_model, config.low_rank)

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

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; the language model comes back in the type that it has now. Where it once came from is
        left out: the folder is whole, and may go to somebody who need not know the paths of this machine."""
        self.config.text_config.name_or_path = ""
        if self.config.language_dtype is not None:
            self.config.language_dtype = str(self.embedding_table().dtype).removeprefix("torch.")
        return super().save_pretrained(*args, **kwargs)

    def embedding_table(self) -> Tensor:
        """The language model's word embeddings as they are stored: (V, D)."""
        return self.get_input_embeddings().get_parameter("weight")

    @property
    def dtype(self) -> torch.dtype:
        """The type of adapters and fusion. Each expert and the language model may have one of its own."""
        return next(self.alignment.parameters()).dtype

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
        questions: Tensor | None = None,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
        num_items_in_batch: Tensor | float | None = None,
        past_key_values: Cache | None = None,
        key_bias: Tensor | None = None,
        key_words: Tensor | None = None,
        key_positions: Tensor | None = None,
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
            segments, questions: (B, L) for packed rows, see `astrea.attention`.
            labels, label_weights: (B, L); -100 = no loss. The loss is the weighted mean.
            num_items_in_batch: what the labels' weights (1 each, if there are none) add up to in the whole batch, where
                these rows are only a part of it: another process or micro-step has the others. The loss is then this
                part's share of the batch's mean, so that parts add up, and 0 if no token here has a label. (The name
                is that of transformers, whose Trainer passes it.)
            generator: drives the stochastic residual; None = evaluation.
            fusion: fuses instead of the model's own strategy; M is then its ``num_tokens``. For a training stage
                that reads less than the whole model does; decoding with a cache is not provided for.

        Raises:
            AstreaError: the number of placeholders does not fit the number of pictures, the text is longer than the
                language model's positions, or no token of the batch has a label.
        """
        fusion = self.fusion if fusion is None else fusion
        batch, length = input_ids.shape
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        embeds = self.get_input_embeddings()(input_ids)
        real = torch.ones(batch, past + length, dtype=torch.bool, device=input_ids.device)
        if attention_mask is not None:
            real = attention_mask.bool()
        # Half precision is for the language model's own matrices: scores and shares keep the adapters' at least.
        exact = torch.promote_types(embeds.dtype, torch.float32)
        floor = torch.finfo(exact).min
        visual = None
        if past and key_bias is not None and next_position is not None:
            # Decoding: everything about the pictures is in the cache and in key_bias.
            positions = next_position + torch.arange(length, device=input_ids.device)
            key_bias = F.pad(key_bias, (0, past + length - key_bias.shape[1]))
            real = real & (key_bias > floor / 2)
            match = None
            if key_words is not None and fusion.word_match is not None:
                key_words = F.pad(key_words, (0, 0, 0, past + length - key_words.shape[1]))
                match = word_match(embeds.to(exact), key_words, fusion.word_match)
            mask = additive_mask(real, None, None, key_bias.unsqueeze(1), match, queries=length, dtype=embeds.dtype)
            key_positions = positions if key_positions is None else torch.cat([key_positions, positions], 1)
        else:
            is_image = input_ids == self.config.image_token_id
            if features is None and pixel_values is not None:
                features = self.see(pixel_values)
            rows = rows_of_pictures(is_image, features, fusion.num_tokens)
            bias = match = key_words = apart = None
            readable = real
            if features is not None:
                numbers = segments if questions is None else questions
                asked = mean_questions(embeds.to(exact), is_image, real, question_mask, labels, numbers)
                visual = self.fuse(features, present, asked[rows], generator, fusion)
                if visual.words is not None and fusion.word_match is not None:
                    key_words = torch.zeros_like(embeds, dtype=exact)
                    key_words = key_words.masked_scatter(is_image.unsqueeze(-1), visual.words.to(exact))
                    match = word_match(embeds.to(exact), key_words, fusion.word_match)
                embeds = embeds.masked_scatter(is_image.unsqueeze(-1), visual.tokens.to(embeds.dtype))
                readable = real.masked_scatter(is_image, visual.valid)
                if visual.apart is not None:
                    apart = torch.zeros_like(real).masked_scatter(is_image, visual.apart.expand(len(rows), -1))
                if visual.bias is not None:
                    bias = embeds.new_zeros(batch, length, asked.shape[1], dtype=exact)
                    said = visual.bias.transpose(1, 2).to(exact)
                    bias = bias.masked_scatter(is_image.unsqueeze(-1), said).transpose(1, 2)
            positions = position_ids(is_image, real, segments, fusion.num_tokens)
            mask = additive_mask(
                readable,
                picture_blocks(is_image, fusion.num_tokens),
                segments,
                bias,
                match,
                queries=length,
                dtype=embeds.dtype,
                questions_BL=questions,
                apart_BL=apart,
            )
            key_bias = embeds.new_zeros(batch, length, dtype=exact) if bias is None else bias[:, 0]
            key_bias = key_bias.masked_fill(~readable, floor)
            key_positions = positions
        self._check_length(past + length, positions)
        if past_key_values is None and self.windows is not None and use_cache is not False and not self.training:
            past_key_values = DynamicCache()  # with every key: see `Decoding`
        out = self.language_model(
            inputs_embeds=embeds,
            attention_mask=masks_for(mask, key_positions, self.windows),
            position_ids=positions,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
        )
        loss = None if labels is None else weighted_loss(out.logits, labels, label_weights, num_items_in_batch)
        return AstreaOutput(
            loss=loss,
            logits=out.logits,
            past_key_values=out.past_key_values,
            shares=None if visual is None else visual.shares,
            key_bias=key_bias.detach(),
            key_words=None if key_words is None else key_words.detach(),
            key_positions=None if self.windows is None else key_positions,
            next_position=positions[:, -1:] + 1,
            visual=visual,
        )

    def _check_length(self, tokens: int, positions_BL: Tensor) -> None:
        """Whether the language model has a position for every token; looks at the positions only where it must."""
        most = getattr(self.config.text_config, "max_position_embeddings", None)
        if most is not None and tokens > most and (last := int(positions_BL.max())) >= most:
            raise AstreaError(
                f"a row has {last + 1} positions; the language model knows {most}: {last + 1 - most} too many",
                "shorten the text, or choose a language model for longer ones",
            )

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
        exact = embeds.to(torch.promote_types(embeds.dtype, torch.float32))
        asked = mean_questions(exact, is_image, real, question_mask, None, None)
        rows = rows_of_pictures(is_image, features, self.num_visual_tokens)
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
        """The language model's own mean hidden state of each text: (B, D), in float32 at least."""
        real = attention_mask.bool()
        embeds = self.get_input_embeddings()(input_ids)
        positions = position_ids(torch.zeros_like(real), real, None)
        self._check_length(real.shape[1], positions)
        mask = additive_mask(real, None, None, None, queries=real.shape[1], dtype=embeds.dtype)
        hidden = self.language_model.base_model(
            inputs_embeds=embeds,
            attention_mask=masks_for(mask, positions, self.windows),
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        weight = real.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


def unsaved_buffers(module: torch.nn.Module) -> dict[str, Tensor]:
    """The buffers that a state dict leaves out, by name."""
    saved = module.state_dict().keys()
    return {name: buffer for name, buffer in module.named_buffers() if name not in saved}


def weighted_loss(
    logits_BLV: Tensor, labels_BL: Tensor, weights_BL: Tensor | None, total: Tensor | float | None = None
) -> Tensor:
    """Weighted mean next-token cross-entropy; an all-masked batch is an error, not a loss of 0.

    Args:
        total: what the weights add up to in the whole batch, where these rows are a part of it. A part may have no
            label: its loss is 0, with gradients that are 0.

    Raises:
        AstreaError: no token of the batch has a label.
    """
    target = labels_BL[:, 1:]
    keep = target != -100
    if not bool(keep.any() if total is None else total > 0):
        raise AstreaError("every label of this batch is masked", "check the chat template and the answers")
    loss = F.cross_entropy(logits_BLV[:, :-1][keep].float(), target[keep], reduction="none")
    weight = torch.ones_like(loss) if weights_BL is None else weights_BL[:, 1:][keep]
    return (loss * weight).sum() / (weight.sum().clamp_min(1e-6) if total is None else total)
