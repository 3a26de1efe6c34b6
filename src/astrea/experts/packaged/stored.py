"""Weights that lie in this package, or in another that was installed: never unpickled as objects.

Safetensors hold nothing but numbers. Where a package brings a pickle, torch's restricted reader (weights_only) builds
tensors and nothing else; it is read once, when a model is assembled, and a model folder holds safetensors. So nothing
is converted to a cache, which would be one more file that can be damaged or stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from astrea.common.errors import AstreaError


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file of this package, in float32.

    Raises:
        AstreaError: it is missing or damaged.
    """
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise AstreaError(f"{path} is missing or damaged: {error}", "install the package again") from error


def read_pickled_weights(path: str | Path) -> Mapping[str, Tensor]:
    """The tensors of a pickle of another package.

    Raises:
        AstreaError: it is missing, damaged, or holds anything but tensors by name.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes torch raise nearly any type
        raise AstreaError(f"{path} holds no plain weights: {error}", "install the package again") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise AstreaError(f"{path} holds no plain weights", "install the package again")
    return found
