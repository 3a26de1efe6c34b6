"""What goes between the server and the experts' process: pictures there, features and readings back, as safetensors.

Letters: N pictures, S side of the square picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from astrea.experts.feature_tensors import feature_tensors
from astrea.experts.protocol import ExpertFeatures, Reading

PIXELS, ORIGINAL = "pixels", "original."
WORDS, MASK = "words", "mask."


@dataclass(frozen=True, slots=True)
class Request:
    """What experts are asked: the features of those named, or all readings.

    names: None = readings. sizes: of the pictures, as in `ExpertBank.readings`.
    """

    names: list[str] | None = None
    sizes: list[tuple[int, int]] | None = None

    def written(self) -> bytes:
        """As a message."""
        return json.dumps({"names": self.names, "sizes": self.sizes}).encode()


def read_request(message: bytes) -> Request:
    """What `Request.written` made."""
    said = json.loads(message)
    sizes = said["sizes"]
    return Request(said["names"], None if sizes is None else [(width, height) for width, height in sizes])


def packed_pictures(pixels_N3SS: Tensor, originals: Sequence[Tensor] | None) -> bytes:
    """Pictures as a safetensors file: the squares, and each as it is, if it is given."""
    whole = {f"{ORIGINAL}{number}": one.contiguous() for number, one in enumerate(originals or ())}
    return save({PIXELS: pixels_N3SS.contiguous(), **whole})


def unpacked_pictures(message: bytes) -> tuple[Tensor, list[Tensor] | None]:
    """The pictures in a file of `packed_pictures`."""
    tensors = load(message)
    return tensors[PIXELS], [tensors[f"{ORIGINAL}{number}"] for number in range(len(tensors) - 1)] or None


def packed(features: Mapping[str, ExpertFeatures]) -> bytes:
    """Features of experts as a safetensors file."""
    return save({f"{part}.{name}": t for name, one in features.items() for part, t in feature_tensors(one).items()})


def unpacked(message: bytes, names: Sequence[str]) -> dict[str, ExpertFeatures]:
    """The features in a file of `packed`."""
    found: dict[str, dict[str, Tensor]] = {name: {} for name in names}
    for key, tensor in load(message).items():
        part, _, name = key.partition(".")
        found[name][part] = tensor
    return {name: ExpertFeatures(**parts) for name, parts in found.items()}


def packed_readings(readings: Sequence[Mapping[str, Reading]]) -> bytes:
    """Readings of N pictures as a safetensors file: their words and numbers as JSON in bytes, and their masks."""
    said: list[dict[str, Any]] = []
    masks: dict[str, Tensor] = {}
    for number, row in enumerate(readings):
        said.append({})
        for name, one in row.items():
            said[-1][name] = {
                "expert": one.expert,
                "boxes": [[float(side) for side in box] for box in one.boxes],
                "labels": list(one.labels),
                "scores": [float(score) for score in one.scores],
                "caption": one.caption,
            }
            if one.mask is not None:
                # Memory of its own, which the masks of one batch do not have.
                masks[f"{MASK}{number}.{name}"] = one.mask.clone(memory_format=torch.contiguous_format)
    words = torch.frombuffer(bytearray(json.dumps(said).encode()), dtype=torch.uint8)
    return save({WORDS: words, **masks})


def unpacked_readings(message: bytes) -> list[dict[str, Reading]]:
    """The readings in a file of `packed_readings`."""
    tensors = load(message)
    said = json.loads(bytes(tensors[WORDS].tolist()))
    return [
        {name: _reading(one, tensors.get(f"{MASK}{number}.{name}")) for name, one in row.items()}
        for number, row in enumerate(said)
    ]


def _reading(said: dict[str, Any], mask: Tensor | None) -> Reading:
    boxes = [(x0, y0, x1, y1) for x0, y0, x1, y1 in said["boxes"]]
    return Reading(said["expert"], boxes, said["labels"], said["scores"], mask, said["caption"])
