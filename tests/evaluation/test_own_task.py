"""A task from outside the package, named in a recipe: evaluated, and in the results and the report."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from astrea.common.errors import AstreaError
from astrea.evaluation.evaluate import evaluate_and_report
from astrea.evaluation.run_tasks import evaluate_task
from astrea.evaluation.task import Task, TaskItem, open_task
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.recipes.evaluation import TaskEntry
from astrea.training.identity import config_hash
from listening import Said
from repository import EXAMPLES
from small_runs import small_run

EXAMPLE = "colour_task:PlainColours"


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example's folder on the path, and a package's entry point for it, as pip leaves them."""
    about = tmp_path / "site" / "colours-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: colours\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[astrea.tasks]\nplain-colours = {EXAMPLE}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.mark.parametrize("name", [EXAMPLE, "plain-colours"])
def test_its_score_stands_in_the_results_and_the_report(tiny_folder: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_folder, run / "model")
    tasks: list[Any] = [{"task": name, "options": {"per_colour": 2}}]
    recipe = small_run(data={"train": "mine.jsonl"}, evaluation={"tasks": tasks})
    found = evaluate_and_report(recipe, run, report=Said())
    assert found is not None
    row = json.loads((run / "results.json").read_text())["tasks"]["plain_colours"]
    assert (row["metric"], row["n"]) == ("contains", 8)
    assert 0 <= row["score"] <= 100
    assert found["average"] == row["score"]
    assert 0 < sum(found["shares"]["plain_colours"].values()) <= 1.001  # the null expert has the rest
    assert "plain colours" in (run / "report.html").read_text()


def test_tasks_are_no_part_of_what_is_trained() -> None:
    assert config_hash(small_run(evaluation={"tasks": [EXAMPLE]})) == config_hash(small_run())
    assert "evaluation" not in small_run().model_dump()


class Answers(Task):
    """Two pictures, one of which is damaged; what the model says is right."""

    name = "answers"

    def __init__(self, score: float = 1.0) -> None:
        self.given = score

    def items(self) -> Iterator[TaskItem]:
        yield TaskItem("nowhere.png", ("yes",))
        yield TaskItem(Image.new("RGB", (80, 60)), ("yes",))

    def score(self, answer: str, item: TaskItem) -> float:
        return self.given


class Nameless(Task):
    def items(self) -> Iterator[TaskItem]:
        yield from ()


class Unfinished(Task):
    name = "unfinished"


def test_an_item_that_cannot_be_read_is_left_out(
    tiny_model: AstreaForConditionalGeneration, tiny_processor: AstreaProcessor
) -> None:
    said = Said()
    row, weights = evaluate_task(tiny_model, tiny_processor, Answers(), report=said)
    assert (row["score"], row["blind"], row["n"]) == (100, 100, 1)
    assert len(weights) == len(tiny_model.experts.names)
    assert any("item 1 of task answers" in line for line in said.lines)
    with pytest.raises(AstreaError, match=r"scores .* with nan"):
        evaluate_task(tiny_model, tiny_processor, Answers(float("nan")), report=said)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"task": "no-such"}, "unknown task 'no-such'"),
        ({"task": "pathlib:Path"}, "is no subclass"),
        ({"task": f"{__name__}:Unfinished"}, "does not define items"),
        ({"task": f"{__name__}:Nameless"}, "has no name"),
        ({"task": f"{__name__}:Answers", "options": {"size": 3}}, "unexpected keyword argument 'size'"),
    ],
)
def test_a_wrong_task_is_named(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(AstreaError, match=re.escape(message)) as error:
        open_task(TaskEntry(**entry))
    assert entry["task"] in error.value.message
    assert error.value.hint
