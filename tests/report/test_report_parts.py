"""Parts of the report that a reader works with: intervals, filters, tables for a spreadsheet, axes, scrolling."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astrea.report import samples as sample_cards
from astrea.report.curves import curves_section
from astrea.report.interval import wilson
from astrea.report.load import Curve, Sample
from astrea.report.markup import table
from astrea.report.results import TaskScore
from astrea.report.scores import interval
from astrea.report.spreadsheet import csv_link
from html_pages import Page, saved

STYLE = (Path(sample_cards.__file__).parent / "page.css").read_text()


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I: method 3 of 81/263, 15/148, 0/20, 1/29.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(right: int, count: int, low: float, high: float):
    assert wilson(right / count, count) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_interval_holds_the_share_and_never_is_a_point(count: int, share: float):
    low, high = wilson(share, count)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    assert high - low > 1e-5


def test_all_right_of_thirty_is_not_certain():
    assert interval(TaskScore(score=100.0, n=30, metric="vqa_accuracy")) == pytest.approx((88.65, 100.0), abs=0.01)
    assert interval(TaskScore(score=100.0, n=30, metric="cider_d")) is None
    assert interval(TaskScore(score=50.0, n=None, metric="vqa_accuracy")) is None


def cards(*rows: tuple[str, bool | None, str]) -> tuple[str, Page]:
    made = [
        Sample("data:,", False, task, "what?", answer, "cat", right, "night", {"a": 0.25})
        for task, right, answer in rows
    ]
    files = SimpleNamespace(samples=made, samples_left_out=0, results=SimpleNamespace(expert_names=lambda: ["a"]))
    text = sample_cards.samples_section(files)  # type: ignore[arg-type]
    return text, Page(text)


def shown(text: str, page: Page, *pressed: str) -> list[int]:
    """The numbers of the cards that stay when these buttons are pressed, by the page's own style rules."""
    rules = re.search(r"<style>(.*?)\{display:none\}</style>", text)
    assert rules is not None
    left = []
    cards = [each["class"].split() for each in page.all("figure")]
    for number, classes in enumerate(cards):
        hidden = False
        for rule in rules[1].split(","):
            button, kept = re.fullmatch(r"main:has\(#([\w-]+):checked\) \.sample:not\(\.([\w-]+)\)", rule).groups()  # type: ignore[union-attr]
            hidden |= button in pressed and kept not in classes
        if not hidden:
            left.append(number)
    return left


def test_answers_are_filtered_by_verdict_and_kind_of_question_without_scripts():
    text, page = cards(
        ("counting", True, "2"), ("reading", False, "x"), ("counting", False, "3"), ("spatial", None, "")
    )
    buttons = page.all("input")
    assert [b["id"] for b in buttons] == ["v-all", "v-right", "v-wrong", "v-none", "k-all", "k-0", "k-1", "k-2"]
    assert [b["id"] for b in buttons if "checked" in b] == ["v-all", "k-all"]
    assert [label["for"] for label in page.all("label")] == [b["id"] for b in buttons]
    assert shown(text, page, "v-all", "k-all") == [0, 1, 2, 3]
    assert shown(text, page, "v-right", "k-all") == [0]
    assert shown(text, page, "v-wrong", "k-all") == [1, 2]
    assert shown(text, page, "v-all", "k-0") == [0, 2]
    assert shown(text, page, "v-wrong", "k-0") == [2]
    assert "script" not in text


def test_only_verdicts_that_there_are_can_be_chosen():
    _, page = cards(("counting", True, "2"))
    assert [b["id"] for b in page.all("input")] == ["v-all", "v-right", "k-all", "k-0"]


def test_few_answers_beside_an_average_are_put_into_words():
    _, page = cards(*[("counting", True, "2")] * 14, *[("counting", False, "2")] * 10)
    assert "14 of 24 answers shown here are right. So few say little (95 % interval: 39% to 76%)" in page.text
    assert "the scores above are of all questions" in page.text


def test_answers_for_a_spreadsheet():
    _, page = cards(("counting", True, "2, or 3"), ("reading", None, '=HYPERLINK("x")'))
    head, first, second = saved(page, "samples.csv")
    assert head == ["number", "task", "condition", "question", "answer", "truth", "right", "share a"]
    assert first == ["1", "counting", "night", "what?", "2, or 3", "cat", "1", "0.25"]
    # A spreadsheet must not run what a model said.
    assert second[4:7] == ['\'=HYPERLINK("x")', "cat", ""]


def test_a_number_below_zero_stays_a_number():
    assert saved(Page(csv_link("a.csv", ["x"], [[-1.5], ["-1"]])), "a.csv") == [["x"], ["-1.5"], ["'-1"]]


def test_axes_have_names():
    page = curves_section([Curve("tune", {"loss": [(0, 2.0), (9, 1.0)]})])
    assert {"step", "loss"} <= set(re.findall(r"<text[^>]*>([a-z]+)</text>", page))


def test_a_wide_table_says_that_it_scrolls():
    wide, narrow = (table("t", ["h"] * count, ["<tr><td>1</td></tr>"]) for count in (9, 4))
    assert "scrolls sideways" in wide
    assert "scrolls sideways" not in narrow
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto[^}]*linear-gradient", STYLE)
    assert re.search(r"@media \(max-width: 1360px\) \{ \.hint \{ display: block", STYLE)
