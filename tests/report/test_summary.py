from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from astrea.common.errors import AstreaError
from astrea.report.results import TASKS
from astrea.report.summary import terminal_table


def printed(results: dict[str, Any], width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(terminal_table(results))
    return console.file.getvalue()  # type: ignore[attr-defined]


def line_of(text: str, task: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.strip("│ ").split(" ")[0] == task)
    return [part.strip() for part in line.strip("│").split("│")]


def test_all_tasks_in_order_and_the_average():
    tasks = {task: {"metric": "vqa_accuracy", "score": 50 + i, "n": 1500, "blind": 60} for i, task in enumerate(TASKS)}
    text = printed(
        {"schema": 1, "strategy": "astrea", "seed": 3, "average": 77.12, "blind_average": 30, "tasks": tasks}
    )
    places = [text.index(f"│ {task} ") for task in (*TASKS, "average")]
    assert places == sorted(places)
    assert line_of(text, "existence") == ["existence", "vqa_accuracy", "50.0", "60.0", "1,500", "-10.0"]
    assert line_of(text, "average") == ["average", "", "77.1", "30.0", "", "+47.1"]
    assert "astrea, seed 3" in text
    assert all(head in text for head in ("task", "metric", "score", "blind", "above blind"))


def test_what_is_missing_is_a_dash():
    text = printed({"tasks": {"area": {"score": 40}}})
    assert line_of(text, "area") == ["area", "", "40.0", "–", "–", "–"]
    assert line_of(text, "counting")[2:] == ["–", "–", "–", "–"]


def test_names_are_no_markup():
    text = printed({"strategy": "[bold]s", "tasks": {"[red]mine": {"metric": "[/]", "score": 1}}})
    assert "[bold]s" in text
    assert "[red]mine" in text
    assert "[/]" in text


def test_a_field_of_the_wrong_type_is_named():
    with pytest.raises(AstreaError, match=r"the results: tasks\.area\.score"):
        terminal_table({"tasks": {"area": {"score": "high"}}})


def test_what_no_average_counts_stands_below_it():
    row = {"score": 83.1, "blind": 50, "n": 120}
    text = printed({"average": 60, "blind_average": 30, "naming": {"score": 41.2}, "new_things": {"place": row}})
    assert text.index("average") < text.index("names") < text.index("place of new things")
    assert line_of(text, "place")[2:] == ["83.1", "50.0", "120", "+33.1"]
