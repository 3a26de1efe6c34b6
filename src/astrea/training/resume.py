"""What a checkpoint of a run holds, and whether and from where a run goes on."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.fingerprint import tensors_fingerprint
from astrea.common.paths import file_guard, is_file, is_folder, list_folder
from astrea.common.progress import Reporter
from astrea.training.checkpoint import Checkpoint, load_checkpoint, set_rng_state
from astrea.training.context import TrainingContext
from astrea.training.distributed import Distributed, restarts
from astrea.training.fsdp import gathered

MARK = "elastic"
"""File in a run folder that names the torchrun job the run belongs to: that job's restarts go on by themselves."""

START, RESUME, REFUSE = range(3)


def has_checkpoints(folder: Path) -> bool:
    """Whether a run in ``folder`` has got as far as its first checkpoint."""
    steps = folder / "checkpoints"
    return is_folder(steps) and any(path.name.startswith("step-") for path in list_folder(steps))


def goes_on(folder: Path, resume: bool, ranks: Distributed) -> bool:
    """Whether to go on from a checkpoint: when asked to, or when torchrun has restarted the processes of this run.

    A restart is one of the same job. A *first* start in a folder with checkpoints is refused and remembered, or else a
    restart after the refusal would quietly continue somebody's old run.

    Raises:
        AstreaError: there are checkpoints, and nobody said to go on.
    """
    # Rank 0 decides alone: others might see its own mark already.
    choice = ranks.from_leader(decide(folder, resume) if ranks.is_main else START)
    if choice == REFUSE:
        raise AstreaError(
            f"{folder} already holds a run's checkpoints", "continue it with --resume, or choose another folder"
        )
    return choice == RESUME


def decide(folder: Path, resume: bool) -> int:
    """`goes_on`, as the process that leads sees it; marks the folder."""
    job = os.environ.get("TORCHELASTIC_RUN_ID")
    mark = folder / MARK
    with file_guard(folder):
        known = mark.read_text() if is_file(mark) else None
        # When machines join or leave, torchrun restarts without counting; jobs that this can happen to have a name.
        again = job is not None and known == job and (restarts() or job != "none")
        start = REFUSE if has_checkpoints(folder) else START
        choice = RESUME if resume or again else start
        if choice == REFUSE:
            mark.unlink(missing_ok=True)
        elif job is not None:
            mark.write_text(job)
    return choice


def newest(folder: Path, digest: str, ranks: Distributed, report: Reporter) -> Checkpoint | None:
    """The checkpoint to go on from, the same one on every rank.

    Raises:
        AstreaError: as `load_checkpoint`; or the processes do not all read the same one.
    """
    found = load_checkpoint(folder / "checkpoints", config_hash=digest, on_warning=report.say)
    step = -1 if found is None else found.step
    if ranks.any(step != ranks.from_leader(step)):
        raise AstreaError(
            f"the processes do not see the same checkpoints in {folder}",
            "put the run folder where every machine sees it under the same path",
        )
    return found


def snapshot(ctx: TrainingContext) -> dict[str, dict[str, Tensor]]:
    """Every tensor of a run that moves: the model without the experts that stay, the momentum copy, the queue, ...

    Every rank must ask, since what is sharded is gathered; only rank 0 gets all of it.
    """
    frozen = {f"model.experts.{name}" for name in frozen_experts(ctx)}
    model = {k: v for k, v in ctx.model.state_dict().items() if k not in frozen}
    contrast = {k: v for k, v in ctx.contrast.state_dict().items() if not k.startswith("queue.")}
    return {
        "model": gathered(model, ctx.ranks.is_main),
        "momentum": contrast,
        "queue": ctx.contrast.queue.state_dict(),
        "words": ctx.words.state_dict(),
        "strategy": ctx.model.fusion.training_state(),
    }


def frozen_experts(ctx: TrainingContext) -> dict[str, Tensor]:
    """The tensors of the experts that stay as they are in all of the run, by their name in the bank."""
    learners = tuple(f"experts.{name}." for name in ctx.recipe.learning_experts)
    state = ctx.model.experts.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith(learners)}


def restore(ctx: TrainingContext, found: Checkpoint) -> None:
    """Put a snapshot back."""
    # Experts that stay are not in the checkpoint: what was learned is only worth something with the same ones.
    frozen = frozen_experts(ctx)
    if found.state["experts"] != tensors_fingerprint(frozen):
        raise AstreaError(
            f"{found.path}: was written with other experts than those that are there now",
            "restore the parts or checkpoints that the run was started with, or start a new run in another folder",
        )
    missing, unexpected = ctx.model.load_state_dict(found.tensors["model"], strict=False)
    if unexpected or set(missing) - {f"model.experts.{name}" for name in frozen}:
        raise AstreaError(f"{found.path}: is of another model", "resume with the recipe that wrote it")
    ctx.contrast.load_state_dict(found.tensors["momentum"], strict=False)
    ctx.contrast.queue.load_state_dict(found.tensors["queue"])
    ctx.words.load_state_dict(found.tensors["words"])
    ctx.model.fusion.load_training_state(found.tensors.get("strategy", {}))
    set_rng_state(found.state["rng"])


def start_alike(ctx: TrainingContext) -> None:
    """Give every rank what rank 0 starts from.

    Raises:
        AstreaError: the ranks have other experts, so their features are not the same either.
    """
    ranks, model = ctx.ranks, ctx.model
    if ranks.single:
        return
    hint = "install the same version of everything on every machine, and give them the same parts"
    ranks.check_equal(tensors_fingerprint(model.experts.state_dict()), "experts", hint)
    moves = {name: value for name, value in model.state_dict().items() if not name.startswith("model.experts.")}
    for tensors in (moves, ctx.contrast.state_dict(), ctx.words.state_dict()):
        ranks.broadcast(tensors.values())
        ranks.check_equal(tensors_fingerprint(tensors), "weights", hint)
    ranks.check_equal(tensors_fingerprint(ctx.model.fusion.training_state()), "state of the fusion strategy", hint)
