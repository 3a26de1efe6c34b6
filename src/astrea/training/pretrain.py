"""Training the parts that a run starts from: four compact experts and the small language model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import nn

from astrea.config import PretrainPart, Run
from astrea.errors import AstreaError
from astrea.experts.bank import COMPACT
from astrea.experts.pretrain import ExpertObjective
from astrea.files import sha256_file
from astrea.language.tiny import tiny_language_model, tiny_tokenizer
from astrea.language.warm import WarmObjective, told_accuracy
from astrea.progress import Reporter
from astrea.training.checkpoint import file_guard, write_json_atomic
from astrea.training.loop import Objective, build_optimizer, run_steps
from astrea.training.parts import CARD, LANGUAGE, save_part


def pretrain(run: Run, folder: Path, *, report: Reporter, only: list[str] | None = None) -> Path:
    """Train the parts (``only`` some of them) and write them with their card; a part that is already there is kept.

    Raises:
        AstreaError: an unknown part, the language model did not pass the gate, or the folder cannot be written.
    """
    unknown = [name for name in only or [] if name not in (*COMPACT, LANGUAGE)]
    if unknown:
        raise AstreaError(f"unknown part {unknown[0]!r}", f"the parts are {', '.join((*COMPACT, LANGUAGE))}")
    with file_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
    world = run.world
    for kind, cls in COMPACT.items():
        if (only and kind not in only) or (folder / f"{kind}.safetensors").exists():
            continue
        torch.manual_seed(run.seed)
        expert = cls()
        objective = ExpertObjective(expert, run.seed, canvas=world.canvas, difficulty=world.difficulty)  # type: ignore[arg-type]
        fit(expert, objective, run.pretraining.expert, folder, kind, report)
    if not only or LANGUAGE in only:
        if not (folder / f"{LANGUAGE}.safetensors").exists():
            warm(run, folder, report)
        check_gate(run, folder)
    return write_card(run, folder)


def fit(module: nn.Module, objective: Objective, part: PretrainPart, folder: Path, name: str, report: Reporter) -> None:
    """Run one part's schedule and save it."""
    schedule = part.schedule()

    def on_step(step: int, figures: dict[str, float]) -> None:
        report.track(f"pretrain {name}", step + 1, schedule.steps, f"loss {figures['loss']:.3f}")

    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=on_step)
    with file_guard(folder):
        save_part(module, folder / f"{name}.safetensors")


def warm(run: Run, folder: Path, report: Reporter) -> None:
    """Warm the language model, and measure it on scenes told without a fault."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(run.seed)
    model = tiny_language_model(run.language, tokenizer)
    objective = WarmObjective(
        model,
        tokenizer,
        run.seed,
        canvas=run.world.canvas,
        difficulty=run.world.difficulty,
        steps=run.pretraining.language.steps,
    )
    fit(model, objective, run.pretraining.language, folder, LANGUAGE, report)
    told = told_accuracy(objective)
    mean = sum(told.values()) / len(told)
    with file_guard(folder):
        write_json_atomic(folder / "gate.json", {"mean": mean, **told})
    report.say(f"language model on ground-truth tokens: {mean:.1%}")


def check_gate(run: Run, folder: Path) -> None:
    """The language model must pass the gate, also when it is found again later."""
    path = folder / "gate.json"
    mean = json.loads(path.read_text())["mean"] if path.exists() else 1.0
    if mean < run.pretraining.gate:
        raise AstreaError(
            f"the language model answers {mean:.1%} of ground-truth questions; the gate is {run.pretraining.gate:.0%}",
            f"remove {folder / LANGUAGE}.safetensors and train it longer (pretraining.language.steps)",
        )


def write_card(run: Run, folder: Path) -> Path:
    """The card: how the parts were made, what they score, and what their bytes are."""
    names = [name for name in (*COMPACT, LANGUAGE) if (folder / f"{name}.safetensors").exists()]
    gate = folder / "gate.json"
    card = {
        "command": "astrea pretrain " + run.name,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "seed": run.seed,
        "world": run.world.model_dump(),
        "pretraining": run.pretraining.model_dump(),
        "language": run.language.model_dump(),
        "ground_truth_accuracy": json.loads(gate.read_text()) if gate.exists() else None,
        "sha256": {name: sha256_file(folder / f"{name}.safetensors") for name in names},
    }
    with file_guard(folder):
        write_json_atomic(folder / CARD, card)
    return folder
