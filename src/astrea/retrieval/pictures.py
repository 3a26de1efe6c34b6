"""The pictures of a folder, and what a model makes of them.

Letters: N pictures, P contrast width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from astrea.common.errors import AstreaError
from astrea.common.paths import files_below, hint_for, is_folder, is_text, shown
from astrea.data.fitted import FittedPicture, fit_picture
from astrea.data.images import load_image
from astrea.data.suffixes import NOT_READ, READ, is_clutter
from astrea.evaluation.generate import Features, Predictor
from astrea.experts.protocol import concat_features
from astrea.model.modeling import AstreaForConditionalGeneration

ORIGINALS_AT_ONCE = 8
"""Pictures as they are that are encoded together: as numbers in 0..1 each may take 25 MB."""

Unreadable = Callable[[Path, AstreaError], None]
"""Called with a path and what is wrong with it."""


def find_pictures(folder: Path, unreadable: Unreadable) -> list[Path]:
    """Every file below a folder that is named like a picture, sorted. Links to folders are not followed, and what
    systems leave beside pictures (``._name``) is passed over.

    Args:
        unreadable: called with folders and files below that may not be read, of pictures of formats that are not read,
            and of names that are no text.

    Raises:
        AstreaError: there is no such folder.
    """
    if not is_folder(folder):
        raise AstreaError(f"{shown(folder)}: is not a folder", hint_for(folder) or "give a folder of pictures")
    found = []
    for path in files_below(folder, unreadable):
        ending = path.suffix.lower()
        if ending not in (*READ, *NOT_READ) or is_clutter(path.relative_to(folder).as_posix()):
            continue
        if ending in NOT_READ:
            hint = "convert it to JPEG, PNG or WEBP"
            unreadable(path, AstreaError(f"image {path} is of the format {ending}, which is not read", hint))
        elif not is_text(path):
            unreadable(path, AstreaError(f"image {path}: its name is no text (UTF-8)", "give it another name"))
        else:
            found.append(path)
    return sorted(found)


def read_picture(model: AstreaForConditionalGeneration, path: Path) -> FittedPicture:
    """A picture in the forms in which the model's experts are given it.

    Raises:
        AstreaError: it cannot be read; names it.
    """
    return fit_picture(load_image(path), model.config.image_size, original=model.experts.wants_originals)


@torch.inference_mode()
def encode_pictures(model: AstreaForConditionalGeneration, pictures: Sequence[FittedPicture]) -> Features:
    """Every expert's features of N pictures, computed where the model is."""
    squares_N3SS = torch.from_numpy(np.stack([one.square for one in pictures]))
    originals = [torch.from_numpy(one.original) for one in pictures if one.original is not None]
    found: Features = model.encode_images(squares_N3SS.to(model.device, torch.float32) / 255, originals or None)
    return found


def encode_files(
    model: AstreaForConditionalGeneration,
    paths: Sequence[Path],
    *,
    unreadable: Unreadable,
    looked: Callable[[int], None] = lambda done: None,
    batch: int = 64,
) -> tuple[list[int], Features]:
    """Which pictures of a list can be read, and every expert's features of those; none where there are none.

    Args:
        unreadable: called with those that cannot. looked: called with how many are done.
        batch: pictures that the model encodes at once, at most.
    """
    batch = at_once(model, batch)
    kept, parts, waiting = [], [], []
    for number, path in enumerate(paths):
        try:
            waiting.append(read_picture(model, path))
            kept.append(number)
        except AstreaError as error:
            unreadable(path, error)
        if waiting and (len(waiting) == batch or number + 1 == len(paths)):
            parts.append(encode_pictures(model, waiting))
            waiting.clear()
        looked(number + 1)
    return kept, concat_features(parts) if parts else {}


def at_once(model: AstreaForConditionalGeneration, batch: int) -> int:
    """How many pictures are held and encoded together: fewer where experts read them as they are."""
    return min(batch, ORIGINALS_AT_ONCE) if model.experts.wants_originals else batch


@torch.inference_mode()
def picture_vectors(model: AstreaForConditionalGeneration, pictures: Sequence[FittedPicture]) -> np.ndarray:
    """Unit vectors (N, P) float32 of pictures."""
    return model.embed_image(features=encode_pictures(model, pictures)).float().cpu().numpy()


@torch.inference_mode()
def text_vector(model: AstreaForConditionalGeneration, predictor: Predictor, text: str) -> np.ndarray:
    """The unit vector (1, P) float32 of a text."""
    ids = torch.tensor([predictor.packer.ids(text)], device=model.device)
    return model.embed_text(ids, torch.ones_like(ids)).float().cpu().numpy()
