"""The page as a whole: the sections under the headline, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import astrea
from astrea.common.files import write_atomic
from astrea.lab.arena.page.headline import headline
from astrea.lab.arena.page.parts import PARTS
from astrea.lab.arena.pictures import CSS
from astrea.report.markup import absent, escape, section

# Nothing is fetched and nothing runs, whatever the file may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_OWN_CSS = "tr.own > * { font-weight: 650; } td strong { white-space: nowrap; } pre.command { white-space: pre-wrap; }"


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
    bodies = {each: body for each in PARTS if (body := each.draw(arena)) or each.missing}
    links = "".join(f'<a href="#{each.anchor}">{each.title}</a>' for each in bodies)
    gone = [each.title.lower() for each, body in bodies.items() if not body]
    told = absent(f"This arena is not complete. Missing: {', '.join(gone)}.") if gone else ""
    sections = "".join(
        section(each.anchor, each.title, body or absent(each.missing), each.note if body else "")
        for each, body in bodies.items()
    )
    style = resources.files("astrea.report").joinpath("page.css").read_text("utf-8")
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>Arena · Astrea</title><style>{style}{CSS}{_OWN_CSS}</style>"
    )
    body = (
        f'{headline(arena)}<nav aria-label="Sections">{links}</nav><main>{told}{sections}</main>'
        f"<footer><p>Made by Astrea {escape(getattr(astrea, '__version__', ''))} from <code>arena.json</code> alone."
        "</p></footer>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'
