"""The model without its head: experts -> alignment -> fusion -> language model.

Letters: B rows of text, N pictures (in reading order over the rows), L text length, E experts, M visual tokens per
picture, S questions per row, D language-model width, P contrast width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple

from astrea.alignment.alignment import Alignment
from astrea.alignment.known_words import KnownWords, known_words
from astrea.alignment.matrix import ExpertMatrix
from astrea.alignment.phrase_ids import check_phrase_ids
from astrea.alignment.phrases import phrase_adapter
from astrea.common.errors import AstreaError
from astrea.common.float32 import in_full, wide
from astrea.experts.bank import ExpertBank, Originals
from astrea.experts.protocol import ExpertFeatures
from astrea.experts.word_agreement import WordAgreement
from astrea.fusion.draws import draw_phrases
from astrea.fusion.protocol import FusionStrategy, Layout, VisualTokens
from astrea.fusion.registry import build_strategy
from astrea.language.low_rank import inject
from astrea.language.question_span import find_questions
from astrea.language.windows import windows_of
from astrea.model.cache import AstreaCache, Keys, past_mask
from astrea.model.configuration import AstreaConfig
from astrea.model.embedding import Embedding
from astrea.model.inputs import Features, Inputs, Options
from astrea.model.layout import split_head
from astrea.model.outputs import AstreaModelOutput
from astrea.model.pretrained import AstreaPreTrainedModel, unsaved_buffers
from astrea.model.reading import Text, placeholders, read
from astrea.model.rows import rows_of_pictures
from astrea.model.step import Step


class AstreaModel(Embedding, AstreaPreTrainedModel):
    """Experts, adapters, fusion and the inside of a language model, in one module and in one safetensors folder.

    The language model may be any that `AutoModelForCausalLM` builds and that obeys a four-dimensional mask. Its own
    input embeddings, as its embedding *module* gives them (Gemma scales them there), are the space that visual tokens
    live in. It may have a type of its own (bfloat16, say): whatever meets it is cast where they meet. Shares,
    reliability and word matches are computed in float32 at least, whatever the weights are kept in.

    Args:
        allow_import: whether experts of kind "module:Class" may be imported.
        language_model: makes the language model without its head; called last, because all before it draws random
            numbers. None = a fresh one that ``config.text_config`` describes.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]
    word_agreement: WordAgreement | None = None
    """How sound experts agree, if the model's folder says so; read where ``config.agreement`` is on."""

    def __init__(
        self,
        config: AstreaConfig,
        *,
        allow_import: bool = False,
        language_model: Callable[[], PreTrainedModel] | None = None,
    ) -> None:
        super().__init__(config)
        self.windows = windows_of(config.text_config)
        self._known: tuple[dict[str, Any], KnownWords] | None = None
        self.experts = ExpertBank(config.experts, allow_import=allow_import)
        width = config.text_config.hidden_size
        self.alignment = build_alignment(config, self.experts)
        layout = Layout(
            width, tuple(self.experts.names), tuple(self.alignment.counts), config.text_config.num_attention_heads
        )
        self.fusion = build_strategy(config.strategy, layout, config.fusion, allow_import=allow_import)
        alone = language_model is None
        self.language_model = (
            split_head(build_language_model(config))[0] if language_model is None else language_model()
        )
        self.post_init()  # type: ignore[no-untyped-call]
        # Not before: what is not the language model's own would be given fresh values of its kind.
        if alone and config.low_rank is not None:
            inject(self.language_model, config.low_rank)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """As in torch, but what a language model computes its positions with (tables that no folder holds) is never
        narrowed: in half precision far positions would be the same."""
        before = unsaved_buffers(self.language_model) if "language_model" in self._modules else {}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, table in before.items():
            holder = self.language_model.get_submodule(name.rpartition(".")[0])
            now = holder._buffers[name.rpartition(".")[2]]
            if now is not None and table.is_floating_point() and now.dtype.itemsize < table.dtype.itemsize:
                holder._buffers[name.rpartition(".")[2]] = table.to(now.device)
        return self

    @property
    def num_visual_tokens(self) -> int:
        """M: how many image placeholders one picture takes in ``input_ids``."""
        found: int = self.fusion.num_tokens
        return found

    def get_input_embeddings(self) -> torch.nn.Module:
        found: torch.nn.Module = self.language_model.get_input_embeddings()
        return found

    def set_input_embeddings(self, value: torch.nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers: more or fewer words in the language model's table, and in the configuration."""
        found = self.language_model.resize_token_embeddings(*args, **kwargs)
        self.config.text_config.vocab_size = self.language_model.config.vocab_size
        return found

    def encode_images(
        self, pixel_values: Tensor | None, original_images: Originals | None = None
    ) -> dict[str, ExpertFeatures]:
        """Every expert's features of pictures (N, 3, H, W) in 0..1; no gradient reaches an expert.

        Args:
            original_images: the same pictures as they are, see `astrea.experts.bank.ExpertBank.forward`.

        Raises:
            AstreaError: there are no pictures.
        """
        if pixel_values is None:
            raise AstreaError("neither pixel_values nor features were given", "pass one of them")
        with torch.no_grad():
            found: dict[str, ExpertFeatures] = self.experts(pixel_values, originals=original_images)
            return found

    def with_words(self, matrix: ExpertMatrix) -> ExpertMatrix:
        """The expert matrix with the embeddings of those tokens that are the language model's own words.

        Raises:
            AstreaError: an expert names a word that the language model does not have.
        """
        if matrix.ids is None:
            return matrix
        embedding, words = self.get_input_embeddings(), self.config.text_config.vocab_size
        if not torch.compiler.is_compiling() and int(matrix.ids.max()) >= words:
            raise AstreaError(
                f"an expert reads the word piece {int(matrix.ids.max())}, the language model knows {words}",
                "give it the language model's own tokenizer (astrea.Expert.use_tokenizer)",
            )
        rows = embedding(matrix.ids.clamp_min(0)).to(matrix.tokens.dtype)
        own = (matrix.ids >= 0).unsqueeze(-1)
        return replace(matrix, tokens=matrix.tokens + torch.where(own, rows, 0))

    def known_words(self) -> KnownWords | None:
        """What features were taught in training, as the configuration has it; None where that says nothing."""
        written = self.config.phrase_ids
        if not (written or {}).get("known"):
            return None
        if self._known is None or self._known[0] is not written:
            ids = check_phrase_ids(written, self.config.text_config.vocab_size)
            assert ids is not None
            embedding = self.get_input_embeddings()
            words = self.config.text_config.vocab_size
            with torch.inference_mode(False):  # they are kept, and may be read next where gradients are taken
                known = known_words(ids, self.experts.names, embedding, words, self.embedding_table().device)
            self._known = written, known
        return self._known[1]

    def train(self, mode: bool = True) -> AstreaModel:
        """As of every module; the language model's words may have changed since they were last asked for."""
        self._known = None
        super().train(mode)
        return self

    def believed(self, features: Features, present: Tensor | None) -> Tensor | None:
        """Which experts (N, E) may be used about each picture: of those that are there, the ones whose words the others
        do not contradict. ``present`` as it is where `AstreaConfig.agreement` is off, or nothing is known to judge by.

        Raises:
            AstreaError: in a compiled or exported model, which cannot decide by values.
        """
        if self.word_agreement is None or not self.config.agreement:
            return present
        if torch.compiler.is_compiling():
            raise AstreaError("agreement is not judged in a compiled or exported model", "set config.agreement=False")
        return self.word_agreement.believed(features, present)

    def fuse(
        self,
        features: Features,
        present: Tensor | None,
        question_NSD: Tensor,
        generator: torch.Generator | None,
        fusion: FusionStrategy | None = None,
        phrase_dropout: float = 0.0,
    ) -> VisualTokens:
        """Alignment and fusion (the model's own, or another one's) of pictures whose questions are (N, S, D).

        Args:
            phrase_dropout: see `astrea.model.inputs.Options`; of effect only with a generator.
        """
        if generator is None:  # in training whom to believe is learned
            present = self.believed(features, present)
        matrix = in_full(self.alignment, features, present)
        if (known := self.known_words()) is not None:
            matrix = known.written_out(known.familiar(matrix))
        matrix = self.with_words(matrix)
        if matrix.phrase is not None and phrase_dropout and generator is not None:
            matrix = matrix.without_phrases(draw_phrases(matrix.present, phrase_dropout, generator))
        question_NSD = question_NSD.to(matrix.tokens.dtype)
        found: VisualTokens = in_full(self.fusion if fusion is None else fusion, matrix, question_NSD, generator)
        return found

    def get_image_features(
        self,
        pixel_values: Tensor | None = None,
        features: Features | None = None,
        present: Tensor | None = None,
        original_images: Originals | None = None,
    ) -> BaseModelOutputWithPooling:
        """The visual tokens (N, M, D) of pictures for no question in particular, as the language model would read them:
        the ``pooler_output``, as in transformers; the same under ``last_hidden_state``."""
        features = self.encode_images(pixel_values, original_images) if features is None else features
        nothing = self.embedding_table().new_zeros(
            len(next(iter(features.values())).tokens), 1, self.config.text_config.hidden_size
        )
        tokens = self.fuse(features, present, nothing.to(wide(nothing.dtype)), None).tokens
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=tokens)

    def step(self, inputs: Inputs) -> Step:
        """All that happens before the language model runs.

        Raises:
            AstreaError: as `AstreaForConditionalGeneration.forward`.
        """
        fusion = self.fusion if inputs.fusion is None else inputs.fusion
        embedding = self.get_input_embeddings()
        embeds = embedding(inputs.input_ids) if inputs.inputs_embeds is None else inputs.inputs_embeds
        use_cache = not self.training if inputs.use_cache is None else inputs.use_cache
        cache = self._cache(inputs.given_cache, embeds.shape[1], wanted=use_cache)
        past = 0 if cache is None else cache.length
        features = inputs.features
        if features is None and inputs.pixel_values is not None:
            features = self.encode_images(inputs.pixel_values, inputs.original_images)
        is_image = placeholders(inputs.input_ids, embeds, self.config.image_token_id, embedding)
        known = None
        if cache is not None and past:
            known = cache.keys() or Keys.of_text(past_mask(inputs.attention_mask, embeds, past), embeds)
            if inputs.segments is not None:
                raise AstreaError("packed rows cannot go on from a cache", "leave out segments, or the cache")
            if features is None:
                # Without a picture to put there it is a word like others; drafts of an answer may hold it.
                is_image = torch.zeros_like(is_image)
        text = self._text(inputs, embeds, is_image, later=bool(past))
        rows = visual = None
        if features is not None or not past:
            rows = rows_of_pictures(is_image, features, fusion.num_tokens)
        if features is not None and rows is not None:
            visual = self.fuse(
                features, inputs.present, text.mean_questions()[rows], inputs.generator, fusion, inputs.phrase_dropout
            )
        in_order = self.config.findings != "tokens"
        reading = read(text, visual, rows, fusion.word_match, fusion.num_tokens, known, in_order=in_order)
        self._check_length(reading.keys.positions.shape[1], reading.positions)
        return Step(reading, cache, use_cache, visual)

    def _cache(self, given: Cache | None, new: int, *, wanted: bool) -> AstreaCache | None:
        """The given cache, or a fresh one where one is wanted, fit for so many new keys."""
        if given is None and not wanted:
            return None
        cache = AstreaCache(DynamicCache() if given is None else given)
        cache.prepare(new, windows=self.windows is not None)
        return cache

    def _text(self, inputs: Inputs, embeds: Tensor, is_image: Tensor, *, later: bool) -> Text:
        """The new tokens; ``later``: they go on from a cache. The mask of the questions is found anew, if the
        configuration tells how, where there is none, or one of prompts that have been moved and answered since."""
        mask, ids, span = inputs.question_mask, inputs.input_ids, self.config.question_span
        if span is not None and ids is not None and not later and inputs.segments is None:
            mask = find_questions(ids, span) if mask is None or mask.shape != ids.shape else mask
        return Text(embeds, is_image, inputs.attention_mask, mask, inputs.labels, inputs.segments, inputs.questions)

    def _check_length(self, tokens: int, positions_BL: Tensor) -> None:
        """Whether the language model has a position for every token; looks at the positions only where it must."""
        most = getattr(self.config.text_config, "max_position_embeddings", None)
        if most is not None and tokens > most and (last := int(positions_BL.max())) >= most:
            raise AstreaError(
                f"a row has {last + 1} positions; the language model knows {most}: {last + 1 - most} too many",
                "shorten the text, or choose a language model for longer ones",
            )

    def wanted(self, options: Mapping[str, Any]) -> dict[str, bool]:
        """What else the language model is to return (output_attentions, output_hidden_states): as the call says, or the
        configuration where the call says nothing."""
        asked = {name: options.get(name) for name in ("output_attentions", "output_hidden_states")}
        asked = {name: getattr(self.config, name, None) if flag is None else flag for name, flag in asked.items()}
        return {name: True for name, flag in asked.items() if flag}

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
        **kwargs: Unpack[Options],
    ) -> AstreaModelOutput:
        """One pass without the head; see `AstreaForConditionalGeneration.forward`. Labels only say which tokens are an
        answer and therefore no part of the question."""
        inputs = Inputs.among(
            kwargs,
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            features=features,
            present=present,
            question_mask=question_mask,
            labels=labels,
            inputs_embeds=inputs_embeds,
            past_key_values=past_key_values,
            cache=cache,
        )
        step = self.step(inputs)
        out = self.language_model(**step.arguments(self.windows), **self.wanted(kwargs))
        return AstreaModelOutput(last_hidden_state=out.last_hidden_state, **step.outputs(out))


