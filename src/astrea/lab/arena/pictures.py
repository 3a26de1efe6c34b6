"""The pictures of the arena's page, as inline SVG in the page's own colours: dots with intervals, and plain charts.

Names reach a picture as they are in the file and are escaped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from astrea.report.curves import nice_ticks, thinned
from astrea.report.markup import escape, plain, words

CSS = """
figure.drawing { overflow-x: auto; margin: 10px 0 16px; max-width: 860px; }
figure.drawing svg { min-width: 520px; }
svg .name { fill: var(--ink); }
svg .self { fill: var(--ink); font-weight: 650; }
svg .zero { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 3 3; }
"""

_WIDTH = 720
_ROW = 24  # height of one line of a picture of intervals
_LETTER = 6.6  # about as wide as a letter of 12 px is; labels are placed by it
_LONGEST = 30  # letters of a name; a longer one is cut, the table beside the picture has it in full


@dataclass(frozen=True)
class Interval:
    """A difference and how sure it is; without ``low`` and ``high`` it is a dot alone."""

    name: str
    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """What a chart shows in one colour: points (across, up), joined by a line or not, each with a name or not."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    line: bool = True
    dots: bool = True
    names: Sequence[str] = ()


def intervals(rows: Sequence[Interval], label: str) -> str:
    """One line per row: its name, its interval and a dot at its mean, over a common axis with a mark at zero.

    Red lies wholly below zero, green wholly above; grey could be either.
    """
    shown = [_short(row.name) for row in rows]
    left = 16 + _LETTER * max(map(len, shown))
    ends = [value for row in rows for value in (row.mean, row.low, row.high) if value is not None]
    ticks = nice_ticks(min(0.0, *ends), max(0.0, *ends), about=6)
    bottom = 8 + _ROW * len(rows)

    def x(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (_WIDTH - 20 - left)

    parts = []
    for tick in ticks:
        kind = "grid" if tick else "zero"
        parts.append(f'<line class="{kind}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{bottom}"/>')
        parts.append(_text(x(tick), bottom + 15, _tick(tick, sign=True), anchor="middle"))
    for index, (row, name) in enumerate(zip(rows, shown, strict=True)):
        y = 8 + _ROW * (index + 0.5)
        low, high = (row.mean if end is None else end for end in (row.low, row.high))
        known = row.low is not None and row.high is not None
        hue = "rgb(var(--loss))" if high < 0 else "rgb(var(--good))" if low > 0 else "var(--soft)"
        colour = hue if known else "var(--soft)"
        told = f"{row.name.replace('_', ' ')}: {plain(row.mean, sign=True)}"
        told += f" ({plain(low, sign=True)} to {plain(high, sign=True)})" if known else ""
        parts.append(_text(left - 10, y + 4, name, anchor="end", kind="name"))
        parts.append(
            f'<path d="M{x(low):.1f} {y:.1f}H{x(high):.1f}" style="stroke:{colour};stroke-width:2.5"/>'
            f'<circle cx="{x(row.mean):.1f}" cy="{y:.1f}" r="4.5" style="fill:{colour}">'
            f"<title>{escape(told)}</title></circle>"
        )
    parts.append(_text((left + _WIDTH - 20) / 2, bottom + 32, "points of the average", anchor="middle"))
    return _figure(parts, bottom + 40, label)


def chart(series: Sequence[Series], label: str, across: str, up: str) -> str:
    """Lines and points over two axes, which are named ``across`` and ``up`` (text)."""
    height, left, right, top, bottom = 340, 52, 20, 24, 40
    points = [point for each in series for point in each.points]
    x_ticks = nice_ticks(min(x for x, _ in points), max(x for x, _ in points), about=6)
    y_ticks = nice_ticks(min(y for _, y in points), max(y for _, y in points), about=5)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = (point[0] - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        y = (point[1] - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + x * (_WIDTH - left - right), height - bottom - y * (height - top - bottom)

    parts = [_text(4, 12, up), _text(_WIDTH - right, height - 4, across, anchor="end")]
    for tick in y_ticks:
        y = place((x_ticks[0], tick))[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{_WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 6, y + 4, _tick(tick), anchor="end"))
    for tick in x_ticks:
        parts.append(_text(place((tick, y_ticks[0]))[0], height - bottom + 16, _tick(tick), anchor="middle"))
    drawn = [(each, [place(p) for p in (thinned(each.points) if each.line else each.points)]) for each in series]
    # A name may not cover a point either, so all points take their room before the first name is placed.
    taken = [(x - 4, y - 4, x + 4, y + 4) for each, spots in drawn if each.dots for x, y in spots]
    for each, spots in drawn:
        if each.line and len(spots) > 1:
            moves = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
            parts.append(f'<path d="M{moves}" style="stroke:{each.colour};stroke-width:2"/>')
        for index, (x, y) in enumerate(spots if each.dots or len(spots) == 1 else []):
            name = each.names[index] if index < len(each.names) else each.name
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill:{each.colour};fill-opacity:.8">'
                f"<title>{words(name)}</title></circle>"
            )
            if each.names:
                parts.append(_label(_short(name), x, y, taken))
    return _figure(parts, height, label)


def key(entries: Sequence[tuple[str, str]]) -> str:
    """What the colours stand for: names (escaped here) with colours."""
    items = "".join(f'<li style="--c:{colour}">{words(name)}</li>' for name, colour in entries)
    return f'<ul class="key">{items}</ul>'


def _label(name: str, x: float, y: float, taken: list[tuple[float, float, float, float]]) -> str:
    """A point's name beside, above or under it, wherever there is room; none at all rather than one over another."""
    width = _LETTER * len(name)
    for start, base in ((x + 7, y + 4), (x - 7 - width, y + 4), (x - width / 2, y - 8), (x - width / 2, y + 17)):
        box = (start, base - 10, start + width, base + 2)
        inside = box[0] >= 0 and box[2] <= _WIDTH
        if inside and not any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
        ):
            taken.append(box)
            return _text(start, base, name, kind="self" if name == "astrea" else "name")
    return ""


def _short(name: str) -> str:
    name = name.replace("_", " ")
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _tick(value: float, *, sign: bool = False) -> str:
    return f"{round(value, 10) + 0.0:{'+' if sign and value else ''},.6g}".replace("-", "−")


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    classes = f' class="{kind}"' if kind else ""
    return f'<text{classes} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _figure(parts: Sequence[str], height: float, label: str) -> str:
    return (
        f'<figure class="drawing"><svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg></figure>"
    )
