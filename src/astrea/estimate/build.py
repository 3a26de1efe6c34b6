"""The model of a recipe without its numbers, and training data of the right shape for it.

A checkpoint is described by its configuration alone: from ``architecture`` in the recipe where that is given, else from
the checkpoint's config.json in a folder or in the hub's cache. Nothing is fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from astrea.alignment.phrase_ids import spell
from astrea.common.config_only import read_architecture
from astrea.common.errors import AstreaError
from astrea.common.paths import is_folder
from astrea.common.quiet import quiet
from astrea.data.packing import Turn
from astrea.estimate.fake_tensors import fake_tensors, to_fake
from astrea.experts.bank import expert_specs
from astrea.experts.pretrained.captioning import CaptionCheckpoint
from astrea.experts.pretrained.entry import from_architecture, from_folder
from astrea.language.checkpoint import prepare_tokenizer
from astrea.language.gguf import gguf_file, read_config, read_tokenizer
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import configure
from astrea.training.context import TrainingContext
from astrea.training.distributed import Distributed
from astrea.training.plain_chat import PlainChat, plain_questions
from astrea.world.dataset import WorldData, features_of, scenes_of
from astrea.world.language.tiny import TinyLanguage, tiny_language_model
from astrea.world.scenes.captions import captions
from astrea.world.scenes.questions import training_questions

SAMPLES = 32
"""Pictures that batches are drawn from, over and over: their texts are real, and texts are much alike."""


def fake_context(recipe: Recipe, *, samples: int = SAMPLES) -> TrainingContext:
    """What a run's stages share, with a model and features that hold no numbers.

    Args:
        samples: pictures that the batches are drawn from; their texts are real.

    Raises:
        AstreaError: the configuration of a checkpoint is not there, or describes no model that can be built.
    """
    model, tokenizer = fake_model(recipe)
    return context_of(recipe, model, tokenizer, samples=samples)


def context_of(
    recipe: Recipe, model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, *, samples: int = SAMPLES
) -> TrainingContext:
    """The same for a model that was built somewhere else; one that has its numbers keeps them."""
    scenes = list(scenes_of("train", samples, recipe.world))
    asked = training_questions(scenes, recipe.data.questions_per_scene, recipe.world.seed)
    texts = [captions(scene, 3, index) for index, scene in enumerate(scenes)]
    if model.device.type != "meta":
        data = WorldData(features_of(model.experts, scenes), asked, texts, recipe.world)
        return with_chat(TrainingContext(recipe, model, tokenizer, data, Distributed(device=model.device.type)))
    size = model.config.image_size
    with fake_tensors(), torch.no_grad():
        features = model.encode_images(torch.empty(samples, 3, size, size, device="meta"))
    with fake_tensors():  # so that ids and counters stay there when all else goes
        data = WorldData(features, asked, texts, recipe.world)
        return with_chat(TrainingContext(recipe, model, tokenizer, data, Distributed(device="meta")))


def with_chat(ctx: TrainingContext) -> TrainingContext:
    """The same with plain chat, where the recipe wants some: questions stand in for the answers to them."""
    if ctx.recipe.data.text_share:
        ctx.chat = PlainChat(tuple(Turn(question, question) for question in plain_questions()))
    return ctx


def fake_model(recipe: Recipe) -> tuple[AstreaForConditionalGeneration, PreTrainedTokenizerBase]:
    """The model of a recipe on the meta device. Raises as `fake_context` does."""
    with torch.device("meta"):
        model, tokenizer = _around(recipe)
    to_fake(model)
    for name in model.experts.names:
        expert = model.experts[name]
        if isinstance(expert, CaptionCheckpoint):
            # Without numbers no word ends a sentence: the longest ones are counted.
            expert.settings = expert.settings.model_copy(update={"end_ids": ()})
    return model, tokenizer


def language_config(recipe: Recipe) -> PreTrainedConfig | None:
    """The configuration of the recipe's language model where that is one of transformers; None where it is not.

    Raises:
        AstreaError: it is not on this machine, or is no configuration.
    """
    language = recipe.llm
    if language.architecture is not None:
        return read_architecture(language.architecture, "llm.architecture")
    if language.checkpoint is None:
        return None
    if language.gguf:
        return read_config(gguf_file(language.checkpoint))
    try:
        found: PreTrainedConfig | None = AutoConfig.from_pretrained(
            language.checkpoint, revision=language.revision, local_files_only=True, trust_remote_code=False
        )
        return found
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AstreaError(
            f"llm.checkpoint: the config.json of {language.checkpoint!r} is not on this machine",
            "download it, give a folder that holds it, or describe the model under llm.architecture",
        ) from error


def expert_entries(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """What `AstreaConfig.experts` says of the recipe's experts.

    Raises:
        AstreaError: the configuration of an expert's checkpoint is not on this machine, or cannot be used.
    """
    found = {}
    for name, entry in recipe.experts.items():
        try:
            if entry.architecture is not None:
                found[name] = from_architecture(entry)
            elif entry.checkpoint is not None:
                found[name] = from_folder(entry, _described_at(entry.checkpoint, entry.revision))
            else:
                found[name] = {"kind": entry.kind, "options": entry.options}
        except AstreaError as error:
            raise AstreaError(f"experts.{name}: {error.message}", error.hint) from error
    return found


def _described_at(checkpoint: str, revision: str | None) -> Path:
    """A folder with the checkpoint's config.json.

    Raises:
        AstreaError: there is none on this machine.
    """
    folder = Path(checkpoint).expanduser()
    if is_folder(folder):
        return folder
    cached = _cached_config(checkpoint, revision)
    if cached is None:
        raise AstreaError(
            f"the config.json of {checkpoint!r} is not on this machine",
            "download it, give a folder that holds it, or describe the expert under architecture",
        )
    return cached.parent


def _cached_config(checkpoint: str, revision: str | None) -> Path | None:
    """The config.json of a hub id in the cache of this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(checkpoint, "config.json", revision=revision)
    except HFValidationError:  # no name that the hub could have
        return None
    return Path(cached) if isinstance(cached, str) else None


