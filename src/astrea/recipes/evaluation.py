"""What a finished run is evaluated on beside its own data or world: tasks of other packages."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from astrea.common.registry import Registry
from astrea.recipes.part import Part

TASKS = Registry("task", {}, group="astrea.tasks")


class TaskEntry(Part):
    """One task and the options of its constructor."""

    task: str = Field(min_length=1, description='a name that a package registered, or "module:Class"')
    options: dict[str, Any] = {}


class Evaluation(Part):
    """Further tasks; see docs/add-a-task.md."""

    tasks: tuple[str | TaskEntry, ...] = Field(
        (), description='names that packages registered, "module:Class", or {task, options}'
    )

    @property
    def entries(self) -> list[TaskEntry]:
        """Every task with its options."""
        return [TaskEntry(task=one) if isinstance(one, str) else one for one in self.tasks]
