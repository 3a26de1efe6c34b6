"""Small checkpoints, each written once, and the experts that are built from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from astrea.config import ExpertEntry
from astrea.experts.bank import ExpertBank
from astrea.experts.checkpoint.entry import resolve
from astrea.experts.checkpoint.weights import load_checkpoint
from experts.checkpoint.builders import PHRASES, kind_of, small_checkpoint

# Untrained networks are sure of little; the thresholds leave some slots full.
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"tokens": 6, "threshold": 0.2} for name in ("rt_detr_v2", "detr", "rt_detr", "d_fine", "yolos")},
    "grounding_dino": {"tokens": 6, "phrases": PHRASES},
    **{name: {"tokens": 4, "threshold": 0.05} for name in ("mask2former", "segformer", "eomt")},
    **{name: {"tokens": 4} for name in ("sam", "vit_plain", "dinov2", "dinov2_registers", "dinov3")},
    **{name: {"tokens": 5, "top": 3} for name in ("vit", "dinov2_head", "convnextv2")},
    **{name: {"tokens": 5, "phrases": PHRASES} for name in ("siglip", "siglip2", "clip")},
    **{name: {"tokens": 4} for name in ("blip", "git", "florence2")},
}


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


def loaded(entry: ExpertEntry) -> ExpertBank:
    """A bank of one expert, "it", with the checkpoint's weights."""
    bank = ExpertBank({"it": resolve("it", entry)})
    load_checkpoint("it", bank["it"], entry)
    return bank


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
