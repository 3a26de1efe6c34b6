"""Small checkpoints, each written once, and the experts that are built from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from astrea.experts.bank import ExpertBank
from astrea.recipes.recipe import ExpertEntry
from expert_builders import OPTIONS, kind_of, loaded, small_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small checkpoint of an architecture."""
    written: dict[str, Path] = {}

    def folder(architecture: str) -> Path:
        if architecture not in written:
            written[architecture] = small_checkpoint(architecture, tmp_path_factory.mktemp(architecture))
        return written[architecture]

    return folder


@pytest.fixture(scope="session")
def entry(checkpoint) -> Callable[..., ExpertEntry]:
    """A recipe's entry for a small checkpoint."""

    def make(architecture: str, **options: Any) -> ExpertEntry:
        return ExpertEntry(
            kind=kind_of(architecture),
            checkpoint=str(checkpoint(architecture)),
            options=OPTIONS[architecture] | options,
        )

    return make


@pytest.fixture(scope="session")
def bank(entry) -> Callable[[str], ExpertBank]:
    """`loaded`, once per architecture."""
    built: dict[str, ExpertBank] = {}

    def of(architecture: str) -> ExpertBank:
        if architecture not in built:
            built[architecture] = loaded(entry(architecture))
        return built[architecture]

    return of


@pytest.fixture(scope="session")
def pixels() -> torch.Tensor:
    """Two pictures (2, 3, 64, 64) of coarse blocks, in values that 8 bits can say."""
    blocks = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return (F.interpolate(blocks, (64, 64), mode="bilinear") * 255).round() / 255