def build_alignment(config: AstreaConfig, experts: ExpertBank) -> Alignment:
    """Fresh adapters and heads, as the configuration asks for.

    Raises:
        AstreaError: findings are to enter as phrases, and the configuration does not say which.
    """
    ids = check_phrase_ids(config.phrase_ids, config.text_config.vocab_size)
    width, phrases = config.text_config.hidden_size, None
    if config.findings != "tokens":
        if ids is None:
            raise AstreaError(
                f"findings is {config.findings!r}, and the configuration has no phrase_ids",
                "assemble the model from a recipe with model.findings; config.json then has them",
            )
        phrases = {
            name: phrase_adapter(
                name, experts[name], ids, config.findings, hidden=config.adapter_hidden, model_width=width
            )
            for name in experts.names
        }
    return Alignment(
        {name: (experts[name].num_tokens, experts[name].width) for name in experts.names},
        hidden=config.adapter_hidden,
        model_width=width,
        contrast=config.contrast_width,
        phrases=phrases,
    )


def build_language_model(config: AstreaConfig) -> PreTrainedModel:
    """A fresh language model, head included, of the type that the configuration asks for."""
    kind = {} if config.language_dtype is None else {"dtype": config.language_dtype}
    return AutoModelForCausalLM.from_config(config.text_config, **kind)  # type: ignore[no-any-return]
