"""Loss curves as inline SVG, one small panel per stage."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from astrea.report.load import COMPONENTS, Curve
from astrea.report.markup import absent, escape, plain, section, words

_WIDTH, _HEIGHT = 340, 206
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 8, 40
_POINTS = 240  # as many as the panel can show; a longer log is averaged down to it
_COLOURS = {"loss": "var(--ink)"} | {name: f"var(--e{index})" for index, name in enumerate(COMPONENTS)}

Points = Sequence[tuple[float, float]]


def curves_section(curves: list[Curve] | None) -> str:
    """The section on training."""
    if not curves:
        why = "is absent" if curves is None else "holds no losses"
        return section("training", "Training", absent(f"<code>train.jsonl</code> {why}, so there are no loss curves."))
    used = [name for name in ("loss", *COMPONENTS) if any(name in curve.series for curve in curves)]
    key = "".join(f'<li style="--c:{_COLOURS[name]}">{"total" if name == "loss" else name}</li>' for name in used)
    note = (
        "The loss of each stage against the step. Pale: as logged; strong: a running mean over 1/25 of the stage. The "
        "parts are as weighted in the total."
    )
    figures = "".join(map(_figure, curves))
    return section("training", "Training", f'<ul class="key">{key}</ul><div class="curves">{figures}</div>', note)


def _figure(curve: Curve) -> str:
    main = curve.series.get("loss") or next(iter(curve.series.values()))
    smooth = smoothed(main)
    first, last = main[0][0], main[-1][0]
    change = f"{plain(smooth[0][1], digits=2)} → {plain(smooth[-1][1], digits=2)}"
    label = f"Loss of stage {escape(curve.stage)}: {change}, steps {first} to {last}"
    caption = f"<strong>{words(curve.stage)}</strong> · {change} · {len(main)} steps"
    return f"<figure><figcaption>{caption}</figcaption>{_svg(curve, label)}</figure>"


def _svg(curve: Curve, label: str) -> str:
    smooth = {name: smoothed(points) for name, points in curve.series.items()}
    steps = [step for points in curve.series.values() for step in (points[0][0], points[-1][0])]
    heights = [value for points in smooth.values() for _, value in points]
    left, right = min(steps), max(steps)
    ticks = nice_ticks(min(0.0, *heights), max(heights))
    low, high = ticks[0], ticks[-1]

    def x(step: float) -> float:
        return _LEFT + (step - left) / ((right - left) or 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        inside = min(high, max(low, value))  # a spike must not leave the panel
        return _HEIGHT - _BOTTOM - (inside - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def path(points: Points, style: str) -> str:
        moves = "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in points)
        # One point alone is drawn as a dot: a path of no length with round caps.
        return f'<path d="M{moves}{"h0" if len(points) == 1 else ""}" stroke-linecap="round" style="{style}"/>'

    parts = []
    digits = _digits(ticks)
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        text = plain(tick, digits=digits)
        parts.append(f'<text x="{_LEFT - 5}" y="{y(tick) + 4:.1f}" text-anchor="end">{text}</text>')
    anchors = {left: "start", (left + right) // 2: "middle", right: "end"} if right > left else {left: "start"}
    for step, anchor in anchors.items():
        parts.append(f'<text x="{x(step):.1f}" y="{_HEIGHT - 23}" text-anchor="{anchor}">{step}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text x="{middle[0]:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">step</text>')
    parts.append(f'<text transform="translate(12 {middle[1]:.0f}) rotate(-90)" text-anchor="middle">loss</text>')
    for name in reversed(list(smooth)):  # the total comes first, and so lies on top
        colour = _COLOURS[name]
        parts.append(path(thinned(curve.series[name]), f"stroke:{colour};stroke-width:1;opacity:.28"))
        parts.append(path(thinned(smooth[name]), f"stroke:{colour};stroke-width:{2 if name == 'loss' else 1.5}"))
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def smoothed(points: Points) -> Points:
    """A centred running mean over 1/25 of the points; at the ends over as many as there are."""
    reach = len(points) // 50
    sums = [0.0, *itertools.accumulate(value for _, value in points)]
    result = []
    for index, (step, _) in enumerate(points):
        start, stop = max(0, index - reach), min(len(points), index + reach + 1)
        result.append((step, (sums[stop] - sums[start]) / (stop - start)))
    return result


def thinned(points: Points, most: int = _POINTS) -> Points:
    """At most ``most`` points, each the mean of its neighbours; the first and the last step are kept."""
    if len(points) <= most:
        return points
    bounds = [len(points) * i // most for i in range(most + 1)]
    groups = [points[start:stop] for start, stop in itertools.pairwise(bounds)]
    thin = [(group[len(group) // 2][0], sum(value for _, value in group) / len(group)) for group in groups]
    thin[0], thin[-1] = (points[0][0], thin[0][1]), (points[-1][0], thin[-1][1])
    return thin


def nice_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers, evenly apart, from at or under ``low`` to at or over ``high``."""
    span = high - low
    if not (math.isfinite(span) and span > 1e-12 * max(1.0, abs(high))):
        return [low, low + 1.0] if math.isfinite(low + 1.0) and low + 1.0 > low else [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if span / (power * unit) <= about)
    start, stop = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(start, stop + 1)]


def _digits(ticks: Sequence[float]) -> int:
    """How many decimals tell neighbouring ticks apart."""
    step = ticks[1] - ticks[0]
    return next((n for n in range(5) if math.isclose(round(step, n), step, rel_tol=1e-6)), 5)
