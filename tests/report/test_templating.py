from __future__ import annotations

import re
from importlib import resources

import pytest
from jinja2 import Environment, UndefinedError

from astrea.report.spreadsheet import csv_address
from astrea.report.templating import environment
from html_pages import Page, saved

MACROS = '{% import "macros.html.j2" as m %}'
TABLE = MACROS + '{% call m.table("t", heads) %}<tbody><tr><td>1</td></tr></tbody>{% endcall %}'


@pytest.fixture(scope="module")
def templates() -> Environment:
    return environment()


def test_what_is_shown_is_escaped_and_printable(templates: Environment):
    assert templates.from_string("{{ name }}").render(name="<b>\0\ud800") == "&lt;b&gt;\ufffd?"


def test_a_name_that_does_not_exist_is_an_error(templates: Environment):
    with pytest.raises(UndefinedError, match="nothing"):
        templates.from_string("{{ nothing }}").render()


def test_a_wide_table_says_that_it_scrolls(templates: Environment):
    wide, narrow = (templates.from_string(TABLE).render(heads=["h"] * count) for count in (9, 4))
    assert "scrolls sideways" in wide
    assert "scrolls sideways" not in narrow
    style = resources.files("astrea.report").joinpath("templates/style.css").read_text("utf-8")
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto[^}]*linear-gradient", style)
    assert re.search(r"@media \(max-width: 1360px\) \{ \.hint \{ display: block", style)


@pytest.mark.parametrize(("tint", "ground"), [(0.0, ""), (0.5, "/ 0.30"), (9.0, "/ 0.60"), (-1.0, "")])
def test_a_cells_colour_stays_pale_enough_to_read_the_number(templates: Environment, tint: float, ground: str):
    cell = templates.from_string(MACROS + "{{ m.cell(1, tint=tint) }}").render(tint=tint)
    assert ("background" in cell) == bool(ground)
    assert ground in cell


def test_a_bar_of_a_change_begins_at_zero(templates: Environment):
    drawn = templates.from_string(MACROS + "{{ m.change_bar(-3, -4, 1) }}").render()
    assert "left:20.0%;width:60.0%;background:rgb(var(--loss))" in drawn
    assert '<b style="left:80.0%">' in drawn


def test_a_number_below_zero_stays_a_number_in_a_spreadsheet(templates: Environment):
    page = templates.from_string(MACROS + "{{ m.csv('a.csv', address) }}").render(
        address=csv_address(["=x"], [[-1.5], ["-1"], [None]])
    )
    # A spreadsheet must not run what a model said.
    assert saved(Page(page), "a.csv") == [["'=x"], ["-1.5"], ["'-1"], [""]]
