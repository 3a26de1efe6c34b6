"""A matplotlib figure as inline SVG: the page's colours, light or dark; text as text; always the same bytes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from xml.etree import ElementTree

import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from astrea.report.formatting import printable

INK, SOFT, LINE = "#1c1f26", "#5c6472", "#dfe1e5"
ACCENT, LOSS, GOOD = "#2a64be", "#cf4a38", "#288c5a"
EXPERTS = ("#4477aa", "#cc7a00", "#228833", "#aa3377", "#2f9fb8", "#b8962a", "#ee6677", "#888888")
"""Colours of the style sheet's light theme; a reader's theme decides what is shown in their place."""

CSS = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    ACCENT: "rgb(var(--accent))",
    LOSS: "rgb(var(--loss))",
    GOOD: "rgb(var(--good))",
    **{colour: f"var(--e{index})" for index, colour in enumerate(EXPERTS)},
}
"""Colour of a figure -> the style sheet's name for it."""

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names come from files, and a dollar sign in one means nothing
    "font.size": 11,
    "text.color": SOFT,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "axes.edgecolor": LINE,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.spines.bottom": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "lines.solid_capstyle": "round",  # one point alone is drawn as a dot
}


def style(name: str) -> AbstractContextManager[None]:
    """The context that a figure is drawn and written in. ``name`` (unique on a page) keeps ids of figures apart."""
    return matplotlib.style.context(["default", _STYLE | {"svg.hashsalt": f"astrea {name}"}])


def new_figure(width: float, height: float, left: float) -> tuple[Figure, Axes]:
    """A figure of ``width`` by ``height`` pixels with one pair of axes, and ``left`` pixels for what stands beside it.

    Margins are fixed: to have matplotlib find them takes as long as the drawing itself.
    """
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    right, top, bottom = 14, 10, 38
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    return figure, figure.add_axes(box)


def inline(figure: Figure, label: str, titles: Mapping[str, str] | None = None) -> Markup:
    """The figure as an ``<svg>`` element for a page; to be called within `style`.

    Args:
        label: what the figure shows, for readers who cannot see it.
        titles: group id (``gid``) of an artist -> text that appears when the pointer rests on it.
    """
    held = io.BytesIO()
    with warnings.catch_warnings():
        # Text is drawn by the reader's browser; that matplotlib's font lacks a letter does not matter.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(held, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(held.getvalue())
    for node in root.iter():
        _clean(node, titles or {})
    box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"viewBox": box, "role": "img", "aria-label": printable(label)})
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(node: ElementTree.Element, titles: Mapping[str, str]) -> None:
    """Leave of a node what a page needs: no XML namespaces, no metadata, no clipping, no ids of groups."""
    for child in list(node):
        if child.tag.endswith(("}metadata", "}style", "}clipPath")):
            node.remove(child)
    node.tag = node.tag.rpartition("}")[2]
    node.text = (node.text or "").strip() or None
    node.tail = None
    node.attrib.pop("clip-path", None)
    for name, value in list(node.attrib.items()):
        if name.startswith("{"):  # xlink:href
            node.attrib[name.rpartition("}")[2]] = node.attrib.pop(name)
        elif name == "style":
            node.attrib[name] = _restyled(value)
        elif name == "d":
            node.attrib[name] = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}", " ".join(value.split()))
    if node.tag == "g":
        name = node.attrib.pop("id", "")
        if name in titles:
            title = ElementTree.Element("title")
            title.text = printable(titles[name])
            node.insert(0, title)


def _restyled(style: str) -> str:
    """Style rules in the page's colours and font."""
    style = re.sub(r"font-family: [^;]*;? ?", "", style)
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: CSS.get(found[0], found[0]), style)
