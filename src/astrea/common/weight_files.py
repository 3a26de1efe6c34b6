"""What a safetensors file holds, from its head, or all of a small one; and what to say of a folder that has pickles
instead."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import first_line
from astrea.common.paths import list_folder, size_of

PICKLES = (".bin", ".pt", ".pth", ".ckpt")

Shapes = dict[str, list[int]]


def tensor_shapes(path: Path, hint: str) -> Shapes:
    """Every tensor's shape, by name.

    Args:
        hint: what to do about a damaged file.

    Raises:
        AstreaError: the file is damaged or may not be read; names it.
    """
    try:
        # The library says of a file that may not be read that there is none.
        with open(path, "rb"):
            pass
        with safe_open(path, framework="pt") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except PermissionError as error:
        raise AstreaError(
            f"{path} may not be read by you", f"ask its owner for permission: chmod a+r {path.name}"
        ) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise AstreaError(f"{path} is damaged, cut short or no safetensors file: {first_line(error)}", hint) from error


def small_tensors(path: Path, most: int, hint: str) -> dict[str, Tensor]:
    """Every tensor of a small file, by name.

    Args:
        most: bytes that it may have. hint: what to do about a damaged file.

    Raises:
        AstreaError: the file is larger, or damaged; names it.
    """
    if (size := size_of(path)) > most:
        raise AstreaError(f"{path} has {size:,} bytes; at most {most:,} are read", hint)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise AstreaError(f"{path} is damaged or no safetensors file: {error}", hint) from error


def pickles_hint(folder: Path) -> str:
    """The beginning of the hint where weights are missing: that the pickles of the folder are no help; "" if it has
    none."""
    pickles = sorted(path.name for path in list_folder(folder) if path.suffix in PICKLES)
    return f"{', '.join(pickles)} cannot be read instead: pickle files are never loaded; " if pickles else ""
