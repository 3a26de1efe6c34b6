"""Architectures that a recipe describes itself: read without any file, and held against a checkpoint's own words.

What a recipe leaves out is as transformers has it by default, so a few lines describe a network of any size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from astrea.common.architecture import restore
from astrea.common.errors import AstreaError
from astrea.common.quiet import quiet

SAYS_NOTHING = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "_commit_hash", "use_cache")
"""Keys of a config.json that say nothing about the network itself."""


def read_architecture(described: Mapping[str, Any], where: str) -> PreTrainedConfig:
    """The configuration that a recipe describes.

    Args:
        where: the recipe's key, for people.

    Raises:
        AstreaError: it is none, or it names something to import or to fetch.
    """
    try:
        with quiet():  # of defaults that do not suit what was left out
            return restore(described)
    except AstreaError as error:
        raise AstreaError(
            f"{where} describes no model: {error.message}",
            "give what the checkpoint's config.json says, model_type included",
        ) from error


def check_agreement(described: Mapping[str, Any], config: PreTrainedConfig, where: str, folder: Path) -> None:
    """Whether a checkpoint is what a recipe says it is; only keys that the recipe names are compared.

    Args:
        config: the checkpoint's own.
        where: the recipe's key. folder: the checkpoint's, for people.

    Raises:
        AstreaError: it is not; names the first key that differs.
    """
    for key, said, found in _differences(described, read_architecture(described, where), config):
        raise AstreaError(
            f"{where}.{key} is {said!r:.120}, {folder / 'config.json'} says {found!r:.120}",
            f"correct {where}, leave it out, or name the checkpoint that it describes",
        )


def _differences(
    described: Mapping[str, Any], own: PreTrainedConfig, found: PreTrainedConfig
) -> Iterator[tuple[str, Any, Any]]:
    for key, value in described.items():
        if key in SAYS_NOTHING:
            continue
        # As configurations have it, so that another spelling of the same thing is no difference.
        mine, theirs = getattr(own, key, None), getattr(found, key, None)
        if isinstance(value, Mapping) and isinstance(mine, PreTrainedConfig) and isinstance(theirs, PreTrainedConfig):
            yield from ((f"{key}.{inner}", a, b) for inner, a, b in _differences(value, mine, theirs))
        elif _plain(mine) != _plain(theirs):
            yield key, mine, theirs


def _plain(value: Any) -> Any:
    """Alike for a list and a tuple, and for numbers and text as keys."""
    return json.loads(json.dumps(value, default=lambda other: getattr(other, "__dict__", str(other)), sort_keys=True))
