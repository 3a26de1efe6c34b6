"""A training run from recipe to model folder: stages in order, checkpoints, resume."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from astrea.common.errors import AstreaError
from astrea.common.files import write_json_atomic
from astrea.common.memory import give_back, peak_text
from astrea.common.paths import file_guard, is_file, read_json
from astrea.common.progress import SILENT, Reporter
from astrea.common.quiet import quiet
from astrea.confidence.estimator import ConfidenceEstimator, save_estimator
from astrea.data.feature_cache import FeatureCache
from astrea.data.worlds import open_world
from astrea.evaluation.forgetting import KEPT
from astrea.evaluation.own_data.confidence import estimator_of_records
from astrea.language.gguf_source import as_folder, pinned
from astrea.language.low_rank import merge
from astrea.model.components import components_folder
from astrea.recipes.recipe import Recipe
from astrea.recipes.saved import RECIPE
from astrea.training.acceleration import with_compiler
from astrea.training.agreement import learn_word_agreement
from astrea.training.assembly import Assembled, processor_of, random_weights, untrained_word_match
from astrea.training.checkpoint import Checkpoint
from astrea.training.context import TrainingContext
from astrea.training.distributed import Distributed, process_group
from astrea.training.identity import config_hash, refuse_another
from astrea.training.known_words import learn_known_words, name_known_words
from astrea.training.log import TrainLog
from astrea.training.plain_chat import most_chat, plain_chat
from astrea.training.plain_facts import recall_facts, report_forgetting
from astrea.training.plan import Plan, plan_stages
from astrea.training.resume import goes_on, has_checkpoints, newest, restore, start_alike
from astrea.training.run_folder import locked_folder, write_recipe
from astrea.training.sources import open_cache, training_data, validation_data
from astrea.training.stage_runner import Observe, StageRunner
from astrea.training.start import beginning
from astrea.training.stopping import stop_on_signal
from astrea.training.trainable import describe_model
from astrea.training.validation import Validation


def is_finished(recipe: Recipe, folder: Path) -> bool:
    """Whether this run's last step has been done, and its model and its times been written."""
    last = f"step-{sum(plan.schedule.steps for plan in plan_stages(recipe)):08d}"
    there = (folder / "checkpoints" / last / "manifest.json", folder / "model" / "config.json", folder / "seconds.json")
    return all(is_file(path) for path in there)


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    cache: Path | None = None,
    observe: Observe | None = None,
    report: Reporter = SILENT,
) -> Path:
    """Run every stage and write ``folder/model``; returns that path.

    Under torchrun the processes share the work (see `astrea.training.distributed`); each calls this with the same
    arguments but for ``report`` and ``observe``, and rank 0 alone writes.

    Args:
        resume: go on from the newest valid checkpoint (or start if there is none). When torchrun has restarted the
            processes of a run, they do so unasked.
        cache: where expert features are kept; ``folder.parent / "cache"`` by default.
        observe: called after every optimizer step, with gradients still there; its time is no training time. It must
            leave the context and the random state as they are.

    Raises:
        AstreaError: anything the user can correct, such as another run that is at work in the folder.
        Interrupted: SIGINT or SIGTERM; a checkpoint has been saved.
    """
    torch.set_num_threads(recipe.threads)
    recipe = recipe.model_copy(update={"llm": pinned(recipe.llm, report)})
    with process_group(recipe.runtime) as ranks, locked_folder(folder, ranks=ranks, report=report):
        train_with(ranks, recipe, folder, resume=resume, cache=cache, observe=observe, report=report)
        ranks.wait()
    return folder / "model"


def train_with(
    ranks: Distributed,
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    cache: Path | None = None,
    observe: Observe | None = None,
    report: Reporter = SILENT,
) -> None:
    """`train`, as one of some processes, with the folder locked."""
    recipe = with_compiler(recipe, ranks.device, report)
    plans = check_plans(recipe, ranks)
    found = checkpoint_of(recipe, folder, resume, ranks, report)
    clock = {} if found is None else dict(found.state["seconds"])
    kept = open_cache(recipe, cache or folder.parent / "cache")
    made, ctx = prepare(ranks, recipe, folder, clock, kept, report)
    known = recall_facts(ctx, report)
    ctx.chat = plain_chat(recipe, ctx.model, ctx.tokenizer, folder, cache=kept.folder, ranks=ranks, report=report)
    validation = validation_of(ctx, folder, kept, report)
    if found is not None:
        restore(ctx, found)
        if validation is not None:
            validation.load_state(found.state.get("validation") or validation.state())
        report.say(f"resuming from {found.path.name}")
    start_alike(ctx)
    name_known_words(ctx)
    left = plans if found is None else plans[int(found.state["stage"]) :]
    if recipe.align.kind == "contrast" and any(plan.name.startswith("align") for plan in left):
        # The language model is still what it started as, and as frozen as the experts.
        with timed(clock, "features"), ranks.main_first():
            ctx.keep_states(kept, report.track, report.say)
    shown = recipe.model_dump(mode="json")
    logging = TrainLog(folder, recipe.runtime.tracker, recipe.name, shown) if ranks.is_main else nullcontext()
    with logging as log, stop_on_signal(tells=ranks.is_main) as stopping:
        skipped = 0 if found is None else int(found.state.get("skipped", 0))
        if log is not None and (lost := log.truncate_after(0 if found is None else found.step, skipped)):
            report.say(lost)
        StageRunner(ctx, folder, clock, stopping, log, observe, validation, report, skipped).run(plans, found)
    if validation is not None and (best := validation.take_best()):
        report.say(best)
    ctx.model.eval()
    learn_known_words(ctx, report)
    learn_word_agreement(ctx, report)
    estimator = estimator_of_records(ctx, report)
    if ranks.is_main:
        write_finished(ctx, made, estimator, folder, clock, report)
        report_forgetting(ctx, known, folder, report)


