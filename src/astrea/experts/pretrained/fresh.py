"""An expert that is only described: what stands in for the words that come with a checkpoint's weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models

from astrea.common.errors import AstreaError
from astrea.experts.pretrained.base import CheckpointExpert
from astrea.experts.pretrained.captioning import CaptionCheckpoint
from astrea.experts.pretrained.classification import ZeroShotCheckpoint
from astrea.experts.protocol import Expert


def no_words() -> bytes:
    """A tokenizer.json that knows no word: what a captioner without a checkpoint says reads as nothing."""
    return Tokenizer(models.WordLevel({}, unk_token="")).to_str().encode("utf-8")


@torch.no_grad()
def start_fresh(name: str, expert: Expert) -> None:
    """Complete an expert with random weights by what is neither learned nor read from a file.

    Raises:
        AstreaError: this kind of expert takes no architecture.
    """
    if not isinstance(expert, CheckpointExpert):
        raise AstreaError(f"expert {name!r} takes no architecture", "leave `architecture` out")
    if isinstance(expert, CaptionCheckpoint):
        expert.vocabulary.copy_(torch.frombuffer(bytearray(no_words()), dtype=torch.uint8))
    if isinstance(expert, ZeroShotCheckpoint):
        expert.phrases_KP.copy_(F.normalize(torch.randn_like(expert.phrases_KP), dim=-1))
