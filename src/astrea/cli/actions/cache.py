"""What cache list and cache prune do."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from rich.table import Table

from astrea.common.errors import AstreaError
from astrea.common.output import out, print_json
from astrea.common.paths import is_folder
from astrea.common.terminal import counted
from astrea.data.feature_cache import FeatureCache

MB = 1e6


def list_entries(folder: Path, *, as_json: bool) -> None:
    """Print the entries of a cache, the one used last first, and what they take together."""
    entries = sorted(_open(folder).entries(), key=lambda entry: -entry.used)
    if as_json:
        print_json([{"name": each.name, "what": each.what, "bytes": each.size, "used": each.used} for each in entries])
        return
    table = Table("entry", "what", "MB", "last used", header_style="dim", box=None, pad_edge=False)
    table.columns[2].justify = "right"
    for each in entries:
        used = datetime.fromtimestamp(each.used).isoformat(sep=" ", timespec="minutes")
        table.add_row(each.name[:16], each.what, f"{each.size / MB:,.1f}", used)
    out.print(table)
    whole = sum(each.size for each in entries)
    out.print(f"{counted(len(entries), 'entry', 'entries')}, {whole / MB:,.1f} MB", highlight=False)


def prune(folder: Path, max_gb: float) -> None:
    """Remove entries until the rest takes at most so much, and print how much that freed."""
    cache = _open(folder)
    removed = cache.prune(int(max_gb * 1e9))
    left = cache.entries()
    kept = f"{counted(len(left), 'entry', 'entries')} of {sum(each.size for each in left) / MB:,.1f} MB left"
    out.print(f"{removed / MB:,.1f} MB removed, {kept}", highlight=False)


def _open(folder: Path) -> FeatureCache:
    if not is_folder(folder):
        raise AstreaError(f"{folder} is not a folder", "give the cache's folder: it lies beside the folder of a run")
    return FeatureCache(folder)
