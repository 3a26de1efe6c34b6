"""The training log: one JSON object per line in ``train.jsonl``, and the same figures to the trackers asked for."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.files import finite_or_null
from astrea.common.paths import exists, file_guard, is_file
from astrea.training.trackers import TRACKERS, Tracker, installed


class TrainLog:
    """Appends to ``folder/train.jsonl``; only one process should write a run's log.

    Args:
        folder: the run's folder, made when missing.
        trackers: names of `astrea.training.trackers.TRACKERS` that get every number, too; "jsonl" is this file.
        name, settings: what they show the run as: its recipe's name, and its recipe.

    Raises:
        AstreaError: the folder cannot be written, or a tracker's library is not installed.
    """

    def __init__(
        self,
        folder: Path,
        trackers: Sequence[str] = (),
        name: str = "astrea",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(folder) / "train.jsonl"
        self._wanted = installed(trackers)
        self._about = (name, dict(settings or {}))
        self._trackers: list[Tracker] = []
        with file_guard(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if exists(self.path) and not is_file(self.path):
                raise AstreaError(f"{self.path} is not an ordinary file", "Remove it, or choose another run folder.")
            _drop_torn_line(self.path)
            self._file = self.path.open("a", encoding="utf-8")

    def write(self, step: int, record: Mapping[str, Any]) -> None:
        """Appends ``{"step": step, **record}`` and flushes it; NaN and infinity are written as null.

        Args:
            step: the optimizer step.
            record: names to numbers, text, booleans, None, lists, mappings, or tensors and arrays of one element.

        Raises:
            AstreaError: the file cannot be written.
        """
        row = {"step": step, **{name: _plain(value) for name, value in record.items()}}
        with file_guard(self.path):
            self._file.write(json.dumps(finite_or_null(row), allow_nan=False) + "\n")
            self._file.flush()
        if self._wanted:
            figures = {
                name: value
                for name, value in row.items()
                if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
            }
            for tracker in self._opened(step):
                tracker.log(step, figures)

    def truncate_after(self, step: int, skipped: int = 0) -> str | None:
        """On resume: keeps only the lines of steps up to ``step``, so that none is there twice.

        Args:
            skipped: so many of these steps were never done, since a stage ended early.

        Returns:
            What the file lacks of the steps up to there and what of it was no line of a log, in words; None: nothing.

        Raises:
            AstreaError: the file cannot be written.
        """
        with file_guard(self.path):
            self._file.close()
            lines = self.path.read_bytes().splitlines(keepends=True)
            # A step that stands there twice was logged by two runs: the later line is of the one that went on.
            kept = {found: line for line in lines if 0 < (found := _step_of(line)) <= step}
            partial = self.path.with_name(self.path.name + ".tmp")
            with partial.open("wb") as file:
                file.writelines(kept[found] for found in sorted(kept))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
            self._file = self.path.open("a", encoding="utf-8")
        self._close_trackers()
        self._opened(step + 1)
        garbage = sum(_step_of(line) == math.inf for line in lines)
        missing = step - skipped - len(kept)
        gaps = [f"{garbage:,} lines that are none of a log were left out"] * (garbage > 0)
        gaps += [f"the figures of {missing:,} of the first {step - skipped:,} steps are missing"] * (missing > 0)
        return f"{self.path}: {'; '.join(gaps)}" if gaps else None

    def close(self) -> None:
        """Closes the files; a second call does nothing."""
        self._file.close()
        self._close_trackers()

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self, first_step: int) -> list[Tracker]:
        """The trackers, opened at the first step that they are told of."""
        if not self._trackers:
            folder, (name, settings) = self.path.parent, self._about
            self._trackers = [TRACKERS[wanted](folder, name, settings, first_step) for wanted in self._wanted]
        return self._trackers

    def _close_trackers(self) -> None:
        for tracker in self._trackers:
            tracker.close()
        self._trackers = []


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def _step_of(line: bytes) -> float:
    """The line's step; one that is torn or without a step counts as after everything."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if isinstance(step, int) else math.inf


def _drop_torn_line(path: Path) -> None:
    """A kill in mid-write leaves half a line, to which the next one would be joined."""
    if not exists(path):
        return
    with file_guard(path), path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        tail = b""
        start = end
        while start and b"\n" not in tail:
            start = max(0, start - (1 << 16))
            file.seek(start)
            tail = file.read(end - start)
        whole = start + tail.rfind(b"\n") + 1
        if whole < end:
            file.truncate(whole)
