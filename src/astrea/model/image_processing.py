"""From pictures of any kind to the experts' tensor, as a transformers image processor.

Letters: N pictures, S side of the square picture.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from astrea.common.errors import AstreaError, shortened
from astrea.data.fitted import fit_picture
from astrea.data.image_sources import read_image

LARGEST_SIDE = 8192
ORIGINALS = "original_images"
DESCRIPTIONS = ("image_processor_type", "feature_extractor_type", "processor_class", "auto_map")
"""What transformers writes beside the options of an image processor."""

LAYOUTS = {None: None, "channels_first": True, "channels_last": False}


class AstreaImageProcessor(BaseImageProcessor):
    """Pictures of any size and kind -> ``pixel_values`` (N, 3, S, S), float32 in 0..1.

    Args:
        image_size: S.
        originals: also ``original_images``, the pictures as they are: a list of N tensors (3, H, W) of bytes, of no
            more than `astrea.data.images.ORIGINAL_PIXELS` each; for models with experts that read those.

    Raises:
        AstreaError: S is no whole number in 1..8192.
    """

    model_input_names = ["pixel_values"]

    def __init__(self, image_size: int = 64, originals: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        unread = [name for name in kwargs if not name.startswith("_") and name not in DESCRIPTIONS]
        if unread:
            what = shortened(", ".join(unread))
            warnings.warn(f"the image processor has no options {what}; they change nothing", stacklevel=2)
        self.image_size = whole_number(image_size, "image_size", LARGEST_SIDE)
        self.originals = originals is True

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:  # type: ignore[override]
        return self.preprocess(images, *args, **kwargs)

    def preprocess(
        self, images: Any, return_tensors: str | None = "pt", *, input_data_format: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Load, fit into the square and scale.

        Args:
            images: whatever `astrea.data.image_sources.read_image` takes, an array or tensor (N, ...) of pictures, or
                lists of them, nested as you like; they come out flat, in reading order.
            return_tensors: "pt", "np" or None.
            input_data_format: "channels_first" or "channels_last", for arrays whose layout their shape does not tell;
                None = channels first in tensors, last in arrays.

        Raises:
            AstreaError: a picture cannot be read (names which), there is none, or an option is unknown.
        """
        layout = getattr(input_data_format, "value", input_data_format)
        if kwargs or layout not in LAYOUTS:
            what = ", ".join(kwargs) or f"input_data_format={shortened(repr(layout))}"
            raise AstreaError(
                f"unknown image options: {what}", "the image processor takes return_tensors and input_data_format"
            )
        flat = list(flat_images(images))
        if not flat:
            raise AstreaError("the list of images is empty", "pass images=None for text without pictures")
        names = [f"image {number} of {len(flat)}" if len(flat) > 1 else None for number in range(1, len(flat) + 1)]
        squares, originals = [], []
        for image, name in zip(flat, names, strict=True):
            picture = read_image(image, name=name, channels_first=LAYOUTS[layout])
            fitted = fit_picture(picture, self.image_size, original=self.originals)
            squares.append(fitted.square)
            if fitted.original is not None:
                originals.append(torch.from_numpy(fitted.original))
        pixels = np.stack(squares).astype(np.float32) / np.float32(255)
        found = BatchFeature({"pixel_values": pixels}, tensor_type=known_tensors(return_tensors))
        return with_originals(found, originals)


def with_originals(found: BatchFeature, originals: list[Tensor] | None) -> BatchFeature:
    """The batch with pictures as they are, if there are any. They differ in size, so they never make one tensor."""
    if originals:
        found[ORIGINALS] = originals
    return found


def flat_images(images: Any) -> Iterator[Any]:
    """The pictures of arbitrarily nested lists, in reading order; an array or tensor of 4 dimensions is a list."""
    if isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) == 4:
        for image in images:
            yield from flat_images(image)
    elif images is not None:
        yield images


def whole_number(value: Any, name: str, largest: int) -> int:
    """An option that is a whole number in 1..``largest``; of a saved processor it may be anything.

    Raises:
        AstreaError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise AstreaError(f"{name}={shortened(repr(value))} of the processor", f"give a whole number in 1..{largest:,}")
    return value


def known_tensors(kind: Any) -> Any:
    """The kind of tensors to return.

    Raises:
        AstreaError: it is none of "pt", "np" and None.
    """
    kind = getattr(kind, "value", kind)
    if kind not in ("pt", "np", None):
        raise AstreaError(f"return_tensors={shortened(repr(kind))} is unknown", 'it is "pt", "np" or None')
    return kind
