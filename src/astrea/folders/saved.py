"""What is done to a model folder once it is written: modes as of any other file, and a model card."""

from __future__ import annotations

import stat
from pathlib import Path

from astrea.configuration import AstreaConfig
from astrea.evaluation.report.results import Results
from astrea.files import write_atomic
from astrea.folders.card import MARK, model_card
from astrea.paths import is_file

CARD = "README.md"
GENERATED = "This model card has been automatically generated"
"""What transformers writes into a card that nobody has filled in."""


def settle_modes(folder: Path) -> None:
    """Let whoever may read the folder's other files read its weights: safetensors keeps what it writes to its owner.

    Raises:
        OSError: a mode cannot be changed.
    """
    told = folder / "config.json"
    if is_file(told):  # which has been opened and written in the ordinary way
        mode = stat.S_IMODE(told.stat().st_mode)
        for path in folder.glob("*.safetensors"):
            if stat.S_IMODE(path.stat().st_mode) != mode:
                path.chmod(mode)


def write_card(folder: Path, config: AstreaConfig, results: Results | None = None) -> None:
    """Write the folder's model card, unless somebody has written one of their own.

    Args:
        results: what the model scored, if it has been evaluated.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / CARD
    if is_file(path):
        found = path.read_text(errors="replace")
        if MARK not in found and GENERATED not in found:
            return
    write_atomic(path, model_card(config, results).encode())
