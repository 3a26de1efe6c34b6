"""The model of a recipe, assembled from pretrained components and from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from astrea.alignment.phrase_ids import PhraseIds, spell, word_scale
from astrea.common.paths import is_file
from astrea.experts.bank import COMPACT, ExpertBank, expert_specs
from astrea.experts.packaged.kinds import OWN_HEADS
from astrea.experts.pretrained.entry import resolve
from astrea.experts.pretrained.fresh import start_fresh
from astrea.experts.pretrained.weights import load_checkpoint
from astrea.language.builtin import tiny_language
from astrea.language.chat_format import ChatFormat
from astrea.language.checkpoint import language_from_architecture, load_language, settle_generation, trained_word_match
from astrea.language.labels import LabelWords
from astrea.language.plain import ReferenceOutputs, Retention, compare
from astrea.model.components import LANGUAGE, load_component
from astrea.model.configuration import AstreaConfig
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaImageProcessor, AstreaProcessor
from astrea.recipes.recipe import ExpertEntry, Recipe


def entries_of(experts: Mapping[str, Mapping[str, Any]]) -> dict[str, ExpertEntry]:
    """A configuration's experts as the recipe writes them."""
    return {name: ExpertEntry(kind=e["kind"], options=e.get("options") or {}) for name, e in experts.items()}


def load_experts(bank: ExpertBank, entries: Mapping[str, ExpertEntry], components: Path | None) -> None:
    """Fill a bank's experts: from their checkpoints; the compact ones, and heads that were trained there, from a folder
    of components (None: leave them fresh). Those that are only described keep their random weights; experts of any
    other kind bring their own.

    Raises:
        AstreaError: a part or a checkpoint is missing, altered or does not fit.
    """
    for name, entry in entries.items():
        if entry.checkpoint is not None:
            load_checkpoint(name, bank[name], entry)
        elif entry.architecture is not None:
            start_fresh(name, bank[name])
        elif components is not None and entry.kind in COMPACT:
            load_component(bank[name], components, entry.kind)
        elif components is not None and entry.kind in OWN_HEADS and is_file(components / f"{entry.kind}.safetensors"):
            load_component(bank[name].head, components, entry.kind)  # type: ignore[arg-type]


def configure(
    recipe: Recipe,
    experts: Mapping[str, Mapping[str, Any]],
    text: PreTrainedConfig,
    image_token_id: int,
    phrase_ids: PhraseIds | None = None,
) -> AstreaConfig:
    """The configuration of a recipe's model.

    Args:
        experts: what `AstreaConfig.experts` says of them. text: the language model's. phrase_ids: what `spell` made.
    """
    low_rank = recipe.llm.low_rank
    return AstreaConfig(
        text_config=text.to_dict(),
        experts={name: dict(entry) for name, entry in experts.items()},
        strategy=recipe.model.strategy,
        fusion=recipe.model.fusion(),
        adapter_hidden=recipe.model.adapter_hidden,
        contrast_width=recipe.model.contrast_width,
        image_token_id=image_token_id,
        image_size=recipe.world.canvas,
        attention=recipe.llm.attention,
        language_dtype=None if recipe.llm.tiny else recipe.llm.dtype,
        low_rank=None if low_rank is None else low_rank.model_dump(mode="json"),
        findings=recipe.model.findings,
        agreement=recipe.model.agreement,
        phrase_ids=None if phrase_ids is None else phrase_ids.model_dump(mode="json"),
    )


def random_weights(recipe: Recipe) -> str | None:
    """A sentence that names what a recipe only describes, so that nobody takes it for real; None if nothing."""
    described = [
        f"experts.{name}" for name, entry in recipe.experts.items() if entry.checkpoint is None and entry.architecture
    ]
    if recipe.llm.checkpoint is None and not recipe.llm.tiny:
        described.append("llm")
    if not described:
        return None
    return f"random weights: {', '.join(described)} (an architecture without a checkpoint; good for measuring only)"


class Assembled(NamedTuple):
    """A recipe's model. reference: what its language model said of plain sentences when it was loaded; None if nobody
    asked for it, or that has no checkpoint, or fresh weights."""

    model: AstreaForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    reference: ReferenceOutputs | None

    def retention(self) -> Retention | None:
        """How much of that the model still says; None where nothing was said."""
        if self.reference is None:
            return None
        model, was_training = self.model, self.model.training
        model.eval()
        try:
            return compare(self.reference, self._ask, model.embedding_table().dtype)
        finally:
            model.train(was_training)

    def _ask(self, ids: Tensor, mask: Tensor) -> Tensor:
        device = self.model.embedding_table().device
        logits: Tensor = self.model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        assert logits is not None
        return logits


