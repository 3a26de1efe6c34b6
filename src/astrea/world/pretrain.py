"""Training the parts that a run starts from: compact experts and the small language model."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file, write_json_atomic
from astrea.common.installation import SHIPPED_NEUTRAL_NAME
from astrea.common.paths import exists, file_guard, read_json
from astrea.common.progress import SILENT, Reporter
from astrea.common.provenance import commit
from astrea.model.components import BUNDLED, CARD, LANGUAGE, NEUTRAL, fill, made_with, save_component
from astrea.recipes.recipe import PretrainPart, Recipe
from astrea.training.loop import Objective, build_optimizer, run_steps
from astrea.world.dataset import scenes_of
from astrea.world.evaluation.experts import JUDGES, Scores
from astrea.world.experts.compact import COMPACT
from astrea.world.experts.pretrain import ExpertObjective
from astrea.world.language.pretraining import LanguageObjective, reading_accuracy
from astrea.world.language.sentences import SentenceObjective, sentence_perplexity
from astrea.world.language.tiny import tiny_language_model, tiny_tokenizer

GATE = "gate.json"
JUDGED = 300
"""Validation scenes that an expert's scores on the card are from."""


def pretrain(
    recipe: Recipe,
    folder: Path,
    *,
    report: Reporter = SILENT,
    only: list[str] | None = None,
    shipped: Sequence[str] = (),
) -> Path:
    """Train the parts that the recipe uses and write them with their card; a part that is already there is kept.

    Args:
        only: train these instead, whatever the recipe uses.
        shipped: parts of the package that are copied into the folder instead of being trained.

    Raises:
        AstreaError: an unknown part, one that is there but was made with other settings, a language model that did not
            pass the gate, or a folder that cannot be written.
    """
    unknown = [name for name in only or [] if name not in (*COMPACT, LANGUAGE)]
    if unknown:
        raise AstreaError(f"unknown part {unknown[0]!r}", f"the parts are {', '.join((*COMPACT, LANGUAGE))}")
    wanted = [name for name in (*COMPACT, LANGUAGE) if name in (only or parts_of(recipe))]
    if not wanted:
        return folder
    with file_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in shipped:
            shutil.copyfile(shipped_part(recipe, name), folder / f"{name}.safetensors")
    wanted = [name for name in wanted if name not in shipped]
    for name in wanted:
        path = folder / f"{name}.safetensors"
        if not exists(path):
            (pretrain_language if name == LANGUAGE else train_expert)(recipe, folder, name, report)
        else:
            refuse_other(path, settings_digest(recipe, name))
    if LANGUAGE in wanted and has_gate(recipe):
        check_gate(recipe, folder, report)
    return write_card(recipe, folder)


def shipped_part(recipe: Recipe, name: str) -> Path:
    """Where the package has a part: a language model that has read plain sentences alone for a recipe that starts from
    it, otherwise the one that was warmed on the tasks."""
    neutral = name == LANGUAGE and recipe.pretrain == SHIPPED_NEUTRAL_NAME
    return (NEUTRAL if neutral else BUNDLED) / f"{name}.safetensors"


def parts_of(recipe: Recipe) -> tuple[str, ...]:
    """The parts that a recipe's model, and the teachers of its student, are filled from; () where all of them come from
    checkpoints, are only described, or are of other kinds."""
    entries = [*recipe.experts.values(), *(recipe.distill.teachers.values() if recipe.distill is not None else ())]
    kinds = {entry.kind for entry in entries if entry.checkpoint is None and entry.architecture is None}
    experts = tuple(name for name in COMPACT if name in kinds)
    return (*experts, LANGUAGE) if recipe.llm.tiny and recipe.model.pretrained_llm else experts


def settings_digest(recipe: Recipe, name: str) -> str:
    """What decides the bytes of a part, apart from code: seed, world, schedule and size."""
    settings: dict[str, Any] = {"name": name, "seed": recipe.seed, "world": recipe.world.model_dump()}
    if name == LANGUAGE:
        settings |= {"schedule": recipe.pretraining.llm.model_dump(), "size": recipe.llm.model_dump()}
    else:
        settings["schedule"] = recipe.pretraining.expert.model_dump()
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def train_expert(recipe: Recipe, folder: Path, name: str, report: Reporter) -> None:
    """Train one compact expert on its own objective."""
    torch.manual_seed(recipe.seed)
    expert = COMPACT[name]()
    world = recipe.world
    part = recipe.pretraining.expert
    objective = ExpertObjective(
        expert,  # type: ignore[arg-type]
        recipe.seed,
        canvas=world.canvas,
        difficulty=world.difficulty,
        part=part,
    )
    path, settings = folder / f"{name}.safetensors", settings_digest(recipe, name)
    fit(expert, objective, part, path, settings=settings, report=report)


