"""What every test run shares: the plugins named below (fixtures of models, of the command line, of small runs), and the
order of the modules."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

LONGEST = (
    "training/test_trainer.py",
    "experts/pretrained/test_checkpoint_journey.py",
    "estimate/test_estimate_table.py",
    "training/test_own_data.py",
    "training/test_trainer_ingredients.py",
    "cli/test_cli_runs.py",
    "training/test_other_device.py",
    "training/test_validation.py",
    "evaluation/test_other_device_evaluation.py",
)
"""Modules that take longest. Whole modules are handed out to the processes that run tests, and one that comes last lets
all others wait."""


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    # What a script starts in the background ignores Ctrl-C, and so would all that tests start and then interrupt.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # The process that only hands out tests would import torch, for seconds, while all others wait for it. The others
    # import it after coverage has begun (it does so when the session starts), or what an import runs would not count.
    if session.config.getoption("dist", "no") == "no":
        session.config.pluginmanager.import_plugin("shared_models")
        session.config.pluginmanager.import_plugin("command_line")
        session.config.pluginmanager.import_plugin("small_runs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
