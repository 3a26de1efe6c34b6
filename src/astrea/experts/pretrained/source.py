"""A checkpoint's folder: found on this disk or fetched from the hub at one commit, and read with care.

Only JSON, text and safetensors files are ever fetched or read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import MAX_JSON_BYTES, read_json
from astrea.common.hub import PART, fetch_folder
from astrea.common.paths import exists, is_file, is_folder, list_folder, size_of

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
FETCHED = ("model.safetensors", "model-*.safetensors")
"""The weights that are fetched of a repository: a pickle never even reaches this disk."""
MAX_WORDS_BYTES = 128 << 20
WORDS = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt", "special_tokens_map.json")

_HUB_ID = re.compile(f"({PART}/)?{PART}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def checkpoint_folder(checkpoint: str, revision: str | None) -> Path:
    """The folder of a checkpoint that holds its weights as safetensors.

    Args:
        checkpoint: a folder, or a hub id such as ``PekingU/rtdetr_v2_r18vd``.
        revision: the commit of a hub id; None for a folder.

    Raises:
        AstreaError: there is no such folder, a hub id has no full commit, fetching failed, or there are no weights
            as safetensors.
    """
    folder = Path(checkpoint).expanduser()
    if is_folder(folder):
        if revision is not None:
            raise AstreaError(f"{folder} is a folder and has no revision {revision!r}", "leave `revision` out")
    elif exists(folder) or not _HUB_ID.fullmatch(checkpoint):
        what = "is not a folder" if exists(folder) else "does not exist"
        raise AstreaError(f"the checkpoint {checkpoint} {what}", "give a folder, or a hub id such as owner/name")
    else:
        folder = _fetch(checkpoint, revision)
    if not any(is_file(folder / name) for name in WEIGHTS):
        pickles = sorted(path.name for path in list_folder(folder) if path.suffix in PICKLES)
        found = f"; {', '.join(pickles[:3])} cannot be read instead: pickles are never loaded" if pickles else ""
        raise AstreaError(
            f"the checkpoint {checkpoint} has no {WEIGHTS[0]}{found}",
            "save it with transformers' save_pretrained where you trust it, and give that folder",
        )
    return folder


def _fetch(checkpoint: str, revision: str | None) -> Path:
    if revision is None or not _COMMIT.fullmatch(revision):
        said = "no revision" if revision is None else f"the revision {revision!r}, which can change its meaning"
        raise AstreaError(
            f"the checkpoint {checkpoint!r} is no folder here, and as a hub id it has {said}",
            "pin it: revision: <the 40 hex digits of a commit>, as the hub's page of its files shows them",
        )
    return fetch_folder(checkpoint, revision, f"the checkpoint {checkpoint} at {revision}", weights=FETCHED)


def read_config_json(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json. Raises AstreaError if it is missing, too large or no JSON object."""
    return read_json(folder / "config.json", MAX_JSON_BYTES)


def read_generation_json(folder: Path) -> dict[str, Any]:
    """The checkpoint's generation_config.json; {} if there is none. Raises AstreaError if it cannot be read."""
    path = folder / "generation_config.json"
    return read_json(path, MAX_JSON_BYTES) if is_file(path) else {}


def read_processor_json(folder: Path) -> dict[str, Any]:
    """What the checkpoint says of its pictures: preprocessor_config.json, or that part of processor_config.json.

    Raises:
        AstreaError: neither file is there, or one is unreadable.
    """
    alone, joint = folder / "preprocessor_config.json", folder / "processor_config.json"
    if is_file(alone):
        return read_json(alone, MAX_JSON_BYTES)
    if is_file(joint):
        part = read_json(joint, MAX_JSON_BYTES).get("image_processor")
        if isinstance(part, dict):
            return part
    raise AstreaError(
        f"{alone} is missing", "copy it from where the checkpoint comes from: it says how pictures are prepared"
    )


def check_words(folder: Path) -> None:
    """Look at the sizes of the tokenizer's files before they are read.

    Raises:
        AstreaError: one is too large.
    """
    for name in WORDS:
        path = folder / name
        if is_file(path) and size_of(path) > MAX_WORDS_BYTES:
            raise AstreaError(f"{path} is larger than {MAX_WORDS_BYTES >> 20} MiB", "use the checkpoint's own file")
