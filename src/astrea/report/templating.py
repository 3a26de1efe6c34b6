"""Jinja2 as the pages use it: everything is escaped, and a name that does not exist is an error."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from astrea.common.installation import __version__
from astrea.report.formatting import FILTERS, printable


@cache
def environment(*packages: str) -> Environment:
    """The templates of the given packages (each in its folder ``templates``), with the report's own beside them.

    Whatever a file of a run holds reaches a page through an expression, so it is escaped, and characters that no page
    may hold are replaced.
    """
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in (*packages, "astrea.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(FILTERS)
    made.globals["version"] = __version__
    return made


def _finalize(value: Any) -> Any:
    """What every expression of a template passes through before it is escaped; markup is a page's own and stays."""
    return printable(value) if type(value) is str else value
