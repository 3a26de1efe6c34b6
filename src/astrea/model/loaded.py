"""A trained model together with its processor: what `astrea.load` gives, ready to be asked."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from astrea.common.devices import Device
from astrea.common.errors import AstreaError
from astrea.model.explanation import Explanation, explain
from astrea.model.folders.expert_options import ExpertOptions
from astrea.model.loading import load_model
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor

Picture = Image.Image | str | Path | bytes
"""A picture: opened, a path, a file: or data: URL, or an image file's bytes."""


class LoadedModel(NamedTuple):
    """A model and its processor, which also unpack as a pair: ``model, processor = astrea.load(folder)``."""

    model: AstreaForConditionalGeneration
    processor: AstreaProcessor

    def ask(self, picture: Picture, question: str, *, max_new_tokens: int = 56) -> Explanation:
        """The answer to a question about a picture, how sure it is, and each expert's gate weight and reading.

        Args:
            max_new_tokens: the longest answer.

        Raises:
            AstreaError: an unreadable picture, an empty or overlong question.
        """
        return explain(self.model, self.processor, picture, question, longest=max_new_tokens, masking=False)

    def explain(self, picture: Picture, question: str, *, max_new_tokens: int = 56) -> Explanation:
        """`ask`, and what would be answered without each expert in turn. Raises as `ask` does."""
        return explain(self.model, self.processor, picture, question, longest=max_new_tokens)

    def save(self, folder: str | Path) -> None:
        """Write model and processor into one folder, for `astrea.load`."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def load(
    name: str | Path = "shipped",
    *,
    device: Device = "auto",
    dtype: torch.dtype | str | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
    expert_options: ExpertOptions | None = None,
) -> LoadedModel:
    """A trained model and its processor, in evaluation mode.

    Args:
        name: the folder that `astrea.train` or ``save_pretrained`` wrote; "shipped", the model that comes with the
            package; or ``owner/name`` of a model on the hub, which is fetched once. No pickle is read.
        device: where the model computes; auto = a GPU if there is one, otherwise the processor.
        dtype: of the floating-point weights, such as ``torch.bfloat16`` or "bfloat16"; None = as saved.
        trust_remote_code: whether expert classes of other packages that the folder names may be imported. Only for
            folders you trust.
        revision: of a model on the hub: a commit, branch or tag; None = the newest.
        expert_options: by expert's name, options of its kind instead of those that it was trained with, such as
            ``{"reading": {"lines": 32, "pieces": 24, "tiles": 64}}`` for pages and a model that learned from signs.

    Raises:
        AstreaError: a file is missing, damaged or not Astrea's, an import was not allowed, or there is no such device,
            dtype, expert or option.
    """
    wanted = None if dtype is None else _dtype(dtype)
    model, processor = load_model(
        name,
        trust_remote_code=trust_remote_code,
        device=device,
        revision=revision,
        expert_options=expert_options,
    )
    if wanted is not None:
        model.to(dtype=wanted)  # type: ignore[call-arg]  # transformers hides what `to` takes
    return LoadedModel(model, processor)


def _dtype(given: torch.dtype | str) -> torch.dtype:
    found = getattr(torch, given, None) if isinstance(given, str) else given
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise AstreaError(f"{given!r} is no floating-point type", "such as float32, bfloat16 or float16")
    return found
