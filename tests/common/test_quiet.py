from __future__ import annotations

import pytest
from transformers.utils import logging

from astrea.common.quiet import quiet


@pytest.fixture(autouse=True)
def as_before():
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    yield
    logging.set_verbosity(level)
    (logging.enable_progress_bar if bars else logging.disable_progress_bar)()


@pytest.mark.parametrize("bars", [True, False])
def test_nothing_is_said_inside_and_all_is_as_it_was_behind(bars: bool):
    logging.set_verbosity_info()
    (logging.enable_progress_bar if bars else logging.disable_progress_bar)()
    inside: list[object] = []

    def look_and_fail() -> None:
        with quiet():
            inside.extend([logging.is_progress_bar_enabled(), logging.get_verbosity()])
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        look_and_fail()
    assert inside == [False, logging.ERROR]
    assert logging.is_progress_bar_enabled() == bars
    assert logging.get_verbosity() == logging.INFO
