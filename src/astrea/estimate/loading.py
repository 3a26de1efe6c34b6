"""What a run's process holds until its model is whole: checkpoints' files beside the tensors that are made of them.

A file of weights is mapped into memory. Where its numbers are kept in its own type, a language model's tensors *are*
the map; where they are converted, or copied into an expert that was built before, both are there for a moment. Plain
sentences are read before and after, and of each of their tokens the scores of every word are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from astrea.common.paths import is_folder, list_folder
from astrea.estimate.build import language_config
from astrea.estimate.fake_tensors import fake_tensors
from astrea.estimate.tracker import MemoryTracker
from astrea.experts.pretrained.base import CheckpointExpert
from astrea.experts.pretrained.options import DTYPES
from astrea.language.plain import reference_outputs
from astrea.training.context import TrainingContext

TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
"""Types of numbers as heads of safetensors files call them."""


def loading(ctx: TrainingContext) -> int:
    """Bytes when most are in use, the libraries apart."""
    recipe, model = ctx.recipe, ctx.model
    language = bytes_of(model.language_model.state_dict().values())
    whole = bytes_of(model.state_dict().values()) + replaced_words(ctx)
    given = None if recipe.llm.checkpoint is None else language_config(recipe)
    if recipe.llm.checkpoint is None or given is None:
        return whole
    kept = stored_type(recipe.llm.checkpoint, given)
    values = sum(parameter.numel() for parameter in model.language_model.parameters())
    # A GGUF file's numbers are put into another file first, out of memory.
    converted = recipe.llm.gguf or kept != getattr(torch, recipe.llm.dtype)
    language += values * kept.itemsize if converted else 0
    return max(language, whole + max(copies(ctx), reading(ctx)))


def copies(ctx: TrainingContext) -> int:
    """The most that an expert's checkpoint takes beside the expert that it is copied into."""
    most = 0
    for name, entry in ctx.recipe.experts.items():
        expert = ctx.model.experts[name]
        if entry.checkpoint is None or not isinstance(expert, CheckpointExpert):
            continue
        values = sum(parameter.numel() for parameter in expert.model.parameters())
        kept, wanted = stored_type(entry.checkpoint, expert.config), DTYPES[expert.settings.dtype]
        most = max(most, values * (kept.itemsize + (wanted.itemsize if kept != wanted else 0)))
    return most


@torch.no_grad()
def reading(ctx: TrainingContext) -> int:
    """What plain sentences take on top of the model that reads them."""
    model = ctx.model

    def ask(ids: Tensor, mask: Tensor) -> Any:
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits

    was_training = model.training
    tracker = MemoryTracker()
    with tracker, fake_tensors():
        tracker.adopt([*model.parameters(), *model.buffers()], "weights")
        standing = tracker.live.total()
        reference_outputs(ask, ctx.tokenizer, len(ctx.tokenizer))
    model.train(was_training)
    return tracker.peak - standing


def replaced_words(ctx: TrainingContext) -> int:
    """Bytes of a checkpoint's own word embeddings, if it gets more words: the rest of its file stays mapped, and they
    with it, unless its numbers are converted."""
    checkpoint = ctx.recipe.llm.checkpoint
    given = None if checkpoint is None else language_config(ctx.recipe)
    words = ctx.model.embedding_table()
    known = words.shape[0] if given is None else given.get_text_config().vocab_size
    if checkpoint is None or known >= words.shape[0] or stored_type(checkpoint, given) != words.dtype:
        return 0
    return int(known * words.shape[1] * words.element_size())


def stored_type(checkpoint: str, described: Any) -> torch.dtype:
    """In which type a checkpoint's numbers lie: of its largest tensor where its files are on this machine, else what
    its configuration says; float32 where that says nothing."""
    folder = Path(checkpoint).expanduser()
    files = [path for path in list_folder(folder) if path.suffix == ".safetensors"] if is_folder(folder) else []
    found = [pair for path in files for pair in _tensors(path)]
    if found:
        return TYPES.get(max(found)[1], torch.float32)
    said = getattr(described, "dtype", None)
    return said if isinstance(said, torch.dtype) else torch.float32


def _tensors(path: Path) -> list[tuple[int, str]]:
    """How many numbers each tensor of a file has, and their type."""
    with safe_open(path, framework="pt") as file:
        slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
        return [(math.prod(part.get_shape()), part.get_dtype()) for part in slices]


def bytes_of(tensors: Iterable[Any]) -> int:
    """Of tensors, those that share memory counted once."""
    held = {id(tensor.untyped_storage()): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(held.values())
