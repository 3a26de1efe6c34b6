"""Runs jobs on several processes each, one job after another; a script of its own, for test_distributed.py.

    python many_processes.py JOBS.json

Every process is a fork of this one, so that the library is imported once. Prints how the processes of each job ended:
the exit status, or minus the signal's number.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.data.packing import CAPTION_PROMPT, Packer, Turn
from astrea.experts.protocol import ExpertFeatures
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import assemble
from astrea.training.distributed import process_group
from astrea.training.fsdp import full_tensor, sharded
from astrea.training.loop import Objective, build_optimizer, run_steps
from astrea.training.stopping import Interrupted
from astrea.training.trainer import train

SECONDS = 100
"""After which a job's processes are killed: one that hangs must fail, and not hang the tests."""

STOPPED, REFUSED = 30, 31
"""Exit statuses of a run that saved and stopped, and of one that met an error of the user's."""


def trained(job: dict[str, Any]) -> None:
    """Train; at an optimizer step, one rank may send itself a signal (in the first life of the processes only)."""
    recipe = load_recipe(Recipe, job["recipe"], job.get("overrides", []))
    taken = 0
    state = torch.empty(0)

    def observe(*_: Any) -> None:
        nonlocal taken, state
        taken += 1
        before, state = state, torch.get_rng_state()
        if taken > 1 and not torch.equal(before, state):
            Path(f"{job['folder']}.drew").touch()
        first = not int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
        if first and taken == job.get("at") and int(os.environ["RANK"]) == job["rank"]:
            os.kill(os.getpid(), job["signal"])

    train(recipe, Path(job["folder"]), resume=job.get("resume", False), observe=observe, report=Reporter())


class Mixed(Objective):
    """Rows with a picture and rows without, every rank its share of them: text only on some ranks."""

    def __init__(self, job: dict[str, Any], ranks: Any) -> None:
        self.ranks = ranks
        recipe = load_recipe(Recipe, job["recipe"])
        self.model, tokenizer = assemble(recipe, Path(recipe.pretrain))
        self.packer = Packer(tokenizer, self.model.num_visual_tokens)
        generator = torch.Generator().manual_seed(1)
        self.features = {
            name: ExpertFeatures(
                torch.rand(4, self.model.experts[name].num_tokens, self.model.experts[name].width, generator=generator),
                torch.rand(4, self.model.experts[name].num_tokens, generator=generator),
            )
            for name in self.model.experts.names
        }

    def trainable(self):
        for part in ("alignment.adapters", "fusion", "language_model"):
            module = self.model.get_submodule(part)
            yield from ((f"{part}.{name}", p, 1.0) for name, p in module.named_parameters())

    def batch(self, step, micro, size):
        """Step 0: text only on the first half of the rows; step 1: on all of them."""
        return [step == 0 and row >= size // 2 for row in range(size)]

    def loss(self, batch, step):
        own = self.ranks.local_slice(len(batch))
        total = 0.0
        for row in range(own.start, own.stop):
            turns = [Turn(CAPTION_PROMPT, f"a red cat {'and a sun ' * (row % 2)}.")]
            packed = self.packer.pack([turns], pictures=batch[row])
            seen = {n: part.rows(slice(row % 4, row % 4 + 1)) for n, part in self.features.items()}
            out = self.model(**packed.model_inputs(), features=seen if batch[row] else None, use_cache=False)
            total = total + out.loss / len(batch)
        return total, {"rows": float(own.stop - own.start)}


def mixed(job: dict[str, Any]) -> None:
    """Two steps of `Mixed`; rank 0 writes every gradient of each."""
    recipe = load_recipe(Recipe, job["recipe"])
    torch.set_num_threads(1)
    with process_group(recipe.runtime) as ranks:
        objective = Mixed(job, ranks)
        for parameter in objective.model.experts.parameters():
            parameter.requires_grad_(False)
        schedule = recipe.tune.lasting(2)
        with sharded(objective.model, ranks, job.get("fsdp", False)):

            def on_step(step: int, figures: dict[str, float]) -> None:
                found = {n: full_tensor(p.grad) for n, p, _ in objective.trainable() if p.grad is not None}
                if ranks.is_main:
                    save_file({n: g.contiguous() for n, g in found.items()}, f"{job['folder']}-{step}.safetensors")

            run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=on_step, ranks=ranks)


KINDS: dict[str, Callable[[dict[str, Any]], None]] = {"trained": trained, "mixed": mixed}


def in_a_process(job: dict[str, Any]) -> None:
    try:
        KINDS[job.get("kind", "trained")](job)
    except Interrupted:
        os._exit(STOPPED)
    except AstreaError as error:
        Path(f"{job['folder']}.error").write_text(str(error))
        os._exit(REFUSED)


def forked(job: dict[str, Any]) -> list[int]:
    """Run a job on ``world`` forks of this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = job["world"]
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank),
                              WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))  # fmt: skip
            in_a_process(job)
            os._exit(0)
        children.append(child)
    ends: dict[int, int] = {}
    deadline = time.monotonic() + SECONDS
    while len(ends) < world:
        for child in set(children) - ends.keys():
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                ends[child] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline or any(ends.values()):
            # As torchrun does, but with a moment for the others to end in the same way.
            deadline = min(deadline, time.monotonic() + 5)
            if time.monotonic() > deadline - 0.1:
                for child in set(children) - ends.keys():
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return [ends[child] for child in children]


def elastic(job: dict[str, Any]) -> list[int]:
    """Run a job as torchrun does, which starts all processes again when one dies, so many times."""
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=job["world"], max_restarts=job["restarts"], start_method="fork",
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id="tests", monitor_interval=0.1,
    )  # fmt: skip
    elastic_launch(config, in_a_process)(job)
    return [0] * job["world"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = {}
    for name, one in json.loads(Path(sys.argv[1]).read_text()).items():
        began = time.monotonic()
        result[name] = (elastic if "restarts" in one else forked)(one)
        print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    print(json.dumps(result))
