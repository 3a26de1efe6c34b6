"""The model of a recipe without its numbers, and training data of the right shape for it.

A checkpoint is described by its configuration alone: from ``architecture`` in the recipe where that is given (of the
language model what its config.json says, of an expert the kind and options that a saved Astrea model keeps of it), else
from the checkpoint's config.json in a folder or in the hub's cache. Nothing is fetched.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from astrea.config import Run
from astrea.configuration import AstreaConfig
from astrea.data.world import WorldData, features_of, scenes_of
from astrea.errors import AstreaError
from astrea.estimate.absent import absent, without_numbers
from astrea.experts.checkpoint.entry import _resolve
from astrea.language.tiny import tiny_language_model, tiny_tokenizer
from astrea.model import AstreaForConditionalGeneration
from astrea.scenes.captions import captions
from astrea.scenes.questions import Balancer
from astrea.training.distributed import Distributed
from astrea.training.parts import assemble
from astrea.training.workshop import Workshop


def absent_workshop(run: Run, *, samples: int = 128) -> Workshop:
    """What a run's stages share, with a model and features that hold no numbers.

    Args:
        samples: pictures that the batches are drawn from; their texts are real.

    Raises:
        AstreaError: the configuration of a checkpoint is not there, or describes no model that can be built.
    """
    model, tokenizer = absent_model(run)
    return workshop_of(run, model, tokenizer, samples=samples)


def workshop_of(
    run: Run, model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, *, samples: int = 128
) -> Workshop:
    """The same for a model that was built somewhere else; one that has its numbers keeps them."""
    scenes = list(scenes_of("train", samples, run.world))
    balancer, rng = Balancer(), random.Random(f"questions/{run.world.seed}")
    asked = [balancer.choose(scene, rng)[: run.data.questions_per_scene] for scene in scenes]
    told = [captions(scene, 3, index) for index, scene in enumerate(scenes)]
    if model.device.type != "meta":
        return Workshop(run, model, tokenizer, WorldData(features_of(model.experts, scenes), asked, told))
    size = model.config.image_size
    with absent(), torch.no_grad():
        features = model.see(torch.empty(samples, 3, size, size, device="meta"))
    with absent():  # so that ids and counters stay there when all else goes
        return Workshop(run, model, tokenizer, WorldData(features, asked, told), Distributed(device="meta"))


def absent_model(run: Run) -> tuple[AstreaForConditionalGeneration, PreTrainedTokenizerBase]:
    """The model of a recipe on the meta device. Raises as `absent_workshop` does."""
    plain = run.language.checkpoint is None and all(entry.checkpoint is None for entry in run.experts.values())
    with torch.device("meta"):
        model, tokenizer = assemble(run, None) if plain else _around(run, language_config(run))
    without_numbers(model)
    return model, tokenizer


def language_config(run: Run) -> PreTrainedConfig | None:
    """The configuration of the recipe's checkpoint of a language model; None where it has none.

    Raises:
        AstreaError: it is not on this machine, or is no configuration.
    """
    name = run.language.checkpoint
    if name is None:
        return None
    given: dict[str, Any] | None = getattr(run.language, "architecture", None)
    try:
        if given is not None:
            return AutoConfig.for_model(**given)
        revision = run.language.revision
        return AutoConfig.from_pretrained(name, revision=revision, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        if given is None:
            said, mend = (
                f"language.checkpoint: the config.json of {name!r} is not on this machine",
                "download it, give a folder that holds it, or describe the model under language.architecture",
            )
        else:
            said = f"language.architecture describes no model: {str(error).strip().splitlines()[0][:200]}"
            mend = "give what the checkpoint's config.json says, model_type included"
        raise AstreaError(said, mend) from error


def expert_entries(run: Run) -> dict[str, dict[str, Any]]:
    """What `AstreaConfig.experts` says of the recipe's experts.

    Raises:
        AstreaError: the configuration of an expert's checkpoint is not on this machine, or cannot be used.
    """
    found = {}
    for name, entry in run.experts.items():
        given: dict[str, Any] | None = getattr(entry, "architecture", None)
        if entry.checkpoint is None:
            found[name] = {"kind": entry.kind, "options": entry.options}
        elif given is not None:
            found[name] = given
        else:
            folder = Path(entry.checkpoint).expanduser()
            if not folder.is_dir():
                cached = _cached_config(entry.checkpoint, entry.revision)
                if cached is None:
                    raise AstreaError(
                        f"experts.{name}.checkpoint: the config.json of {entry.checkpoint!r} is not on this machine",
                        "download it, give a folder that holds it, or describe the expert under architecture",
                    )
                folder = cached.parent
            try:
                found[name] = _resolve(entry, folder)
            except AstreaError as error:
                raise AstreaError(f"experts.{name}: {error.message}", error.mend) from error
    return found


def _cached_config(checkpoint: str, revision: str | None) -> Path | None:
    """The config.json of a hub id in the cache of this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(checkpoint, "config.json", revision=revision)
    except HFValidationError:  # no name that the hub could have
        return None
    return Path(cached) if isinstance(cached, str) else None


def _around(run: Run, text: PreTrainedConfig | None) -> tuple[AstreaForConditionalGeneration, PreTrainedTokenizerBase]:
    """Astrea around a language model that is only described. Its tokenizer is not there either: the embedded world's
    stands in for it, which cuts texts into somewhat more tokens than one with a large vocabulary does."""
    tokenizer = tiny_tokenizer()
    if text is None:
        text = tiny_language_model(run.language, tokenizer).config
    if text.vocab_size < len(tokenizer):
        raise AstreaError(
            f"the language model knows {text.vocab_size} tokens; an estimate needs {len(tokenizer)}",
            "estimate with the checkpoint's own config.json",
        )
    image_token_id: Any = tokenizer.convert_tokens_to_ids("<image>")
    low_rank = run.language.low_rank
    config = AstreaConfig(
        text_config=text.to_dict(),
        experts=expert_entries(run),
        strategy=run.model.strategy,
        fusion=run.model.fusion(),
        adapter_hidden=run.model.adapter_hidden,
        contrast_width=run.model.contrast_width,
        image_token_id=image_token_id,
        image_size=run.world.canvas,
        attention=run.language.attention,
        language_dtype=None if run.language.checkpoint is None else run.language.dtype,
        low_rank=None if low_rank is None else low_rank.model_dump(mode="json"),
    )
    try:
        return AstreaForConditionalGeneration(config, allow_import=True), tokenizer
    except (ValueError, TypeError, RuntimeError, ImportError) as error:
        raise AstreaError(
            f"language.checkpoint describes no model that can be built: {error}", "check the configuration"
        ) from error
