"""Where what is costly to make, and belongs to no run, is kept for whoever is logged in."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/astrea``, by default ``~/.cache/astrea`` (XDG base directories); it need not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "astrea"