def own_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase | None:
    """The tokenizer of the recipe's checkpoint, prepared as training does it, if it is on this machine."""
    language = recipe.llm
    if language.checkpoint is None:
        return None
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet():
            if language.gguf:
                tokenizer = read_tokenizer(gguf_file(language.checkpoint))
            else:
                tokenizer = AutoTokenizer.from_pretrained(language.checkpoint, revision=language.revision, **safe)
    except Exception:  # there is none, or one that cannot be used: transformers raises nearly any type
        return None
    with torch.device("cpu"):
        prepare_tokenizer(tokenizer)
    return tokenizer


def _around(recipe: Recipe) -> tuple[AstreaForConditionalGeneration, PreTrainedTokenizerBase]:
    """Astrea around a language model of which only the configuration is there. Where its tokenizer is not, the embedded
    world's stands in for it, which makes fewer tokens of the same texts."""
    text, entries = language_config(recipe), expert_entries(recipe)
    stand_in = TinyLanguage().tokenizer(expert_specs(entries).values())
    own = own_tokenizer(recipe)
    tokenizer: PreTrainedTokenizerBase = stand_in if own is None else own
    if text is None:
        text = tiny_language_model(recipe.llm, stand_in).config
    elif own is not None and text.vocab_size < len(own):  # it grows by <image>, as in a run
        text.vocab_size = len(own)
    if text.vocab_size < len(tokenizer):
        raise AstreaError(
            f"the language model knows {text.vocab_size} tokens; an estimate needs {len(tokenizer)}",
            "estimate with the checkpoint's own config.json",
        )
    image_token_id: Any = tokenizer.convert_tokens_to_ids("<image>")
    try:
        phrase_ids = spell(recipe.model.findings, expert_specs(entries), tokenizer, 1.0)
        config = configure(recipe, entries, text, image_token_id, phrase_ids)
        return AstreaForConditionalGeneration(config, allow_import=True), tokenizer
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise AstreaError(
            f"the language model describes nothing that can be built: {error}", "check its configuration"
        ) from error
