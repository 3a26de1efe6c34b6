"""A task of one's own: pictures, what is asked about them, and how good an answer is.

A subclass of `Task`, named in a recipe (``evaluation.tasks``), is evaluated after training beside everything else; its
score stands in results.json and in the report. docs/examples/colour_task.py is a whole one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from astrea.common.errors import AstreaError
from astrea.data.packing import CAPTION_PROMPT
from astrea.evaluation.metrics.vqa import vqa_accuracy
from astrea.recipes.evaluation import TASKS, TaskEntry


@dataclass(frozen=True, slots=True)
class TaskItem:
    """One picture (a path or a Pillow image) and what is asked about it; by default a caption. truths: right answers,
    or reference captions; at least one."""

    picture: Image.Image | Path | str
    truths: tuple[str, ...]
    question: str = CAPTION_PROMPT


class Task(ABC):
    """Items and a metric. Options in the recipe are arguments of the constructor.

    Attributes:
        name: its row in tables. metric: what its score is called. max_new_tokens: of the longest answer.
    """

    name: ClassVar[str]
    metric: ClassVar[str] = "vqa_accuracy"
    max_new_tokens: ClassVar[int] = 16

    @abstractmethod
    def items(self) -> Iterable[TaskItem]:
        """What is asked, in a fixed order."""

    def score(self, answer: str, item: TaskItem) -> float:
        """How good an answer is, 0..1; by default whether it is one of the truths, as VQA compares answers."""
        return max(vqa_accuracy(answer, [truth]) for truth in item.truths)


def open_task(entry: TaskEntry) -> Task:
    """The task of a recipe's entry.

    Raises:
        AstreaError: an unknown name, an import that fails, a class that is no `Task`, or options that it does not take.
    """
    found: Any = TASKS.find(entry.task, allow_import=True)  # a recipe is the user's own word
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise AstreaError(
            f"task {entry.task!r} is no subclass of astrea.evaluation.task.Task", "derive it from that class"
        )
    if missing := ", ".join(sorted(found.__abstractmethods__)):
        raise AstreaError(f"task {entry.task!r} does not define {missing}", "write the methods that Task asks for")
    if not isinstance(getattr(found, "name", None), str):
        raise AstreaError(f"task {entry.task!r} has no name", 'set the class attribute name = "..."')
    try:
        return found(**entry.options)
    except TypeError as error:
        raise AstreaError(f"task {entry.task!r}: {error}", "check its options in evaluation.tasks") from error
