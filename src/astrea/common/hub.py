"""Models and checkpoints on the Hugging Face hub: ``owner/name``, fetched once and kept in the hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import first_line
from astrea.common.paths import exists

PART = r"[A-Za-z0-9][\w.-]{0,95}"
"""What an owner's or a repository's name may be."""

HUB_ID = re.compile(f"{PART}/{PART}", re.ASCII)
TEXTS = ("*.json", "*.jinja", "*.txt", "*.model")
"""What is fetched beside weights: nothing that is a program or a pickle."""


def is_hub_id(name: str) -> bool:
    """Whether a name may be one of the hub's, and is no path here: neither the whole nor its first part exists."""
    return bool(HUB_ID.fullmatch(name)) and not exists(name) and not exists(name.partition("/")[0])


def fetch_folder(name: str, revision: str | None, what: str, *, weights: Sequence[str] = ("*.safetensors",)) -> Path:
    """The folder of a repository on the hub, in the cache; without a network what is in the cache already.

    Args:
        revision: a commit, branch or tag; None = the newest.
        what: what a message says cannot be fetched.
        weights: patterns of the files with weights. Files in folders below are never fetched.

    Raises:
        AstreaError: there is no such repository, or it cannot be fetched and is not in the cache.
    """
    wanted = [*TEXTS, *weights]
    try:
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"])
        )
    except Exception as error:  # network, permissions, unknown names: each with a type of its own
        raise AstreaError(
            f"{what} cannot be fetched: {first_line(error)}",
            "check the name, the revision and the network, or download it and give the folder",
        ) from error
