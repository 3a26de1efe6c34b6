"""What is done to a model folder once it is written: modes as of any other file, and a model card."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

from astrea.common.files import write_atomic
from astrea.common.paths import file_guard, is_file, list_folder, mode_of
from astrea.model.configuration import AstreaConfig
from astrea.model.folders.card import MARK, model_card

if TYPE_CHECKING:
    from astrea.report.results import Results

CARD = "README.md"
GENERATED = "This model card has been automatically generated"
"""What transformers writes into a card that nobody has filled in."""


def settle_modes(folder: Path) -> None:
    """Let whoever may read the folder's other files read its weights: safetensors keeps what it writes to its owner.

    Raises:
        AstreaError: a mode cannot be changed.
    """
    mode = mode_of(folder / "config.json")  # which has been opened and written in the ordinary way
    if mode is None or not stat.S_ISREG(mode):
        return
    with file_guard(folder):
        for path in list_folder(folder):
            if path.suffix == ".safetensors" and mode_of(path) != mode:
                path.chmod(stat.S_IMODE(mode))


def write_card(folder: Path, config: AstreaConfig, results: Results | None = None) -> None:
    """Write the folder's model card, unless somebody has written one of their own.

    Args:
        results: what the model scored, if it has been evaluated.

    Raises:
        AstreaError: it cannot be written.
    """
    path = folder / CARD
    with file_guard(path):
        if is_file(path):
            found = path.read_text(errors="replace")
            if MARK not in found and GENERATED not in found:
                return
        write_atomic(path, model_card(config, results).encode())
