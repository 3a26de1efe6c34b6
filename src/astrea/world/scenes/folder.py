"""Scenes as a folder of pictures, with questions and true answers beside them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from astrea.common.files import write_atomic
from astrea.common.paths import file_guard
from astrea.world.scenes.questions import Balancer
from astrea.world.scenes.scene import Scene

QUESTIONS = "questions.jsonl"


def write_scenes(scenes: Sequence[Scene], folder: Path, seed: int) -> int:
    """Write each scene as ``000.png``, ``001.png`` and so on, and `QUESTIONS` in the form of LLaVA's data sets, so that
    `astrea validate` and `astrea train` read it, too.

    Args:
        seed: of the choice of questions: up to one per task and scene, with balanced answers.

    Returns:
        The number of questions.

    Raises:
        AstreaError: the folder cannot be written.
    """
    rng, balancer, rows = random.Random(seed), Balancer(), []
    with file_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for number, scene in enumerate(scenes):
            name = f"{number:03}.png"
            Image.fromarray(scene.image).save(folder / name)
            for question in balancer.choose(scene, rng):
                turns = [{"from": "human", "value": f"<image>\n{question.text}"}]
                turns.append({"from": "gpt", "value": question.answer})
                rows.append({"id": f"{number:03}-{question.task}", "image": name, "conversations": turns})
    write_atomic(folder / QUESTIONS, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return len(rows)
