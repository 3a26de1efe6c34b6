"""Small pieces of HTML. Whatever comes from a file goes through `escape`; only this package's own markup does not."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_MANY = 6
_SIDEWAYS = "There is more to the right: the table scrolls sideways."
MISSING = '<span class="none">not measured</span>'


def escape(value: object) -> str:
    """Text for HTML, also inside quoted attributes. Characters that no page may hold are replaced.

    >>> escape('<b a="1">')
    '&lt;b a=&quot;1&quot;&gt;'
    """
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return html.escape("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text))


def number(value: float | None, *, digits: int = 1, sign: bool = False) -> str:
    """A number with a true minus sign, or a dash that says "not measured" to those who cannot see it."""
    if value is None:
        return '<span class="none" aria-label="not measured">–</span>'
    return plain(value, digits=digits, sign=sign)


def plain(value: float, *, digits: int = 1, sign: bool = False) -> str:
    """A number as text with a true minus sign; what rounds to zero has none."""
    value = round(value, digits) + 0.0  # -0.0 + 0.0 is 0.0
    if abs(value) >= 1e6:
        return f"{value:.3g}".replace("-", "−")
    return f"{value:{'+' if sign and value else ''},.{digits}f}".replace("-", "−")


def percent(share: float | None) -> str:
    """A share in whole per cent."""
    return number(None) if share is None else f"{100 * share:.0f}<small>%</small>"


def words(name: str) -> str:
    """A name of the files' kind, made readable: ``retrieval_i2t`` -> ``retrieval i2t``; escaped."""
    return escape(name.replace("_", " "))


def section(anchor: str, title: str, body: str, note: str = "") -> str:
    """A section of the page; ``note`` (markup) stands under the title."""
    lead = f'<p class="note">{note}</p>' if note else ""
    return f'<section id="{anchor}" aria-labelledby="{anchor}-t"><h2 id="{anchor}-t">{title}</h2>{lead}{body}</section>'


def absent(what: str) -> str:
    """The line that stands where a part has nothing to show (markup)."""
    return f'<p class="absent">{what}</p>'


def cell(content: str, *, tint: float = 0.0, hue: str = "heat", classes: str = "num") -> str:
    """A table cell; ``tint`` 0..1 colours its ground in one of the style sheet's hues ("heat", "loss")."""
    strength = min(1.0, max(0.0, tint)) * 0.6  # more would cost the number its contrast
    style = f' style="background:rgb(var(--{hue}) / {strength:.2f})"' if strength >= 0.01 else ""
    return f'<td class="{classes}"{style}>{content}</td>'


def row(head: str, cells: Iterable[str], *, classes: str = "") -> str:
    """A table row with its header cell (both markup)."""
    attribute = f' class="{classes}"' if classes else ""
    return f'<tr{attribute}><th scope="row">{head}</th>{"".join(cells)}</tr>'


def table(caption: str, heads: Sequence[str], bodies: Sequence[str], *, classes: str = "") -> str:
    """A table in a box of its own that scrolls sideways where the screen is narrow.

    Args:
        caption: for those who cannot see the page (markup).
        heads: column headers (markup); "" for a column of bars, which has none.
        bodies: what goes into each ``<tbody>``.
        classes: of the table; with "fit" it is no wider than it needs to be.
    """
    head = "".join(f'<th scope="col">{h}</th>' if h else "<td></td>" for h in heads)
    body = "".join(f"<tbody>{b}</tbody>" for b in bodies)
    hint = f'<p class="hint">{_SIDEWAYS}</p>' if len(heads) > _MANY else ""
    box = "scroll fit" if "fit" in classes.split() else "scroll"
    return (
        f'{hint}<div class="{box}" tabindex="0" role="region" aria-label="{caption}"><table class="{classes}">'
        f'<caption class="hidden">{caption}</caption><thead><tr>{head}</tr></thead>{body}</table></div>'
    )


def bar(share: float, *, mark: float | None = None, guess: float | None = None) -> str:
    """A bar on a track from 0 to 1; decoration, so that the number must stand beside it.

    mark: where an upright mark stands. guess: up to where the bar is pale.
    """
    parts = [f'<i style="width:{_width(share)};background:rgb(var(--accent))"></i>']
    if guess is not None and min(share, guess) > 0:
        parts.append(f'<i class="guess" style="width:{_width(min(share, guess))}"></i>')
    if mark is not None:
        parts.append(f'<b style="left:{_width(mark)}"></b>')
    return f'<span class="bar" aria-hidden="true">{"".join(parts)}</span>'


def drop_bar(value: float, low: float, high: float) -> str:
    """A bar from zero to ``value`` on a track from ``low`` (at most 0) to ``high`` (at least 0)."""
    span = (high - low) or 1.0
    zero, end = -low / span, (value - low) / span
    left, width = min(zero, end), abs(end - zero)
    hue = "loss" if value < 0 else "good"
    return (
        f'<span class="bar" aria-hidden="true"><i style="left:{_width(left)};width:{_width(width)};'
        f'background:rgb(var(--{hue}))"></i><b style="left:{_width(zero)}"></b></span>'
    )


def stacked(shares: Sequence[tuple[str, float]]) -> str:
    """Shares of a whole as one bar, in the order of the experts' colours; the numbers must stand beside it."""
    parts = "".join(
        f'<i style="width:{_width(share)};background:var(--e{index % 8})" title="{words(name)} {share:.0%}"></i>'
        for index, (name, share) in enumerate(shares)
    )
    return f'<span class="stack" aria-hidden="true">{parts}</span>'


def _width(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.1f}%"
