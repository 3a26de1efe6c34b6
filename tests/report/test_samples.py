"""The cards of test pictures: which are shown when a button is pressed, and what a spreadsheet gets."""

from __future__ import annotations

import re

from astrea.report.load import RunFiles, Sample
from astrea.report.page import render
from astrea.report.results import Load, Results
from html_pages import Page, saved


def cards(*rows: tuple[str, bool | None, str]) -> tuple[str, Page]:
    made = [
        Sample("data:,", False, task, "what?", answer, "cat", right, "night", {"a": 0.25})
        for task, right, answer in rows
    ]
    text = render(RunFiles("run", Results(load=Load(mean={"a": 0.25})), [], made, 0, None))
    return text, Page(text)


def shown(text: str, page: Page, *pressed: str) -> list[int]:
    """The numbers of the cards that stay when these buttons are pressed, by the page's own style rules."""
    rules = re.search(r"<style>(main:has[^{]*)\{display:none\}</style>", text)
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
