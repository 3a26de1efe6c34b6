"""What a user has and does: checkpoints on a disk, a recipe written by hand, and the commands.

The checkpoints are small and random, of true architectures, saved as transformers saves them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from astrea.cli import app
from expert_builders import OPTIONS, kind_of, small_checkpoint
from language_builders import small_language_model

CANVAS = 72
"""No checkpoint's own size, nor the shipped recipe's."""

RECIPE = """\
# Experts from checkpoints, around a language model from a checkpoint.
name: journey
threads: 1

world: {{canvas: {canvas}, difficulty: 0.2}}
data: {{train_scenes: 8, questions_per_scene: 2, test_questions: 2, test_captions: 2, test_retrieval_groups: 1}}

experts:
{experts}

llm:
  checkpoint: {language}
{more}

model: {{contrast_width: 16, adapter_hidden: 24}}
contrast: {{queue: 16}}

align:
  train: [adapters, heads]
  losses: {{word: 1.0, itc: 0.3, agree: 0.1}}
  progressive: true
  steps: {phases}
  batch: 4
  lr: 1.0e-3

fuse:
  train: [adapters, heads, fusion]
  losses: {{lm: 1.0, itc: 0.1, contribution: 0.2, reliability: 1.0}}
  steps: {steps}
  batch: 2
  lr: 1.0e-3

tune:
  train: [adapters, heads, fusion, language_model]
  losses: {{lm: 1.0, itc: 0.1, contribution: 0.2, reliability: 1.0}}
  steps: {steps}
  batch: 2
  lr: 1.0e-3
"""


def command(*arguments: object) -> Result:
    """A command in this process; anything but success is raised, with what was said."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def asked(model: Path, picture: Path, question: str, *more: object) -> dict[str, Any]:
    """What `astrea ask` says for a program to read."""
    return json.loads(command("ask", model, picture, question, "--json", *more).stdout)


def checkpoints(experts: Mapping[str, str], family: str, folder: Path) -> dict[str, Path]:
    """Write small checkpoints: of every expert's architecture under its name, and the language model."""
    made = {name: small_checkpoint(architecture, folder / name) for name, architecture in experts.items()}
    return made | {"language": small_language_model(family, folder / "language")}


def recipe(
    experts: Mapping[str, str], folder: Path, *, more: str = "", steps: int = 1, dtypes: Mapping[str, str] | None = None
) -> str:
    """The recipe of a run with these checkpoints, as `checkpoints` wrote them into ``folder``; one step per phase of
    align.

    Args:
        experts: name -> architecture.
        more: further lines of ``language``.
        steps: of fuse and of tune.
        dtypes: name -> type of an expert's weights.
    """
    lines = []
    for name, architecture in experts.items():
        options = OPTIONS[architecture] | ({"dtype": dtypes[name]} if name in (dtypes or {}) else {})
        entry = {"kind": kind_of(architecture), "checkpoint": str(folder / name), "options": options}
        lines.append(f"  {name}: {json.dumps(entry)}")
    return RECIPE.format(
        experts="\n".join(lines),
        language=folder / "language",
        more=more,
        phases=len(experts) + 1,
        steps=steps,
        canvas=CANVAS,
    )
