"""Scenes as a folder of pictures, with questions and true answers beside them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from astrea.common.files import write_atomic
from astrea.common.paths import file_guard
from astrea.world.scenes.questions import Balancer, Templates

QUESTIONS = "questions.jsonl"


def write_scenes(
    scenes: Iterable[Any], folder: Path, seed: int, *, templates: Templates, picture: Callable[[Any], Image.Image]
) -> int:
    """Write each scene as ``000.png``, ``001.png`` and so on, and `QUESTIONS` in the form of LLaVA's data sets, so that
    `astrea validate` and `astrea train` read it, too.

    Args:
        seed: of the choice of questions: up to one per task and scene, with balanced answers.
        templates: what is asked. picture: of a scene.

    Returns:
        The number of questions.

    Raises:
        AstreaError: the folder cannot be written.
    """
    rng, balancer, rows = random.Random(seed), Balancer(templates=templates), []
    with file_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number, scene in enumerate(scenes):
            name = f"{number:03}.png"
            picture(scene).save(folder / name)
            for question in balancer.choose(scene, rng):
                turns = [{"from": "human", "value": f"<image>\n{question.text}"}]
                turns.append({"from": "gpt", "value": question.answer})
                rows.append({"id": f"{number:03}-{question.task}", "image": name, "conversations": turns})
    write_atomic(folder / QUESTIONS, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return len(rows)
