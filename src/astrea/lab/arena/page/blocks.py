"""What a section of the page is made of. The template has one macro for each; none of these holds any HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from markupsafe import Markup

from astrea.lab.arena.page.reading import SELF, figure
from astrea.report.formatting import DASH, number, plain, words
from astrea.report.formatting import spread as mean_and_deviation


@dataclass(frozen=True)
class Cell:
    """A table cell: text, or a bar from 0 to 1 with an upright mark. ``tint`` (0..1) colours its ground."""

    text: str = ""
    tint: float = 0.0
    bar: float | None = None
    mark: float | None = None
    classes: str = "num"
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A table row under its name; without cells it is the title of the rows below it."""

    head: str
    cells: Sequence[Cell]
    classes: str = ""


@dataclass(frozen=True)
class Table:
    """A table. ``title`` and ``note`` stand above it; ``caption`` is for readers who cannot see the page."""

    kind: ClassVar[str] = "table"
    caption: str
    heads: Sequence[str]
    rows: Sequence[Row]
    classes: str = "figures"
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawing, and what its colours stand for: name -> CSS colour."""

    kind: ClassVar[str] = "chart"
    svg: Markup
    key: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Text:
    """A line of text. ``look``: "note"; "absent" (something was not measured); "command" (to be typed)."""

    kind: ClassVar[str] = "text"
    text: str
    look: str = "note"


@dataclass(frozen=True)
class Csv:
    """A link that saves the table above it for a spreadsheet."""

    kind: ClassVar[str] = "csv"
    name: str
    address: str


DIFFERENCE_HEADS = ("Minus Astrea", "95 % interval", "p (Holm)")

Block: TypeAlias = Table | Chart | Text | Csv


def name_row(name: str, cells: Sequence[Cell], title: str | None = None) -> Row:
    """The row of a strategy or variant, in bold where it is Astrea's own."""
    return Row(words(name if title is None else title), cells, "own" if name == SELF else "")


def number_cell(value: float | None, digits: int = 1, *, sign: bool = False) -> Cell:
    """A cell with a number, or a dash."""
    return Cell(number(value, digits, sign))


def spread(tree: object) -> str:
    """Mean ± standard deviation over seeds."""
    return mean_and_deviation(figure(tree, "mean"), figure(tree, "std"))


def interval(tree: object) -> str:
    """Both ends of a difference's interval."""
    low, high = figure(tree, "low"), figure(tree, "high")
    return DASH if low is None or high is None else f"{plain(low, sign=True)} to {plain(high, sign=True)}"


def difference_cells(name: str, row: Mapping[str, object]) -> list[Cell]:
    """The cells of `DIFFERENCE_HEADS`: empty for Astrea itself."""
    if name == SELF:
        return [Cell(), Cell(), Cell()]
    difference = row.get("difference")
    return [
        number_cell(figure(difference, "mean"), sign=True),
        Cell(interval(difference)),
        number_cell(figure(difference, "p_holm"), 3),
    ]
