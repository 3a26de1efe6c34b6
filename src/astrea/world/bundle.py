"""Writing the model of a finished run as the small folder that comes with the package, for `astrea.world.bundled`."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file, write_json_atomic
from astrea.common.foreign_files import MAX_JSON_BYTES, WEIGHTS, read_json
from astrea.common.installation import SHIPPED_NAME
from astrea.common.paths import check_empty, file_guard, is_file, is_folder
from astrea.common.progress import SILENT, Reporter
from astrea.confidence.agreement import FILE as AGREEMENT
from astrea.confidence.estimator import FILE as DOUBT
from astrea.evaluation.generate import Predictor
from astrea.experts.bank import ExpertBank
from astrea.model.components import BUNDLED, CARD, LANGUAGE, components_folder, read_card, save_component
from astrea.model.loading import load_model
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.recipes.changes import changes_from
from astrea.recipes.loader import shipped_recipes
from astrea.recipes.recipe import Data, Recipe, World
from astrea.recipes.renamed import with_new_names
from astrea.recipes.saved import read_recipe
from astrea.report.results import Results, parse_results
from astrea.training.assembly import entries_of, load_experts
from astrea.world.bundled import BUNDLED_MODEL, EXPERTS, expert_components, learned, load_bundled
from astrea.world.evaluation.runner import encode_test_sets, run_tasks
from astrea.world.evaluation.tasks import TASKS, build_test_sets

FILES = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
"""What is taken over from the run's model folder as it is."""

SUBSET = Data(test_questions=20, test_captions=20, test_retrieval_groups=5)
"""Of the test split: few enough for a test to measure them again, on the model as it is packed."""

FIRST = "FIRST/model"
"""How a card's command calls the model that the run went on from."""


def bundle(
    run_folder: Path,
    out: Path,
    *,
    commit: str | None,
    components: Path = BUNDLED,
    subset: Data = SUBSET,
    report: Reporter | None = None,
) -> dict[str, Any]:
    """Write the model of a finished run as a small folder ``out``, for `load_bundled`; returns its card.

    Args:
        commit: of the code that trained it. components: what its experts will be filled from.
        subset: what of the test split the packed model is measured on once more, for the card.

    Raises:
        AstreaError: no run, or one that has not been evaluated; it started from other components, or its experts are
            not those of ``components``; no overrides of a shipped recipe make its recipe; ``out`` holds something.
    """
    recipe = read_recipe(run_folder)
    results = read_results(run_folder)
    check_start(recipe, run_folder, components)
    check_empty(out)
    before = None if recipe.start is None else started_from(recipe.start)
    recipe = recipe.model_copy(update={"pretrain": "shipped", "start": None if before is None else FIRST})
    command = how_to_make(recipe, None if before is None else Recipe.model_validate(with_new_names(before["recipe"])))
    model, processor = load_model(run_folder / "model")
    needs = expert_components(model.config.experts, components)
    check_experts(model, run_folder, components)
    with file_guard(out):
        out.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(run_folder / "model" / name, out / name)
        for name in (DOUBT, AGREEMENT):
            if is_file(run_folder / "model" / name):
                shutil.copyfile(run_folder / "model" / name, out / name)
        save_component(learned(model), out / WEIGHTS)
    card = {
        "command": command,
        "commit": commit,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "seed": recipe.seed,
        "recipe": recipe.model_dump(mode="json"),
        **({} if before is None else {"start": before}),
        "scores": scores_of(results),
        "limits": limits(recipe, results, len(processor.tokenizer)),
        "experts": needs,
        "sha256": sha256_file(out / WEIGHTS),
    }
    with file_guard(out):
        write_json_atomic(out / CARD, card)
    packed, processor = load_bundled(out, components=components)
    scores = subset_scores(packed, processor, recipe.world, subset, report=report or Reporter())
    card["subset"] = {"split": "test", "data": subset.model_dump(), "average": mean(scores), "tasks": scores}
    with file_guard(out):
        write_json_atomic(out / CARD, card)
    return card


def read_results(run_folder: Path) -> Results:
    """The scores of a finished run.

    Raises:
        AstreaError: there are none, or not of all twelve tasks.
    """
    path = run_folder / "results.json"
    hint = f"evaluate the run: astrea train --resume {shlex.quote(str(run_folder))}"
    if not is_file(path):
        raise AstreaError(f"{path} is missing, so this run is not finished", hint)
    results = parse_results(read_json(path, MAX_JSON_BYTES), str(path))
    lacking = [task for task in TASKS if task not in results.tasks or results.tasks[task].score is None]
    if lacking or results.average is None or results.blind_average is None:
        raise AstreaError(f"{path} has no score for {lacking[0] if lacking else 'the average'}", hint)
    return results


