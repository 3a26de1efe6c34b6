"""From a finished model to what a person reads: results.json, sample pictures, the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.files import write_json_atomic
from astrea.common.paths import exists, file_guard, is_file, read_json
from astrea.common.progress import Reporter
from astrea.confidence.estimator import Doubt, save_doubt
from astrea.confidence.own_data import calibrated_on
from astrea.data.packing import CAPTION_PROMPT
from astrea.data.readers.sources import configured_sources
from astrea.evaluation.own_data.held_out import measure
from astrea.evaluation.own_data.output import write_measured
from astrea.experts.drawing import draw_readings
from astrea.model.folders.saved import write_card
from astrea.model.loading import load_model
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.recipes.recipe import Recipe
from astrea.report import write_report
from astrea.report.results import parse_results
from astrea.training.run_folder import locked_folder
from astrea.world.confidence import PICTURES, QUESTIONS, learn_doubt
from astrea.world.evaluation.runner import Outcome, Seen, evaluate
from astrea.world.evaluation.tasks import CAPTION_TASKS
from astrea.world.experts.truth import pixels_from_scenes
from astrea.world.scenes.captions import captions
from astrea.world.scenes.questions import VQA_TASKS
from astrea.world.scenes.vocabulary import CONDITIONS

SAMPLES = 24
NOTHING_HELD_OUT = "the recipe names no held-out data (data.validation)"


def finish(
    recipe: Recipe, folder: Path, *, report: Reporter, split: str = "test", trust_remote_code: bool = True
) -> dict[str, Any] | None:
    """Evaluate ``folder/model`` on ``data.validation`` or, where it was trained on the embedded world, on that one's
    twelve tasks; write results, samples and report into ``folder``. None where it was trained on data of one's own and
    none is held out: what it scores on the embedded world says nothing about it, so that is left to those who ask.

    Args:
        trust_remote_code: import the experts that the model names. By default so: the recipe is the user's own word,
            and what it names has been imported for training already.

    Raises:
        AstreaError: no model there, another run is at work in the folder, or it cannot be written.
    """
    if recipe.data.train is not None and recipe.data.validation is None:
        report.say(f"no score: {NOTHING_HELD_OUT}; {how_to_score(folder)}")
        return None
    with locked_folder(folder, report=report):
        model, processor = load_model(
            folder / "model", trust_remote_code=trust_remote_code, device=recipe.runtime.device
        )
        held_out = configured_sources(recipe.data, report, key="validation")
        if held_out:
            measured = measure(model, processor, held_out, report=report)
            if model.doubt is not None:
                given = zip(measured.items, measured.answers.seen, strict=True)
                model.doubt = calibrated_on(
                    model.doubt, model, processor, [item for item, said in given if said is not None]
                )
                with file_guard(folder):
                    save_doubt(model.doubt, folder / "model")
            measured.results.update(told_of(recipe, folder, measured.results))
            write_measured(model, processor, measured, folder)
            return measured.results
        return measure_world(recipe, folder, model, processor, report=report, split=split)


def how_to_score(folder: Path) -> str:
    """What to do for a score of a model that was trained on data of one's own with nothing held out."""
    return (
        f"measure it with: astrea evaluate {folder}/model --data FILE; next time hold out a share of the data "
        "(data.validation=0.1) or a file"
    )


def told_of(recipe: Recipe, folder: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """What results say of the run that they are of."""
    seconds = read_json(folder / "seconds.json") if exists(folder / "seconds.json") else {}
    return {
        "strategy": recipe.model.strategy,
        "seed": recipe.seed,
        "recipe": recipe.name,
        "seconds": {**seconds, **results["seconds"]},
    }


def measure_world(
    recipe: Recipe,
    folder: Path,
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    *,
    report: Reporter,
    split: str,
) -> dict[str, Any]:
    """`finish` on the twelve tasks, with the folder to oneself."""
    report.say("measuring on validation questions how sure to be")
    model.doubt = doubt_of(recipe, model, processor.tokenizer)
    with file_guard(folder):
        save_doubt(model.doubt, folder / "model")
    results, seen, outcome = evaluate(model, processor.tokenizer, recipe.world, recipe.data, split=split, report=report)
    results |= told_of(recipe, folder, results)
    with file_guard(folder):
        write_json_atomic(folder / "results.json", results)
        write_samples(model, seen, outcome, folder)
        write_card(
            folder / "model",
            model.config,
            parse_results(read_json(folder / "results.json"), str(folder / "results.json")),
        )
    write_report(folder)
    return results


def results_of(folder: Path) -> dict[str, Any] | None:
    """What `finish` has written; None where it has not, or what is there cannot be read."""
    try:
        found = read_json(folder / "results.json")
    except AstreaError:
        return None
    return found if isinstance(found, dict) else None


def doubt_of(recipe: Recipe, model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> Doubt:
    """What a run's model should doubt, measured on as little as its test is."""
    pictures = max(8, min(PICTURES, recipe.data.train_scenes))
    questions = min(QUESTIONS, 6 * recipe.data.test_questions)
    return learn_doubt(model, tokenizer, recipe.world, pictures=pictures, questions=questions)


def write_samples(model: AstreaForConditionalGeneration, seen: Seen, outcome: Outcome, folder: Path) -> None:
    """Test pictures with drawn readings, question, answer, truth and shares: ``samples.json`` and its pictures."""
    picked: list[tuple[str, int]] = []
    tasks = [*VQA_TASKS, *CAPTION_TASKS]
    for number in range(SAMPLES):
        task = tasks[number % len(tasks)]
        if task in outcome.answers:
            count = len(outcome.answers[task])
            picked.append((task, (number * 37) % count))
    names = model.experts.names
    for name in ("samples", "readings"):  # apart, so that samples/ is an album of pictures and nothing else
        (folder / name).mkdir(exist_ok=True)
    written = []
    for number, (task, item) in enumerate(picked):
        answer = outcome.answers[task][item]
        if task in CAPTION_TASKS:
            scene = seen.sets.described[task][item]
            question, truth = CAPTION_PROMPT, captions(scene, 1)[0]
        else:
            asked = [each for each in seen.sets.questions if each.question.task == task][item]
            scene = seen.sets.scenes[asked.scene]
            question, truth = asked.question.text, asked.question.answer
        picture = Image.fromarray(scene.image)
        readings = model.experts.readings(pixels_from_scenes([scene]))[0]
        image, panel = f"samples/{number:02d}.png", f"readings/{number:02d}.png"
        picture.save(folder / image)
        draw_readings(picture, readings).save(folder / panel)
        written.append(
            {
                "image": image,
                "panel": panel,
                "task": task,
                "question": question,
                "answer": answer,
                "truth": truth,
                "right": bool(outcome.per_item[task][item] >= 0.999),
                "condition": CONDITIONS[scene.condition],
                "shares": dict(zip(names, outcome.shares[task][item].tolist(), strict=True)),
            }
        )
    write_json_atomic(folder / "samples.json", written)


def read_run(folder: Path) -> Recipe:
    """The recipe that a run folder was started with.

    Raises:
        AstreaError: no recipe there.
    """
    from astrea.recipes.loader import load_recipe

    path = folder / "recipe.yaml"
    if not is_file(path):
        raise AstreaError(f"{path}: missing, so this is no run folder", "give the folder that `astrea train` wrote")
    return load_recipe(Recipe, str(path), saved=True)
