from __future__ import annotations

import pytest

from astrea.report.formatting import duration, number, percent, plain, printable, quantity, spread, width


def test_numbers_as_text():
    assert [plain(-0.04), plain(-2.5), plain(2.5, sign=True), plain(0.0, sign=True)] == ["0.0", "−2.5", "+2.5", "0.0"]
    assert [plain(1234.5, 0), plain(-12_345_678.0), number(1.25, 2)] == ["1,234", "−1.23e+07", "1.25"]


def test_what_was_not_measured_is_a_dash_with_words_for_screen_readers():
    for shown in (number(None), percent(None), duration(None), quantity(None), spread(None, None)):
        assert shown == '<span class="none" aria-label="not measured">–</span>'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(8.34, "8.3 s"), (25.4, "25 s"), (59.96, "1 min 00 s"), (245, "4 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text


def test_quantities_and_shares():
    assert [quantity(value) for value in (912, 84_200, 1_930_000, 7.1e9)] == ["912", "84.2 k", "1.93 M", "7.1 G"]
    assert percent(0.256) == "26<small>%</small>"
    assert [width(-1), width(0.5), width(7)] == ["0.0%", "50.0%", "100.0%"]
    assert [spread(70.0, None), spread(70.0, 1.26)] == ["70.0", "70.0 <small>± 1.3</small>"]


def test_characters_that_no_page_may_hold_are_replaced():
    assert printable("\ud800<\x07\n") == "?<\ufffd\n"
