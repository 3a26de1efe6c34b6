"""The page as a whole: the sections under the headline, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astrea.common.files import write_atomic
from astrea.lab.arena.page.headline import headline
from astrea.lab.arena.page.sections import SECTIONS
from astrea.report.templating import environment


def write_page(arena: Mapping[str, Any], path: Path) -> None:
    """Write the page of what arena.json holds.

    Args:
        arena: see `astrea.lab.arena.collect.collect`; any key may be missing or empty.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomic(path, render(arena).encode("utf-8"))


def render(arena: Mapping[str, Any]) -> str:
    """The page as HTML."""
    drawn = [(each, each.blocks(arena)) for each in SECTIONS]
    shown = [(each, blocks) for each, blocks in drawn if blocks or each.missing]
    template = environment("astrea.lab.arena.page").get_template("arena.html.j2")
    return template.render(headline=headline(arena), sections=shown)
