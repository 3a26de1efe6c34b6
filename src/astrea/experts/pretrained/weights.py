"""Filling a checkpoint expert with its weights, from the folder that its recipe names. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModel

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import first_line
from astrea.common.quiet import quiet
from astrea.experts.pretrained.base import CheckpointExpert
from astrea.experts.pretrained.captioning import CaptionCheckpoint
from astrea.experts.pretrained.classification import ZeroShotCheckpoint
from astrea.experts.pretrained.entry import read_config
from astrea.experts.pretrained.options import DTYPES
from astrea.experts.pretrained.source import checkpoint_folder
from astrea.experts.pretrained.words import read_words, vocabulary_bytes
from astrea.experts.protocol import Expert

if TYPE_CHECKING:
    from astrea.recipes.recipe import ExpertEntry

PHRASES_AT_ONCE = 64


def load_checkpoint(name: str, expert: Expert, entry: ExpertEntry) -> None:
    """Give an expert, built from the options that `entry.resolve` found, the checkpoint's weights.

    Raises:
        AstreaError: the files are missing, damaged, or do not fit the configuration beside them.
    """
    if not isinstance(expert, CheckpointExpert) or entry.checkpoint is None:
        raise AstreaError(f"expert {name!r} takes no checkpoint", "leave `checkpoint` out")
    try:
        folder = checkpoint_folder(entry.checkpoint, entry.revision)
        with quiet():
            fill_network(expert, folder)
            for cls, add in ADDED.items():
                if isinstance(expert, cls):
                    add(expert, folder)
    except AstreaError as error:
        raise AstreaError(f"expert {name!r}: {error.message}", error.hint) from error


@torch.no_grad()
def fill_network(expert: CheckpointExpert, folder: Path) -> None:
    """The weights of the network itself; parts of the checkpoint that the expert does not have are left out.

    Raises:
        AstreaError: weights are missing or of another shape.
    """
    cls = getattr(transformers, expert.network.model)
    loaded = _pretrained(cls, folder, expert, config=expert.config, **expert.network.arguments)
    expert.model.load_state_dict(loaded.state_dict())


def _pretrained(cls: Any, folder: Path, expert: CheckpointExpert, **arguments: Any) -> Any:
    try:
        loaded, found = cls.from_pretrained(
            folder,
            dtype=DTYPES[expert.settings.dtype],
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **arguments,
        )
    except Exception as error:  # foreign files make transformers raise nearly any type
        raise AstreaError(
            f"{folder} cannot be loaded: {first_line(error)}", "copy or download the checkpoint again"
        ) from error
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        if found.get(kind):
            raise AstreaError(
                f"the weights of {folder} do not fit its config.json: {kind.replace('_', ' ')} "
                f"{sorted(map(str, found[kind]))[:3]}",
                "use a checkpoint that was saved whole by transformers",
            )
    return loaded.eval()


@torch.no_grad()
def add_phrases(expert: ZeroShotCheckpoint, folder: Path) -> None:
    """What the text tower says of each phrase, and the scale and bias of the comparison.

    Raises:
        AstreaError: the checkpoint has no text tower, or no tokenizer.
    """
    config = read_config(folder)
    both = _pretrained(AutoModel, folder, expert, config=config)
    words = read_words(folder)
    phrases = [expert.settings.prompt.replace("{}", phrase) for phrase in expert.settings.phrases]
    length = both.config.text_config.max_position_embeddings
    # SigLIP was trained on texts padded to the full length and reads its last position; CLIP ignores padding.
    full = hasattr(both, "logit_bias")
    found = []
    for start in range(0, len(phrases), PHRASES_AT_ONCE):
        asked = words(
            phrases[start : start + PHRASES_AT_ONCE],
            padding="max_length" if full else True,
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        mask = {} if full else {"attention_mask": asked["attention_mask"]}
        embedded = both.get_text_features(input_ids=asked["input_ids"], **mask)
        found.append(F.normalize(getattr(embedded, "pooler_output", embedded).float(), dim=-1))
    expert.phrases_KP.copy_(torch.cat(found))
    expert.scale.copy_(both.logit_scale.float().exp().squeeze())
    expert.bias.copy_(getattr(both, "logit_bias", torch.zeros(())).float().squeeze())


@torch.no_grad()
def add_vocabulary(expert: CaptionCheckpoint, folder: Path) -> None:
    """The tokenizer that turns a captioner's tokens into words."""
    text = vocabulary_bytes(folder)
    expert.vocabulary.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))


ADDED: Mapping[type[CheckpointExpert], Callable[[Any, Path], None]] = {
    ZeroShotCheckpoint: add_phrases,
    CaptionCheckpoint: add_vocabulary,
}
"""What the experts of a class keep besides their network."""