def check_start(recipe: Recipe, run_folder: Path, components: Path) -> None:
    """Whether a run started from the language model in ``components``, so that its card's command can start there too.

    Raises:
        AstreaError: it did not.
    """
    if recipe.start is not None:
        return  # whatever that model started from, its experts are compared
    start = run_folder / "parts" if recipe.pretrain == "scratch" else components_folder(recipe.pretrain)
    its, wanted = (read_card(folder).get("sha256", {}).get(LANGUAGE) for folder in (start, components))
    if recipe.model.pretrained_llm and its != wanted:
        raise AstreaError(
            f"{run_folder}: its language model started from {start}, not from the parts in {components}",
            "ship the parts that the run started from first, or train it again with pretrain=shipped",
        )


def check_experts(model: AstreaForConditionalGeneration, run_folder: Path, components: Path) -> None:
    """Whether the model's experts are, bit for bit in fp16, those that ``components`` holds.

    Raises:
        AstreaError: they are not; names the first tensor that differs.
    """
    bank = ExpertBank(model.config.experts)
    load_experts(bank, entries_of(model.config.experts), components)
    own = model.experts.state_dict()
    for name, tensor in bank.state_dict().items():
        one, two = (t.half() if t.is_floating_point() else t for t in (own[name], tensor))
        if not torch.equal(one, two):
            raise AstreaError(
                f"{run_folder}: {EXPERTS}.{name} is not what the parts in {components} hold",
                "ship the parts that the run started from first, or train it again with pretrain=shipped",
            )


def started_from(start: str) -> dict[str, Any]:
    """What is known of the model that a run went on from: its recipe, and its card's command and digest if it has one.

    Raises:
        AstreaError: there is no such model, or nothing says how it was made.
    """
    if start == SHIPPED_NAME and not is_folder(start):
        card = read_json(BUNDLED_MODEL / CARD, MAX_JSON_BYTES)
        return {name: card[name] for name in ("recipe", "commit", "sha256")}
    folder = Path(start)
    return {"recipe": read_json(folder / "recipe.json", MAX_JSON_BYTES), "sha256": sha256_file(folder / WEIGHTS)}


def how_to_make(recipe: Recipe, before: Recipe | None = None) -> str:
    """The commands that train and pack the model again.

    Args:
        before: the run whose model it went on from.

    Raises:
        AstreaError: no overrides of a shipped recipe make this one.
    """
    first = "" if before is None else f"{how_to_train(before, 'FIRST')} && "
    return f"{first}{how_to_train(recipe, 'RUN')} && astrea pack RUN --out FOLDER"


def how_to_train(recipe: Recipe, folder: str) -> str:
    """The command that trains it again."""
    base = recipe.name if recipe.name in shipped_recipes() else "tiny"
    words = changes_from(base, recipe.model_copy(update={"pretrain": "shipped"}))
    return f"{shlex.join(['astrea', 'train', base, *words])} --out {folder}"


def scores_of(results: Results) -> dict[str, Any]:
    """The averages and the twelve scores, each with its metric, its blind row and its number of items."""
    return {
        "average": results.average,
        "blind_average": results.blind_average,
        "tasks": {task: results.tasks[task].model_dump(exclude={"secondary"}) for task in TASKS},
    }


def limits(recipe: Recipe, results: Results, words: int) -> list[str]:
    """What a person should know before believing the model."""
    scores = {task: results.tasks[task].score or 0.0 for task in TASKS}
    weakest = sorted(TASKS, key=lambda task: scores[task])[:3]
    return [
        "It knows the embedded world of drawn scenes and nothing else; what it says of a photograph means nothing"
        + (", and it says so of most." if recipe.data.unanswerable else "."),
        f"It is weakest at {', '.join(f'{task} ({scores[task]:.1f})' for task in weakest)}.",
        f"It reads and writes English only, with {words} words and word pieces, and questions like the world's own"
        + (" and a dozen rewordings of each." if recipe.data.paraphrases else "."),
        f"Every picture is scaled to {recipe.world.canvas}x{recipe.world.canvas} pixels; what is too small there is "
        "lost.",
    ]


def subset_scores(
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    world: World,
    data: Data,
    *,
    report: Reporter = SILENT,
) -> dict[str, float]:
    """Scores (0..100) of the twelve tasks on as much of the test split as ``data`` says, without a blind row."""
    encoded = encode_test_sets(model, build_test_sets(world, data))
    predictor = Predictor(model, processor.tokenizer)
    return run_tasks(predictor, encoded, TASKS, blind=False, label="evaluate subset", report=report).scores


def mean(scores: Mapping[str, float]) -> float:
    """The average over the tasks."""
    return sum(scores.values()) / len(scores)