def pretrain_language(recipe: Recipe, folder: Path, name: str, report: Reporter) -> None:
    """Train the language model on scenes described in words, or on plain sentences."""
    torch.manual_seed(recipe.seed)
    model = tiny_language_model(recipe.llm, tiny_tokenizer())
    (folder / GATE).unlink(missing_ok=True)  # it was another model's
    path, settings = folder / f"{name}.safetensors", settings_digest(recipe, name)
    objective = language_objective(recipe, model) if has_gate(recipe) else sentence_objective(recipe, model)
    fit(model, objective, recipe.pretraining.llm, path, settings=settings, report=report)


def language_objective(recipe: Recipe, model: Any) -> LanguageObjective:
    """How the language model learns, and is measured, in this run's world."""
    world, steps = recipe.world, recipe.pretraining.llm.steps
    return LanguageObjective(
        model, tiny_tokenizer(), recipe.seed, canvas=world.canvas, difficulty=world.difficulty, steps=steps
    )


def sentence_objective(recipe: Recipe, model: Any) -> SentenceObjective:
    """How the neutral language model learns."""
    world = recipe.world
    return SentenceObjective(model, tiny_tokenizer(), recipe.seed, canvas=world.canvas, difficulty=world.difficulty)


def has_gate(recipe: Recipe) -> bool:
    """Whether the language model is to answer questions; one that has only read sentences can't."""
    return recipe.pretraining.llm.text == "tasks"


def fit(
    module: nn.Module, objective: Objective, part: PretrainPart, path: Path, *, settings: str, report: Reporter = SILENT
) -> None:
    """Run one part's schedule and save the module.

    Args:
        settings: identifies what it is made with, for `refuse_other`.
    """
    schedule = part.schedule()

    def on_step(step: int, figures: dict[str, float]) -> None:
        report.track(f"pretrain {path.stem}", step + 1, schedule.steps, f"loss {figures['loss']:.3f}")

    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=on_step)
    with file_guard(path):
        save_component(module, path, settings=settings)


def refuse_other(path: Path, settings: str) -> None:
    """Raise where a part that is kept says that it was made with other settings."""
    if made_with(path) not in (None, settings):
        raise AstreaError(
            f"{path}: was made with other settings than this recipe's", "remove it, or choose another folder"
        )


def check_gate(recipe: Recipe, folder: Path, report: Reporter) -> None:
    """Measure the language model on faultless descriptions of scenes (once), and hold it to the gate."""
    path = folder / GATE
    if not exists(path):
        model = tiny_language_model(recipe.llm, tiny_tokenizer())
        fill(model, folder / f"{LANGUAGE}.safetensors", LANGUAGE)
        scores = reading_accuracy(language_objective(recipe, model))
        with file_guard(folder):
            write_json_atomic(path, {"mean": sum(scores.values()) / len(scores), **scores})
    mean = read_json(path)["mean"]
    report.say(f"language model on ground-truth tokens: {mean:.1%}")
    if mean < recipe.pretraining.min_accuracy:
        raise AstreaError(
            f"the language model answers {mean:.1%} of ground-truth questions; the gate is "
            f"{recipe.pretraining.min_accuracy:.0%}",
            f"remove {folder / LANGUAGE}.safetensors and train it longer (pretraining.llm.steps)",
        )


def write_card(recipe: Recipe, folder: Path, *, judged: int = JUDGED) -> Path:
    """The card: how the parts were made, what they score (on ``judged`` validation scenes), what their bytes are."""
    names = [name for name in (*COMPACT, LANGUAGE) if exists(folder / f"{name}.safetensors")]
    neutral = LANGUAGE in names and not has_gate(recipe)
    gate = folder / GATE
    card = {
        "command": "astrea pretrain " + recipe.name,
        "commit": commit(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "seed": recipe.seed,
        "world": recipe.world.model_dump(),
        "pretraining": recipe.pretraining.model_dump(),
        "language": recipe.llm.model_dump(),
        "ground_truth_accuracy": read_json(gate) if LANGUAGE in names and exists(gate) else None,
        **({"sentence_perplexity": neutral_perplexity(recipe, folder)} if neutral else {}),
        "scores": {name: expert_score(recipe, folder, name, judged) for name in names if name != LANGUAGE and judged},
        "sha256": {name: sha256_file(folder / f"{name}.safetensors") for name in names},
    }
    with file_guard(folder):
        write_json_atomic(folder / CARD, card)
    return folder


def neutral_perplexity(recipe: Recipe, folder: Path) -> float:
    """What the neutral language model makes of sentences that it has not read, from the bytes that are kept."""
    model = tiny_language_model(recipe.llm, tiny_tokenizer())
    fill(model, folder / f"{LANGUAGE}.safetensors", LANGUAGE)
    return round(sentence_perplexity(sentence_objective(recipe, model)), 3)


@torch.no_grad()
def expert_score(recipe: Recipe, folder: Path, name: str, judged: int) -> Scores:
    """A compact expert's own figures, from the bytes that are kept."""
    expert = COMPACT[name]()
    fill(expert, folder / f"{name}.safetensors", name)
    return JUDGES[COMPACT[name]](expert.eval(), list(scenes_of("validation", judged, recipe.world)))
