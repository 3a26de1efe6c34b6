"""Answers written down as they come, so that nothing is asked twice or lost: a run that was stopped, or met a
picture that cannot be read, is gone on with by the same command.

A journal is JSONL: what it is of, then a line for each answer. It goes when the task's predictions are whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from astrea.common.paths import exists, file_guard, read_bytes
from astrea.evaluation.benchmarks.items import Item
from astrea.evaluation.benchmarks.predictions import SCHEMA, Header

MAX_BYTES = 1 << 30
"""The largest journal that is read."""


class Journal:
    """The answers that there are so far, of one task by one model.

    Args:
        folder: where the run writes.
        header: what the task's predictions are of.
        asked: what else decides an answer, such as the model's fingerprint and the longest answer. A journal of other
            values is begun anew.
    """

    def __init__(self, folder: Path, header: Header, **asked: Any) -> None:
        self.path = folder / "predictions" / f"{header.task}.part.jsonl"
        self.first = {"schema": SCHEMA, **asdict(header), **asked}

    def read(self, items: Sequence[Item]) -> dict[int | str, str]:
        """The answers to these items that are there, by id. What is damaged, or was asked otherwise, is not there."""
        if not exists(self.path):
            return {}
        lines = read_bytes(self.path, MAX_BYTES, "journal").splitlines()
        if _row(lines[0] if lines else b"") != self.first:
            return {}
        prompts = {item.id: prompt_digest(item.prompt) for item in items}
        rows = [row for line in lines[1:] if (row := _row(line)) is not None]
        return {
            row["id"]: row["prediction"]
            for row in rows
            if isinstance(row.get("id"), (int, str))
            and isinstance(row.get("prediction"), str)
            and row.get("prompt") == prompts.get(row["id"])
        }

    def begin(self, known: Mapping[int | str, str], items: Sequence[Item]) -> None:
        """Write anew what is known, without torn lines.

        Raises:
            AstreaError: the folder cannot be written.
        """
        with file_guard(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps(self.first) + "\n")
        there = [item for item in items if item.id in known]
        self.add(there, [known[item.id] for item in there])

    def add(self, items: Sequence[Item], answers: Sequence[str]) -> None:
        """Append answers and hand them to the system, so that they outlive this process."""
        pairs = zip(items, answers, strict=True)
        rows = [{"id": item.id, "prompt": prompt_digest(item.prompt), "prediction": p} for item, p in pairs]
        with file_guard(self.path), self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def end(self) -> None:
        """Remove the journal: the predictions hold all of it."""
        with file_guard(self.path):
            self.path.unlink(missing_ok=True)


def prompt_digest(prompt: str) -> str:
    """A few letters that change with the prompt, and so with its words, spaces and line breaks."""
    return hashlib.sha256(prompt.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:  # torn by a kill in the middle of writing
        return None
    return row if isinstance(row, dict) else None
