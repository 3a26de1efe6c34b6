"""What an expert may be called."""

from __future__ import annotations

import re

from torch import nn

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
TAKEN = frozenset(dir(nn.ModuleDict())) | {"joint"}
"""Names that torch's modules use for themselves, and the phase of alignment in which all experts learn together."""


def wrong_with(name: str) -> str | None:
    """Why no expert can have this name, in words; None if one can. It becomes part of the names of tensors and of
    recipes' keys, both of which put dots between their parts."""
    if not NAME.fullmatch(name):
        return f"{name[:80]!r} is no name for an expert: use a letter first, then letters, digits, _ or -, 64 at most"
    if name in TAKEN:
        return (
            f"{name!r} is no name for an expert, as torch or a stage is called so: use another, such as {name}_expert"
        )
    return None
