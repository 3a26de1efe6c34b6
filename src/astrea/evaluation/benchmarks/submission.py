"""Writing what a task's server, or its official script, wants to be given.

| tasks | file | holds |
| --- | --- | --- |
| VQAv2, OK-VQA, TextVQA | ``<task>.json`` | ``[{question_id, answer}]`` |
| VizWiz | ``<task>.json`` | ``[{image, answer}]`` |
| GQA | ``<task>.json`` | ``[{questionId, prediction}]`` |
| ScienceQA | ``<task>.json`` | ``{"results": {pid: index}}`` |
| captions | ``<task>.json`` | ``[{image_id, caption}]`` |
| POPE | ``<task>_<subset>.jsonl`` | ``{question, answer}`` a line |

Retrieval has no server.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from astrea.common.files import write_atomic
from astrea.common.paths import file_guard
from astrea.evaluation.benchmarks.items import Item
from astrea.evaluation.benchmarks.suite import AnswerTask
from astrea.evaluation.metrics.vqa import Mode


def write_submission(
    folder: Path, task: AnswerTask, items: Sequence[Item], predictions: Sequence[str], mode: Mode
) -> list[Path]:
    """Write the submission of one task into ``folder/submissions``; several files where the server wants several."""
    made = task.submit(items, predictions, mode)
    if isinstance(made, dict) and all(isinstance(lines, list) for lines in made.values()):
        texts = {
            f"{task.name}_{part}.jsonl": "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            for part, lines in made.items()
        }
    else:
        texts = {f"{task.name}.json": json.dumps(made, ensure_ascii=False) + "\n"}
    paths = []
    for name, text in texts.items():
        path = folder / "submissions" / name
        with file_guard(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text.encode("utf-8", "backslashreplace"))
        paths.append(path)
    return paths
