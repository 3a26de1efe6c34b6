"""The weights of a model folder, in one file or in several: names and shapes before anything is allocated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import AGAIN, MAX_TOKENIZER_BYTES, WEIGHTS, check_inside, read_json
from astrea.common.paths import is_file
from astrea.common.weight_files import Shapes, pickles_hint, tensor_shapes

INDEX = f"{WEIGHTS}.index.json"
MOST_FILES = 1000
ADAPTER = "adapter_config.json"


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: one, or those that its index names.

    Raises:
        AstreaError: there are none, or the index is damaged or names anything but files beside it; names the file.
    """
    if is_file(folder / ADAPTER):
        # transformers would fetch the model that the adapter is for, from wherever the file says.
        raise AstreaError(
            f"{folder / ADAPTER} makes this a folder of peft adapters",
            "load the model that they are for, put them on it with peft, and save it merged",
        )
    single, index = folder / WEIGHTS, folder / INDEX
    if is_file(single):
        return [single]
    if not is_file(index):
        raise AstreaError(f"{single} is missing", pickles_hint(folder) + AGAIN)
    return [folder / name for name in sorted(set(_places(index).values()))]


def _places(index: Path) -> Mapping[str, str]:
    """Tensor -> name of the file that holds it."""
    places = read_json(index, MAX_TOKENIZER_BYTES).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise AstreaError(f"{index} has no weight_map", AGAIN)
    for name in {str(name) for name in places.values()}:
        if not re.fullmatch(r"[\w-][\w.-]{0,200}\.safetensors", name, re.ASCII):
            raise AstreaError(f"{index} names {name!r:.80}, which is no safetensors file beside it", AGAIN)
        if not is_file(index.parent / name):
            raise AstreaError(f"{index.parent / name} is missing", AGAIN)
    if len(set(places.values())) > MOST_FILES:
        raise AstreaError(f"{index} names more than {MOST_FILES:,} files", AGAIN)
    return places


def read_shapes(folder: Path) -> Shapes:
    """Every tensor's shape, from the heads of the files.

    Raises:
        AstreaError: a file is missing, damaged, or may not be read; or the files are not what their index says.
    """
    found: Shapes = {}
    files = weight_files(folder)
    for path in files:
        check_inside(path)
        own = tensor_shapes(path, AGAIN)
        if twice := own.keys() & found.keys():
            raise AstreaError(f"{path} holds {min(twice)} once more", AGAIN)
        found |= own
        if path.name == WEIGHTS:
            continue
        listed = {name for name, place in _places(folder / INDEX).items() if place == path.name}
        if different := listed ^ own.keys():
            raise AstreaError(f"{folder / INDEX} and {path.name} differ in {some(sorted(different))}", AGAIN)
    return found


def check_shapes(path: Path, found: Shapes, wanted: Shapes, optional: set[str]) -> None:
    """Whether a folder holds the tensors that its model has.

    Args:
        path: what messages name. optional: tensors that may be missing.

    Raises:
        AstreaError: it does not; names the tensor.
    """
    missing = sorted(wanted.keys() - found.keys() - optional)
    if missing:
        raise AstreaError(f"{path} lacks {some(missing)}", "it does not belong to this config.json; " + AGAIN)
    surplus = sorted(found.keys() - wanted.keys())
    if surplus:
        raise AstreaError(f"{path} has unknown {some(surplus)}", "it does not belong to this config.json; " + AGAIN)
    for name, shape in found.items():
        if shape != wanted[name]:
            raise AstreaError(
                f"{path}: tensor {name} is {shape}, config.json asks for {wanted[name]}",
                "the two files do not belong together; " + AGAIN,
            )


def some(names: list[str]) -> str:
    """The first of several tensors, and how many there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"tensor {names[0]}{more}"
