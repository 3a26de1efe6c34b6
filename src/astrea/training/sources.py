"""The data that a recipe trains on: files of one's own, or the embedded world."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.progress import SILENT, Reporter
from astrea.common.terminal import counted
from astrea.data.feature_cache import FeatureCache
from astrea.data.packing import Packer
from astrea.data.picture_features import PictureFeatures
from astrea.data.protocol import TrainingData
from astrea.data.readers.mixture import Source
from astrea.data.readers.sources import configured_sources
from astrea.data.streaming import FileDataset
from astrea.data.worlds import open_world
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.recipe import Recipe
from astrea.training.distributed import Distributed

UNKNOWN = 0.05
"""Share of words that the tokenizer does not know from which on a run says so."""


def open_cache(recipe: Recipe, folder: Path) -> FeatureCache:
    """The cache of experts' features in a folder, as large as the recipe lets it become."""
    return FeatureCache(folder, int(recipe.runtime.feature_cache_gb * 1e9))


def training_data(
    recipe: Recipe,
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    ranks: Distributed,
    *,
    cache: FeatureCache,
    report: Reporter = SILENT,
) -> TrainingData:
    """What ``data.train`` names, or else the embedded world's training split.

    Raises:
        AstreaError: a file cannot be read, or the recipe wants of files what only the world has.
    """
    sources = configured_sources(recipe.data, report if ranks.is_main else None)
    if not sources:
        with ranks.main_first():
            return open_world(recipe).training_data(model.experts, cache=cache, report=report)
    if recipe.distill is not None:
        raise AstreaError(
            "a student is distilled on the embedded world's pictures, and data.train names others",
            "leave `distill` out, or data.train",
        )
    data = file_dataset(recipe, model, tokenizer, sources, ranks, cache=cache, report=report)
    if recipe.align.steps and not data.pictured:
        raise AstreaError(
            f"no record of {', '.join(data.groups)} shows a picture, and experts are aligned by pictures",
            "set align.steps=0, or give data with pictures",
        )
    report.say(f"training on {counted(len(data), 'record')} of {', '.join(data.groups)}")
    report_unknown_words(data, tokenizer, recipe, report)
    return data


def validation_data(
    recipe: Recipe,
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    ranks: Distributed,
    *,
    cache: FeatureCache,
    report: Reporter = SILENT,
) -> FileDataset | None:
    """What ``data.validation`` names, if anything.

    Raises:
        AstreaError: a file cannot be read.
    """
    sources = configured_sources(recipe.data, report if ranks.is_main else None, key="validation")
    if not sources:
        return None
    data = file_dataset(recipe, model, tokenizer, sources, ranks, cache=cache, report=report)
    report.say(f"validation on {counted(len(data), 'record')} of {', '.join(data.groups)}")
    return data


def file_dataset(
    recipe: Recipe,
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Source],
    ranks: Distributed,
    *,
    cache: FeatureCache,
    report: Reporter = SILENT,
) -> FileDataset:
    """Sources as training reads them."""
    positions = getattr(model.config.text_config, "max_position_embeddings", None) or sys.maxsize
    return FileDataset(
        sources,
        model.experts.to(ranks.device),
        Packer(tokenizer, model.num_visual_tokens),
        image_size=model.config.image_size,
        max_tokens=min(positions, recipe.data.max_tokens or sys.maxsize),
        row_tokens=recipe.data.row_tokens,
        threads=recipe.runtime.loaders,
        kept=PictureFeatures(cache, report.say),
        ranks=ranks,
        report=report,
    )


def report_unknown_words(
    data: FileDataset, tokenizer: PreTrainedTokenizerBase, recipe: Recipe, report: Reporter
) -> None:
    """Say how many words of the data the language model has none for, if they are many."""
    texts = [tokenizer(text, add_special_tokens=False).input_ids for text in islice(data.scanned(recipe.seed), 500)]
    tokens = [token for ids in texts for token in ids]
    unknown = sum(token == tokenizer.unk_token_id for token in tokens) / max(1, len(tokens))
    if unknown > UNKNOWN:
        report.say(
            f"the language model has no word for {unknown:.0%} of the words in the data; "
            "give the recipe one that has: llm.checkpoint=FOLDER"
        )