def check_plans(recipe: Recipe, ranks: Distributed) -> list[Plan]:
    """The stages of a recipe.

    Raises:
        AstreaError: so many processes cannot share them.
    """
    if recipe.learning_experts and not ranks.single:
        raise AstreaError(
            f"{', '.join(recipe.learning_experts)} would learn in {ranks.world} processes, each with other pictures",
            "train with one process, or leave `experts` out of fuse.train and tune.train",
        )
    plans = plan_stages(recipe)
    for plan in plans:
        stage, size = plan.name.split("/")[0], plan.schedule.batch
        learns = "language_model" in getattr(recipe, stage).train
        ranks.check_share(size, f"{stage}.batch", most_chat(recipe.data.text_share, size) if learns else 0)
    return plans


def checkpoint_of(
    recipe: Recipe, folder: Path, resume: bool, ranks: Distributed, report: Reporter
) -> Checkpoint | None:
    """The checkpoint that a run goes on from; None at its start, which writes the recipe into ``folder``."""
    found = None
    if goes_on(folder, resume, ranks):
        if has_checkpoints(folder):
            refuse_another(recipe, folder / RECIPE)
        found = newest(folder, config_hash(recipe), ranks, report)
    if ranks.is_main and found is None:  # a folder with checkpoints keeps the recipe they belong to
        write_recipe(recipe, folder)
    return found


def prepare(
    ranks: Distributed, recipe: Recipe, folder: Path, clock: dict[str, float], cache: FeatureCache, report: Reporter
) -> tuple[Assembled, TrainingContext]:
    """What the stages start from: pretrained components, the model, the data with what the experts see in it."""
    components = components_folder(recipe.pretrain)
    if recipe.pretrain == "scratch":
        components = folder / "parts"
        with timed(clock, "pretrain"), ranks.main_first():
            if ranks.is_main:
                open_world(recipe).pretrain(components, report=report)
    with ranks.main_first():
        local = as_folder(recipe.llm, cache.folder, report) if recipe.start is None else recipe.llm
    made = load(recipe.model_copy(update={"llm": local}), components, folder if ranks.is_main else None, report)
    model, tokenizer, _ = made
    if recipe.distill is not None:
        with ranks.main_first():
            student = folder / "student"
            clock["distill"] = open_world(recipe).distill(
                model.experts, components, student, cache=cache, report=report
            )
    with timed(clock, "features"):
        data = training_data(recipe, model, tokenizer, ranks, cache=cache, report=report)
    give_back()  # what encoding has freed
    return made, TrainingContext(recipe, model, tokenizer, data, ranks)


@contextmanager
def timed(clock: dict[str, float], what: str) -> Iterator[None]:
    """Add the seconds that the body takes to an entry of a run's clock."""
    started = time.perf_counter()
    yield
    clock[what] = clock.get(what, 0.0) + time.perf_counter() - started


def load(recipe: Recipe, components: Path, folder: Path | None, report: Reporter) -> Assembled:
    """What the stages start from, and what is said of it; ``folder``: of the run, for the process that leads."""
    if invented := random_weights(recipe):
        report.say(invented)
    report.track("loading the model", 0, 1)
    made = beginning(recipe, components)
    report.track("loading the model", 1, 1)
    report.say(describe_model(made[0]))
    if lost := untrained_word_match(recipe, made[0].config.text_config):
        report.say(lost)
    report_language(made, folder, "assembled", report)
    return made


def validation_of(ctx: TrainingContext, folder: Path, cache: FeatureCache, report: Reporter) -> Validation | None:
    """What measures the held-out loss of a run in ``folder``, if its recipe names held-out data."""
    data = validation_data(ctx.recipe, ctx.model, ctx.tokenizer, ctx.ranks, cache=cache, report=report)
    return None if data is None else Validation(ctx, data, folder / "best")


def write_finished(
    ctx: TrainingContext,
    made: Assembled,
    estimator: ConfidenceEstimator | None,
    folder: Path,
    clock: dict[str, float],
    report: Reporter,
) -> None:
    """What a run leaves when its last step is done: the model and the seconds that everything took."""
    write_model(ctx, folder / "model")
    if estimator is not None:
        with file_guard(folder):
            save_estimator(estimator, folder / "model")
    report_language(made, folder, "trained", report)
    with file_guard(folder):
        write_json_atomic(folder / "seconds.json", {name: round(s, 2) for name, s in clock.items()})
    report.say(", ".join(filter(None, [f"trained: {folder / 'model'}", peak_text()])))


def report_language(made: Assembled, folder: Path | None, when: str, report: Reporter) -> None:
    """Say, and note in ``folder/language.json``, what a pretrained language model still says of plain sentences."""
    retention = made.retention()
    if retention is None:
        return
    report.say(f"{when}: {retention.sentence()}")
    if folder is not None:
        with file_guard(folder):
            path = folder / KEPT
            before = read_json(path) if is_file(path) and when != "assembled" else {}
            write_json_atomic(path, before | {when: retention.as_dict()})


def write_model(ctx: TrainingContext, folder: Path) -> None:
    """The finished model with its processor: one self-describing folder."""
    ctx.model.eval()
    language = ctx.recipe.llm
    if language.low_rank is not None and language.low_rank.merge:
        merge(ctx.model)
    with file_guard(folder), quiet():
        ctx.model.save_pretrained(folder)
        processor_of(ctx.model, ctx.tokenizer).save_pretrained(folder)
        (folder / "recipe.json").write_text(json.dumps(ctx.recipe.model_dump(), indent=2))
