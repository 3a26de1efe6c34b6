"""The pictures of a folder, and what a model makes of them.

Letters: N pictures, S side of the square picture, P contrast width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.paths import files_below, hint_for, is_folder, is_text, shown
from astrea.data.images import load_image, to_square_array
from astrea.data.suffixes import NOT_READ, READ, is_clutter
from astrea.evaluation.generate import Predictor
from astrea.model.modeling import AstreaForConditionalGeneration

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


def square_picture(path: Path, size: int) -> np.ndarray:
    """A picture as experts are given it: (S, S, 3) uint8.

    Raises:
        AstreaError: it cannot be read; names it.
    """
    return to_square_array(load_image(path), size)


def to_pixels(model: AstreaForConditionalGeneration, arrays: Sequence[np.ndarray]) -> Tensor:
    """Square pictures as the model's ``pixel_values``: (N, 3, S, S) in 0..1, where the model is."""
    pixels_NSS3 = torch.from_numpy(np.stack(arrays))
    return pixels_NSS3.permute(0, 3, 1, 2).to(model.device, torch.float32) / 255


@torch.inference_mode()
def picture_vectors(model: AstreaForConditionalGeneration, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Unit vectors (N, P) float32 of square pictures."""
    return model.embed_image(to_pixels(model, arrays)).float().cpu().numpy()


@torch.inference_mode()
def text_vector(model: AstreaForConditionalGeneration, predictor: Predictor, text: str) -> np.ndarray:
    """The unit vector (1, P) float32 of a text."""
    ids = torch.tensor([predictor.packer.ids(text)], device=model.device)
    return model.embed_text(ids, torch.ones_like(ids)).float().cpu().numpy()
