"""How the first runs of the arena are known: their digests were taken of recipes that said more than today's do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrea.fusion.registry import ASTREA

UNREAD: Mapping[str, Any] = {
    "model": {"word_match": 0.0},
    "regular": {"contribution_every": 0},
    "fuse": {"losses": {"contribution": 0.2}},
    "tune": {"losses": {"contribution": 0.2}},
}
"""What the recipes of other strategies than Astrea held though these never read it; recipes leave it out now."""

UNREAD_BY_NEXT_TOKEN: Mapping[str, Any] = {"align": {"losses": {"word": 1.0, "itc": 0.3, "agree": 0.1}}}
"""The same of those that align by next-token prediction, which has no such losses."""


def as_first_written(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain data with the keys that only recipes of the first runs held.

    Args:
        recipe: without defaults, under old names (see `astrea.recipes.renamed.with_old_names`).
    """
    if recipe.get("model", {}).get("strategy", ASTREA) == ASTREA:
        return dict(recipe)
    written = _merged(recipe, UNREAD)
    return _merged(written, UNREAD_BY_NEXT_TOKEN) if written["align"].get("kind") == "next_token" else written


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(below)
    for key, value in above.items():
        made[key] = _merged(made.get(key, {}), value) if isinstance(value, Mapping) else value
    return made