def untrained_word_match(recipe: Recipe, text: PreTrainedConfig) -> str | None:
    """A warning for whoever asks for a word match that the language model was never trained with; None if all is
    well.

    Args:
        text: the language model's configuration.
    """
    if recipe.llm.checkpoint is None or not recipe.model.word_match or trained_word_match(text):
        return None
    return (
        f"warning: model.word_match is {recipe.model.word_match:g}, and {recipe.llm.checkpoint} was never trained "
        "with one: whatever it knows is likely lost as soon as it is shown a picture; model.word_match=0 takes it out"
    )


def assemble(recipe: Recipe, components: Path | None) -> tuple[AstreaForConditionalGeneration, PreTrainedTokenizerBase]:
    """Build the model of a recipe; fill experts and language model from a folder of components (None: leave them
    fresh). A language model with a checkpoint comes from there instead, and one that is only described has
    random weights.

    Adapters start at the words of their expert's channels, after the language model's weights are in.
    """
    return _assembled(recipe, components, reference=False)[:2]


def assemble_with_reference(recipe: Recipe, components: Path | None) -> Assembled:
    """`assemble`, and what the language model says of plain sentences before it is built in."""
    return _assembled(recipe, components, reference=True)


def _assembled(recipe: Recipe, components: Path | None, *, reference: bool) -> Assembled:
    """See `assemble`. reference: whether the language model reads plain sentences first."""
    entries = {name: resolve(name, entry) for name, entry in recipe.experts.items()}
    declared = expert_specs(entries)
    torch.manual_seed(recipe.seed)
    language: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    said: ReferenceOutputs | None = None
    if recipe.llm.checkpoint is not None:
        language, tokenizer, said = load_language(
            recipe.llm, pretrained=recipe.model.pretrained_llm, reference=reference
        )
    else:
        builtin = tiny_language()
        tokenizer = builtin.tokenizer(declared.values())
        if recipe.llm.tiny:
            language = builtin.model(recipe.llm)
            if components is not None and recipe.model.pretrained_llm:
                load_component(language, components, LANGUAGE)
            if len(tokenizer) > language.config.vocab_size:
                language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        else:
            language = language_from_architecture(recipe.llm, len(tokenizer))
    whole = not recipe.llm.tiny or recipe.llm.low_rank is not None
    image_token_id: Any = tokenizer.convert_tokens_to_ids("<image>")
    phrase_ids = None
    if recipe.model.findings != "tokens":
        scale = word_scale(language.get_input_embeddings(), len(tokenizer))
        phrase_ids = spell(recipe.model.findings, declared, tokenizer, scale)
    config = configure(recipe, entries, language.config, image_token_id, phrase_ids)
    config.question_span = ChatFormat(tokenizer).question_span
    model = AstreaForConditionalGeneration(config, allow_import=True, language_model=language if whole else None)
    if not whole:
        model.language_model.load_state_dict(language.state_dict())
    load_experts(model.experts, recipe.experts, components)
    model.experts.use_tokenizer(tokenizer)
    if recipe.model.word_start:
        for name in model.experts.names:
            labels = model.experts[name].labels
            if any(labels):
                words = LabelWords(labels, tokenizer).read(model.get_input_embeddings())
                model.alignment.adapters[name].start_at_words(words)  # type: ignore[operator]
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    if recipe.llm.checkpoint is not None:
        settle_generation(model, tokenizer, language)
    if recipe.llm.gradient_checkpointing:
        # transformers has renamed it.
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        # Only the older, re-entrant kind of checkpointing needs gradients of frozen word embeddings.
        model.disable_input_require_grads()
    return Assembled(model, tokenizer, said)


def processor_of(model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> AstreaProcessor:
    """The processor that a model is saved with."""
    return AstreaProcessor(
        image_processor=AstreaImageProcessor(model.config.image_size, model.experts.wants_originals),
        tokenizer=tokenizer,
        num_visual_tokens=model.num_visual_tokens,
    )
