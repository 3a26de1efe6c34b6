"""Ways to spoil a model folder, as functions of its path: other values, bytes or tensors, or a file less."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Spoil = Callable[[Path], None]


def edited(name: str, **changes: Any) -> Spoil:
    """Other values for keys of a JSON file."""

    def spoil(folder: Path) -> None:
        value = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps(value | changes))

    return spoil


def put(name: str, place: tuple[Any, ...], value: Any) -> Spoil:
    """Another value at a place in a JSON file."""

    def spoil(folder: Path) -> None:
        whole = json.loads((folder / name).read_text())
        inner = whole
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        (folder / name).write_text(json.dumps(whole))

    return spoil


def written(name: str, data: bytes | str) -> Spoil:
    """Other bytes in the place of a file."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return spoil


def changed(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    """Other tensors."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def several(*spoils: Spoil) -> Spoil:
    """One after the other."""

    def spoil(folder: Path) -> None:
        for one in spoils:
            one(folder)

    return spoil


def removed(name: str) -> Spoil:
    """Without a file."""
    return lambda folder: (folder / name).unlink()


def instead(name: str, make: Callable[[Path], object]) -> Spoil:
    """Something else in the place of a file."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return spoil
