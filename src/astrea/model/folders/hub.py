"""Model folders that lie on the Hugging Face hub: ``owner/name``, fetched once and kept in the hub's own cache."""

from __future__ import annotations

import re
from pathlib import Path

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import first_line
from astrea.common.paths import exists

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
FETCHED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
"""Nothing that is a program or a pickle."""


def is_hub_id(name: str) -> bool:
    """Whether a name may be one of the hub's, and is no path here: neither the whole nor its first part exists."""
    return bool(HUB_ID.fullmatch(name)) and not exists(name) and not exists(name.partition("/")[0])


def fetch_model(name: str, revision: str | None = None) -> Path:
    """The folder of a model on the hub, in the cache; without a network what is in the cache already.

    Args:
        revision: a commit, branch or tag; None = the newest.

    Raises:
        AstreaError: there is no such model, or it cannot be fetched and is not in the cache.
    """
    from huggingface_hub import snapshot_download  # here: most folders are local

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FETCHED), ignore_patterns=["*/*"]))
    except Exception as error:  # network, permissions, unknown names: each with a type of its own
        raise AstreaError(
            f"{name} is no folder here, and as the name of a model on the hub it cannot be fetched: "
            f"{first_line(error)}",
            "check the name and the network; or download the model where there is one, and give its folder",
        ) from error
