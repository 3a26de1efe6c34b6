from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.report.charts import Difference, Series, difference_chart, line_chart, loss_chart
from astrea.report.load import Curve
from astrea.report.smoothing import smoothed, thinned
from astrea.report.svg import CSS, EXPERTS, INK
from html_pages import Page

HOSTILE = '$\\frac <script>alert(1)</script>"\x00 \u6f22'


def losses(*points: tuple[int, float]) -> str:
    return loss_chart(Curve("tune", {"loss": list(points)}), "chart", "Loss of tune")


def dots(drawn: str) -> list[tuple[float, float]]:
    """Where points are drawn, from left to right and top to bottom."""
    return [(float(x), float(y)) for x, y in re.findall(r'<use x="([\d.]+)" y="([\d.]+)"', drawn)]


def lines(drawn: str, colour: str) -> list[list[tuple[float, float]]]:
    """The points of every line of a colour."""
    found = re.findall(rf'<path d="([^"]*)" style="fill: none; stroke: {re.escape(CSS[colour])}', drawn)
    numbers = [list(map(float, re.findall(r"-?\d+\.?\d*", path))) for path in found]
    return [list(zip(each[::2], each[1::2], strict=True)) for each in numbers]


def test_axes_have_names_and_the_drawing_a_label():
    page = Page(str(losses((0, 2.0), (9, 1.0))))
    assert {"step", "loss"} <= set(re.findall(r">([a-z]+)</text>", losses((0, 2.0), (9, 1.0))))
    assert page.all("svg")[0] == {"viewbox": "0 0 340 206", "role": "img", "aria-label": "Loss of tune"}


def test_a_chart_has_the_pages_colours_and_font_and_needs_nothing_else():
    drawn = losses((0, 2.0), (9, 1.0))
    assert "var(--ink)" in drawn
    assert not re.search(r"#[0-9a-f]{6}|font-family|url\(|https?:|<metadata|<style|xmlns", drawn)
    assert drawn == losses((0, 2.0), (9, 1.0))


def test_losses_fall_from_left_to_right_and_a_spike_stays_inside():
    points = [(step, 5 - step / 40) for step in range(200)]
    points[100] = (100, 1e9)
    for line in lines(losses(*points), INK):
        assert all(0 <= x <= 340 and 0 <= y <= 206 for x, y in line)
    raw, mean = lines(losses((0, 5.0), (1, 3.0), (2, 1.0)), INK)
    assert raw == mean
    assert raw == sorted(raw)  # further right, and further down


@pytest.mark.parametrize(
    "points",
    [
        [(5, 2.0)],
        [(6, 0.0), (7, 0.0)],
        [(8, -1.5)],
        [(1, 3.0), (2, 3.0)],
        [(11, -9e29), (12, 9e29)],
        [(2**53 - 1, 1e-30), (2**53, 2e-30)],
    ],
)
def test_odd_losses_can_be_drawn(points: Sequence[tuple[int, float]]):
    drawn = losses(*points)
    assert len(lines(drawn, INK)) == 2
    assert not re.search(r"\b(nan|inf)\b", drawn)


def test_intervals_lie_where_their_numbers_are():
    rows = [Difference("worse", -4.0, -5.0, -3.0), Difference("even", 0.0, -1.0, 1.0), Difference("dot", 2.0)]
    drawn = difference_chart(rows, "chart", "x")
    assert "points of the average" in Page(str(drawn)).text
    (worse, zero, dot), heights = [x for x, _ in dots(drawn)], [y for _, y in dots(drawn)]
    assert worse < zero < dot
    assert heights == sorted(heights)
    assert (zero - worse) / (dot - zero) == pytest.approx(2, abs=0.01)
    assert re.search(rf"M {zero:.2f} [\d.]+ L {zero:.2f}", drawn)  # the mark at zero
    hues = [re.search(r"fill: ([^;]+)", use)[1] for use in re.findall("<use[^>]*>", drawn)]  # type: ignore[index]
    assert hues == ["rgb(var(--loss))", "var(--soft)", "var(--soft)"]
    assert "<title>worse: −4.0 (−5.0 to −3.0)</title>" in drawn
    assert "<title>dot: +2.0</title>" in drawn


def test_a_chart_names_its_points_but_never_one_name_over_another():
    near = [(1.0, 1.0), (1.0, 1.0001), (1.0, 1.0002), (1.0, 1.0003), (1.0, 1.0004), (2.0, 5.0)]
    names = [f"strategy_{i}" for i in range(6)]
    drawn = line_chart([Series("s", EXPERTS[0], near, line=False, names=names)], "chart", "l", "across", "up")
    assert len(dots(drawn)) == 6
    assert all(f"<title>strategy {i}</title>" in drawn for i in range(6))
    boxes = [(float(x), float(y)) for x, y in re.findall(r'x="([\d.-]+)" y="([\d.-]+)"[^>]*>strategy', drawn)]
    assert len(boxes) > 1
    assert all(a == b or abs(a[1] - b[1]) > 10 or abs(a[0] - b[0]) > 60 for a in boxes for b in boxes)


def test_a_flat_chart_of_one_point_can_be_drawn():
    drawn = line_chart([Series("s", EXPERTS[0], [(0.0, 0.0)], dots=False)], "chart", "l", "x", "y")
    assert len(dots(drawn)) == 1
    assert "nan" not in drawn


def test_names_from_files_are_text():
    for drawn in (
        difference_chart([Difference(HOSTILE, 1.0)], "chart", HOSTILE),
        line_chart([Series(HOSTILE, INK, [(0, 1), (1, 1)], names=[HOSTILE] * 2)], "chart", HOSTILE, "x", "y"),
    ):
        page = Page(str(drawn))
        assert "script" not in {tag for tag, _ in page.tags}
        assert "$\\frac <script>" in page.text
        assert "\x00" not in drawn


@settings(max_examples=25)
@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=300))
def test_smoothing_and_thinning_stay_within_the_values(values: list[float]):
    points = list(enumerate(values))
    slack = 1e-9 * max(map(abs, values))
    for few in (smoothed(points), thinned(points, 50)):
        assert [few[0][0], few[-1][0]] == [0, len(values) - 1]
        assert all(min(values) - slack <= value <= max(values) + slack for _, value in few)
    assert len(thinned(points, 50)) == min(50, len(points))


def test_smoothing_and_thinning_keep_the_ends_and_the_mean():
    points = [(step, float(step % 2)) for step in range(1000)]
    smooth = smoothed(points)
    assert [smooth[0][0], smooth[-1][0], len(smooth)] == [0, 999, 1000]
    assert all(abs(value - 0.5) < 0.1 for _, value in smooth)
    thin = thinned(points, 100)
    assert [thin[0][0], thin[-1][0], len(thin)] == [0, 999, 100]
    assert thinned(points[:5], 100) == points[:5]
    assert smoothed(points[:1]) == points[:1]
