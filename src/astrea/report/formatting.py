"""Numbers and names as readers see them; every function here is a filter of the templates."""

from __future__ import annotations

from markupsafe import Markup

MISSING = Markup('<span class="none">not measured</span>')
DASH = Markup('<span class="none" aria-label="not measured">–</span>')


def printable(text: str) -> str:
    """Text without the characters that no page may hold; each becomes a replacement character.

    >>> printable("a\\x07b")
    'a\ufffdb'
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def plain(value: float, digits: int = 1, sign: bool = False) -> str:
    """A number as text with a true minus sign; what rounds to zero has none."""
    value = round(value, digits) + 0.0  # -0.0 + 0.0 is 0.0
    if abs(value) >= 1e6:
        return f"{value:.3g}".replace("-", "−")
    return f"{value:{'+' if sign and value else ''},.{digits}f}".replace("-", "−")


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A number, or a dash that a screen reader reads as "not measured"."""
    return DASH if value is None else plain(value, digits, sign)


def measured(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A number, or the words "not measured"."""
    return MISSING if value is None else plain(value, digits, sign)


def spread(mean: float | None, std: float | None, digits: int = 1) -> str:
    """A mean over seeds and its standard deviation, which is left out where there is one seed."""
    deviation = "" if std is None else Markup(" <small>± {}</small>").format(plain(std, digits))
    return number(mean, digits) + deviation


def percent(share: float | None) -> str:
    """A share (0..1) in whole per cent."""
    return DASH if share is None else Markup("{:.0f}<small>%</small>").format(100 * share)


def words(name: object) -> str:
    """A key of a file, made readable: ``retrieval_i2t`` -> ``retrieval i2t``."""
    return str(name).replace("_", " ")


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 8.3 s, 4 min 05 s, 2 h 10 min."""
    if seconds is None:
        return DASH
    if seconds < 59.95:
        return f"{plain(seconds, 0 if seconds >= 20 else 1)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def quantity(value: float | None) -> str:
    """A large count with its unit: 912, 84.2 k, 1.93 M, 7.1 G."""
    if value is None:
        return DASH
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return plain(value, 0)


def part(share: float) -> float:
    """A number held within 0..1."""
    return min(1.0, max(0.0, share))


def width(share: float) -> str:
    """A share (0..1) of a bar's track, as a CSS length."""
    return f"{100 * part(share):.1f}%"


FILTERS = {
    each.__name__: each for each in (plain, number, measured, spread, percent, words, duration, quantity, part, width)
}
