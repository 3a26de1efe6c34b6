"""Pretrained components: four compact experts and the small language model, as fp16 safetensors with a card.

`astrea pretrain` writes such a folder, the package ships one, and a model is assembled from one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from astrea.common.errors import AstreaError
from astrea.common.files import atomic_path, sha256_file
from astrea.common.installation import SHIPPED_NAME, SHIPPED_NEUTRAL_NAME
from astrea.common.paths import is_file, read_json

BUNDLED = Path(__file__).parents[1] / "world" / "weights"
NEUTRAL = BUNDLED / "neutral"
"""The language model that has read plain sentences alone; its card names the experts of `BUNDLED`."""

CARD = "card.json"
LANGUAGE = "language"


def components_folder(pretrain: str) -> Path:
    """The folder of the components that a recipe's ``pretrain`` names."""
    return {SHIPPED_NAME: BUNDLED, SHIPPED_NEUTRAL_NAME: NEUTRAL}.get(pretrain) or Path(pretrain)


def save_component(module: nn.Module, path: Path, *, settings: str = "") -> None:
    """Write a component's weights as fp16 (whole numbers as they are); tied copies are written once.

    Args:
        settings: identifies what it was made with, for `made_with`.
    """
    tensors: dict[str, torch.Tensor] = {}
    written: set[int] = set()
    for name, value in module.state_dict().items():
        if value.data_ptr() in written and value.numel():
            continue
        written.add(value.data_ptr())
        tensors[name] = (value.half() if value.is_floating_point() else value).contiguous()
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata={"settings": settings} if settings else None)


def made_with(path: Path) -> str | None:
    """The ``settings`` that a component was saved with; None where nobody said.

    Raises:
        AstreaError: the file is no safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("settings")
    except (OSError, SafetensorError) as error:
        raise AstreaError(f"{path}: {error}", "remove it: it is not a whole part") from error


def load_component(module: nn.Module, folder: Path, name: str) -> None:
    """Fill a module with a component's weights, checked against the folder's card. A component that is not in the
    folder is the package's where the card names the bytes of that one.

    Raises:
        AstreaError: the file or the card is missing, altered, or of another size than the recipe asks for.
    """
    path, bundled = folder / f"{name}.safetensors", BUNDLED / f"{name}.safetensors"
    hint = "make the parts again with `astrea pretrain`, or use pretrain=shipped"
    digest = read_card(folder).get("sha256", {}).get(name)
    if not is_file(path):
        if not is_file(bundled) or sha256_file(bundled) != digest:
            raise AstreaError(f"{path}: the pretrained part {name!r} is missing", hint)
        path = bundled
    if sha256_file(path) != digest:
        raise AstreaError(f"{path}: its sha256 is not the one that {CARD} names", hint)
    fill(module, path, name)


def fill(
    module: nn.Module,
    path: Path,
    name: str,
    *,
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> None:
    """Fill a module with a component's weights.

    Args:
        rename: what becomes of the names in the file.

    Raises:
        AstreaError: the file is of another size than the module.
    """
    tensors = rename(load_file(path))
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    own = module.state_dict()
    there = {own[key].data_ptr() for key in tensors if key in own}
    tied = {key for key in own if key not in tensors and own[key].data_ptr() in there}
    wrong = [k for k in own if k not in tied and (k not in tensors or tensors[k].shape != own[k].shape)]
    wrong += [k for k in tensors if k not in own]
    if wrong:
        raise AstreaError(f"{path}: does not fit this recipe's {name} ({wrong[0]})", "use the size that the card names")
    module.load_state_dict(tensors, strict=False)


def read_card(folder: Path) -> dict[str, Any]:
    """The card beside the components: command, commit, seeds, scores, sha256.

    Raises:
        AstreaError: no readable card.
    """
    path = folder / CARD
    hint = "point pretrain= at a folder that `astrea pretrain` wrote"
    try:
        card = read_json(path, "card")
    except AstreaError as error:
        raise AstreaError(error.message, hint) from error
    if not isinstance(card, dict) or not isinstance(card.get("sha256", {}), dict):
        raise AstreaError(f"{path}: is not a card", hint)
    return card
