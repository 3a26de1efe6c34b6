"""The reliability diagram on the page: a point per bin that has items, and nothing where nothing was measured."""

from __future__ import annotations

from astrea.lab.arena.page.blocks import Chart, Table
from astrea.lab.arena.page.probes import reliability_diagram

ITEMS = {
    "rank_correlation": 0.61,
    "within_template": 0.2,
    "error": 0.004,
    "bins": {
        "0.02": {"predicted": 0.01, "measured": 0.02, "items": 90},
        "0.5": {"predicted": 0.45, "measured": 0.4, "items": 10},
        "1": {"predicted": None, "measured": None, "items": 0},
    },
}


def test_bins_with_items_are_drawn_beside_the_line_where_both_are_alike():
    table, chart = reliability_diagram(ITEMS)
    assert isinstance(table, Table)
    assert isinstance(chart, Chart)
    assert [row.cells[0].text for row in table.rows] == ["0.61", "0.20", "0.004"]
    assert str(chart.svg).count("<use") == 2


def test_nothing_is_drawn_of_runs_that_did_not_measure_it():
    assert reliability_diagram({}) == []
    assert reliability_diagram({"bins": {"1": {"predicted": None, "measured": None, "items": 0}}}) == []
