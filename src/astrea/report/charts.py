"""The charts of the pages, drawn by matplotlib: loss curves, differences with intervals, lines and points.

The only module that draws; everything that writes no page runs without it. Each function returns an ``<svg>`` element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from astrea.report.formatting import plain, printable, words
from astrea.report.load import COMPONENTS, Curve
from astrea.report.smoothing import Points, smoothed, thinned
from astrea.report.svg import CSS, EXPERTS, GOOD, INK, LOSS, SOFT, inline, new_figure, style

WIDTH = 720
"""Of a chart that stands alone, in pixels."""

LOSS_COLOURS = {"loss": INK} | dict(zip(COMPONENTS, EXPERTS, strict=False))
"""Name of a loss -> its colour."""

_ROW = 24  # height of one line of differences
_LETTER = 6.6  # about the width of a letter, by which names beside points are placed
_LONGEST = 30  # letters of a name; a longer one is cut, the table beside the chart has it in full

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Difference:
    """A difference and its interval; without ``low`` and ``high`` it is a dot alone."""

    name: str
    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """What a chart shows in one colour: points (across, up), joined by a line or not, each with a name or not."""

    name: str
    colour: str
    points: Points
    line: bool = True
    dots: bool = True
    names: Sequence[str] = ()

    @property
    def css(self) -> str:
        """The colour as the style sheet calls it."""
        return CSS[self.colour]


def expert_colour(index: int) -> str:
    """The colour of the expert of this number, which stands for it on the whole page."""
    return EXPERTS[index % len(EXPERTS)]


def loss_chart(curve: Curve, name: str, label: str) -> Markup:
    """The losses of one stage against the step: pale as logged, strong as a running mean.

    Args:
        name: unique on the page.
        label: what the chart shows, for readers who cannot see it.
    """
    smooth = {loss: smoothed(points) for loss, points in curve.series.items()}
    heights = [value for points in smooth.values() for _, value in points]
    low, high = min(0.0, *heights), max(heights)
    low, high = (low, high) if high > low else (low, low + 1.0)
    with style(name):
        figure, axes = new_figure(340, 206, left=48)
        for loss in reversed(list(smooth)):  # the total comes first, and so lies on top
            colour, strong = LOSS_COLOURS[loss], 2.0 if loss == "loss" else 1.5
            # A spike must not leave the panel.
            raw = [(step, min(high, max(low, value))) for step, value in thinned(curve.series[loss])]
            axes.plot(*zip(*raw, strict=True), color=colour, linewidth=1, alpha=0.28)
            axes.plot(*zip(*thinned(smooth[loss]), strict=True), color=colour, linewidth=strong)
        ticks = MaxNLocator(5).tick_values(low, high)
        axes.set_ylim(ticks[0], ticks[-1])
        axes.margins(x=0.02)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        _axes(axes, "step", "loss", grid="y")
        return inline(figure, label)


def difference_chart(rows: Sequence[Difference], name: str, label: str) -> Markup:
    """One line per row: its name, its interval and a dot at its mean, over a common axis with a mark at zero.

    Red lies wholly below zero, green wholly above; grey could be either.
    """
    titles = {}
    with style(name):
        names = [short(row.name) for row in rows]
        figure, axes = new_figure(WIDTH, _ROW * len(rows) + 52, left=16 + _LETTER * max(map(len, names)))
        axes.axvline(0, color=SOFT, linewidth=1.5, linestyle=(0, (2, 2)), gid="zero")
        for index, row in enumerate(rows):
            low, high = (row.mean if end is None else end for end in (row.low, row.high))
            known = row.low is not None and row.high is not None
            colour = SOFT if not known else LOSS if high < 0 else GOOD if low > 0 else SOFT
            interval = f" ({plain(low, sign=True)} to {plain(high, sign=True)})" if known else ""
            titles[f"row-{index}"] = f"{words(row.name)}: {plain(row.mean, sign=True)}{interval}"
            axes.plot([low, high], [index, index], color=colour, linewidth=2.5)
            axes.plot([row.mean], [index], "o", color=colour, markersize=9, gid=f"row-{index}")
        axes.set_yticks(range(len(rows)), names, color=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(7))
        _axes(axes, "points of the average", "", grid="x", sign=True)
        return inline(figure, label, titles)


def line_chart(series: Sequence[Series], name: str, label: str, across: str, up: str) -> Markup:
    """Lines and points over two axes, which are named ``across`` and ``up``."""
    titles = {}
    with style(name):
        figure, axes = new_figure(WIDTH, 340, left=56)
        for number, each in enumerate(series):
            points = thinned(each.points) if each.line else each.points
            if each.line:
                axes.plot(*zip(*points, strict=True), color=each.colour, linewidth=2)
            spots = points if each.dots or len(points) == 1 else []
            groups = [[spot] for spot in spots] if each.names else [spots] if spots else []
            for index, group in enumerate(groups):
                key = f"series-{number}-{index}"
                titles[key] = words(each.names[index] if each.names else each.name)
                axes.plot(*zip(*group, strict=True), "o", color=each.colour, markersize=8, alpha=0.8, gid=key)
        axes.xaxis.set_major_locator(MaxNLocator(7))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        _axes(axes, across, up, grid="y")
        _name_points(axes, series)
        return inline(figure, label, titles)


def short(name: str) -> str:
    """A name as a chart shows it: readable, printable, and cut where it is too long."""
    name = printable(words(name)).replace("\n", " ").replace("\t", " ")
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _axes(axes: Axes, across: str, up: str, *, grid: str, sign: bool = False) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(axis=grid)  # type: ignore[arg-type]
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, sign)))
    axes.yaxis.set_major_formatter(axes.yaxis.get_major_formatter() if sign else FuncFormatter(lambda v, _: _tick(v)))


def _tick(value: float, sign: bool = False) -> str:
    return f"{round(value, 10) + 0.0:{'+' if sign and value else ''},.6g}".replace("-", "−")


def _name_points(axes: Axes, series: Sequence[Series]) -> None:
    """The names of points beside, above or under them, wherever there is room; none rather than one over another."""
    axes.autoscale_view()  # before points are asked for their place
    spots = [
        [tuple(map(float, axes.transData.transform(point))) for point in (each.points if each.dots else [])]
        for each in series
    ]
    # A name may not cover a point either, so all points take their room before the first name is placed.
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for own in spots for x, y in own]
    for each, own in zip(series, spots, strict=True):
        for name, (x, y) in zip(each.names, own, strict=False):
            width = _LETTER * len(short(name))
            for left, base in ((x + 7, y - 4), (x - 7 - width, y - 4), (x - width / 2, y + 8), (x - width / 2, y - 17)):
                box = (left, base - 2, left + width, base + 10)
                if box[0] >= 0 and box[2] <= WIDTH and not any(_overlap(box, other) for other in taken):
                    taken.append(box)
                    weight = "bold" if name == "astrea" else "normal"
                    axes.annotate(short(name), (left, base), xycoords="figure pixels", color=INK, weight=weight)
                    break


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
