"""What merge does."""

from __future__ import annotations

from pathlib import Path

from astrea.common.output import print_path
from astrea.common.paths import check_empty, file_guard
from astrea.language.low_rank import merge as merge_adapters
from astrea.model.loading import load_model


def merge(model: Path, folder: Path, *, trust_remote_code: bool) -> None:
    """Write a model with its low-rank adapters merged into a new folder."""
    check_empty(folder)
    loaded, processor = load_model(model, trust_remote_code=trust_remote_code)
    merge_adapters(loaded)
    with file_guard(folder):
        loaded.save_pretrained(folder)
        processor.save_pretrained(folder)
    print_path("model", folder)
