"""The names of the ways in which an expert can be wrong, for recipes; `astrea.experts.corruption_kinds` does them."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS: Mapping[str, tuple[str, ...]] = {
    "another_picture": ("swapped", "late", "half_swapped"),
    "stuck": ("stuck_slots", "stuck_picture"),
    "class": ("wrong_class",),
    "colour": ("wrong_colour",),
    "place": ("mirrored",),
    "noise": ("noise",),
}
"""Kinds that are alike: who was trained on one of a group has seen the others of it."""

KINDS: tuple[str, ...] = tuple(kind for group in GROUPS.values() for kind in group)
