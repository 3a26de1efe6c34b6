"""Distilling several frozen experts into one student, before the first stage of a run.

After RADIO (arXiv 2312.06709): the student sees the pictures and predicts every teacher's features through a head of
that teacher's own, which is thrown away afterwards. The loss is mostly a cosine, with some smooth L1 for magnitudes.

What differs, and why. Teachers here say slots, not a grid: a head has a learned query per slot, which reads all of the
student's tokens, and also says whether the slot is filled. Targets are standardised per channel over the training
pictures, so that one loss means the same for every teacher and all can weigh alike (RADIO's successor does so with
rotated channels, arXiv 2410.01680). Pictures are not augmented: the targets are the cached features of just these.

Letters: B pictures, S student tokens, U student width, T slots of a teacher, C its width, F filled slots of a batch.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file, write_json_atomic
from astrea.common.fingerprint import tensors_fingerprint
from astrea.common.paths import exists, file_guard
from astrea.common.progress import SILENT, Reporter
from astrea.common.seeds import sample_indices
from astrea.data.feature_cache import FeatureCache
from astrea.experts.bank import ExpertBank
from astrea.experts.pretrained.entry import resolve
from astrea.experts.protocol import Expert, ExpertFeatures
from astrea.experts.source_hash import source_hash
from astrea.model.components import CARD, load_component, read_card, save_component
from astrea.recipes.recipe import Distill, Recipe
from astrea.training.assembly import load_experts
from astrea.training.loop import Objective, build_optimizer, run_steps
from astrea.training.partial_checkpoint import PartialCheckpoint
from astrea.training.stopping import Interrupted, how_to_go_on, stop_on_signal
from astrea.world.dataset import cached_features, train_scenes, training_split
from astrea.world.experts.truth import pixels_from_scenes
from astrea.world.scenes.scene import Scene

COSINE, MAGNITUDE = 0.9, 0.1
"""Weights of the cosine and of the smooth L1, as in RADIO."""
HEAD_WIDTH = 96
STUDENT = "student"


class AdaptorHead(nn.Module):
    """Student tokens (B, S, U) -> one teacher's standardised tokens (B, T, C) and the logits (B, T) of filled slots."""

    def __init__(self, student_width: int, slots: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(slots, HEAD_WIDTH) * 0.1)
        self.read = nn.MultiheadAttention(HEAD_WIDTH, 4, kdim=student_width, vdim=student_width, batch_first=True)
        self.say = nn.Sequential(
            nn.LayerNorm(HEAD_WIDTH),
            nn.Linear(HEAD_WIDTH, 2 * HEAD_WIDTH),
            nn.GELU(),
            nn.Linear(2 * HEAD_WIDTH, width + 1),
        )

    def forward(self, tokens_BSU: Tensor) -> tuple[Tensor, Tensor]:
        queries_BTH = self.queries.expand(len(tokens_BSU), -1, -1)
        found_BTH = queries_BTH + self.read(queries_BTH, tokens_BSU, tokens_BSU, need_weights=False)[0]
        said = self.say(found_BTH)
        return said[..., :-1], said[..., -1]


def spread(features: ExpertFeatures) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C,) of every channel over the filled slots.

    A channel that does (next to) not vary gets a deviation of 1: there is nothing to tell in it, and dividing by
    almost nothing would make a loud target of rounding errors.
    """
    filled_FC = features.tokens[features.confidence > 0]
    if not len(filled_FC):
        return torch.zeros(filled_FC.shape[1]), torch.ones(filled_FC.shape[1])
    deviation_C = filled_FC.std(0, unbiased=False)
    return filled_FC.mean(0), torch.where(deviation_C > 1e-3 * deviation_C.max(), deviation_C, 1.0)


class DistillObjective(Objective):
    """The student learns to say what the teachers said of the same pictures; every teacher weighs alike.

    Args:
        teachers: each teacher's features of all ``scenes``, in their order.
    """

    def __init__(
        self, student: Expert, teachers: Mapping[str, ExpertFeatures], scenes: Sequence[Scene], seed: int
    ) -> None:
        # Channels last: faster convolutions on the processor.
        self.student = student.requires_grad_(True).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teachers, self.scenes, self.seed = teachers, scenes, seed
        self.heads = nn.ModuleDict(
            {name: AdaptorHead(student.width, *part.tokens.shape[1:]) for name, part in teachers.items()}
        )
        self.spread = {name: spread(part) for name, part in teachers.items()}

    def trainable(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        yield from ((f"student.{name}", p, 1.0) for name, p in self.student.named_parameters())
        yield from ((f"heads.{name}", p, 1.0) for name, p in self.heads.named_parameters())

    def batch(self, step: int, micro: int, size: int) -> Tensor:
        """Which scenes (B,). There is one micro-step per step."""
        return sample_indices(len(self.scenes), size, step * size, self.seed)

    def loss(self, batch: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
        pixels_B3HW = pixels_from_scenes([self.scenes[i] for i in batch.tolist()])
        tokens_BSU = self.student(pixels_B3HW.contiguous(memory_format=torch.channels_last)).tokens
        parts = {name: self.teacher_loss(name, part.rows(batch), tokens_BSU) for name, part in self.teachers.items()}
        return torch.stack(list(parts.values())).mean(), {name: part.item() for name, part in parts.items()}

    def teacher_loss(self, name: str, wanted: ExpertFeatures, tokens_BSU: Tensor) -> Tensor:
        """Cosine and smooth L1 over the filled slots, and binary cross-entropy of which slots are filled."""
        said_BTC, logit_BT = self.heads[name](tokens_BSU)
        filled_BT = wanted.confidence > 0
        mean_C, deviation_C = self.spread[name]
        # What an empty slot holds means nothing and may be anything, not a number even: it is never touched.
        target_FC, said_FC = (wanted.tokens[filled_BT] - mean_C) / deviation_C, said_BTC[filled_BT]
        away_F = 1 - F.cosine_similarity(said_FC, target_FC, dim=-1)
        off_F = F.smooth_l1_loss(said_FC, target_FC, reduction="none").mean(-1)
        tokens = (COSINE * away_F + MAGNITUDE * off_F).sum() / max(1, len(target_FC))
        return tokens + F.binary_cross_entropy_with_logits(logit_BT, filled_BT.to(logit_BT.dtype))

    def describe(self, batch: Tensor) -> str:
        return "train scenes " + ", ".join(map(str, batch[:6].tolist())) + " ..."


def teach(
    recipe: Recipe,
    plan: Distill,
    experts: ExpertBank,
    components: Path,
    folder: Path,
    *,
    cache: FeatureCache,
    report: Reporter = SILENT,
) -> float:
    """Fill the student among ``experts`` with what its teachers can teach it; returns the seconds that this took.

    A student that lies in ``folder`` and was taught from the same is used again. Taught now or found, its weights come
    out of the file (fp16, as all parts), so that a resumed run has the same bits. A signal stops the teaching after a
    step; where it was is kept beside the student until that is taught. One that is killed begins to teach anew.

    Args:
        components: where the teachers' weights are.
        folder: where the student is kept, with a card that says from what it was taught and what its bytes are.

    Raises:
        AstreaError: a teacher cannot be built or loaded, the loss is not finite, or ``folder`` cannot be written.
        Interrupted: SIGINT or SIGTERM; what was learned so far has been saved.
    """
    entries = {name: resolve(name, entry) for name, entry in plan.teachers.items()}
    teachers = ExpertBank(entries, allow_import=True)
    load_experts(teachers, plan.teachers, components)
    student = experts[plan.student]
    origin = {
        "distill": plan.model_dump(mode="json"),
        "student": recipe.experts[plan.student].model_dump(mode="json"),
        "source": source_hash(type(student)),
        "teachers": tensors_fingerprint(teachers.state_dict()),
        "world": recipe.world.model_dump(mode="json"),
        "scenes": recipe.data.train_scenes,
        "seed": recipe.seed,
    }
    seconds = taught_before(student, folder, origin, report)
    if seconds is not None:
        return seconds
    started = time.perf_counter()
    scenes = train_scenes(recipe.world, recipe.data.train_scenes, report.track)
    which = training_split(recipe.world, recipe.data.train_scenes)
    features = cached_features(teachers, scenes, which, cache=cache, progress=report.track, notify=report.say)
    # A copy learns, and what is random stays in here: the rest of the run must not see whether there was teaching.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        objective = DistillObjective(copy.deepcopy(student), features, scenes, recipe.seed)
        partial = PartialCheckpoint(folder, origin)
        with stop_on_signal() as stopping:
            figures, before = fit(objective, plan, partial, started, stopping, report)
            seconds = time.perf_counter() - started + before
            keep(objective.student, folder, {"origin": origin, "seconds": seconds, "loss": figures})
            partial.remove()
        if stopping():
            raise Interrupted(f"stopped after distilling; {how_to_go_on(folder.parent)}")
    load_component(student, folder, STUDENT)
    return seconds


def keep(student: nn.Module, folder: Path, card: dict[str, Any]) -> None:
    """Write the student and, after its weights, the card that says that they are whole."""
    path = folder / f"{STUDENT}.safetensors"
    with file_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_component(student, path)
        write_json_atomic(folder / CARD, card | {"sha256": {STUDENT: sha256_file(path)}})


def taught_before(student: Expert, folder: Path, origin: dict[str, Any], report: Reporter) -> float | None:
    """Load a student of the same origin and return the seconds that it took to teach; None where there is none."""
    if not exists(folder / CARD):
        return None
    try:
        card = read_card(folder)
        if card.get("origin") != json.loads(json.dumps(origin)):
            return None
        load_component(student, folder, STUDENT)
    except AstreaError as error:
        report.say(f"the student cannot be used again ({error.message}); it is taught anew")
        return None
    return float(card["seconds"])


def fit(
    objective: DistillObjective,
    plan: Distill,
    partial: PartialCheckpoint,
    started: float,
    stopping: Callable[[], bool],
    report: Reporter,
) -> tuple[dict[str, float], float]:
    """Run the schedule, from where it was stopped if it was; returns the last step's loss, in all and per teacher, and
    the seconds that were spent before.

    Args:
        started: when this process began, by `time.perf_counter`.
        stopping: whether somebody has asked for a stop.

    Raises:
        Interrupted: they have; what the next step needs has been saved.
    """
    schedule = plan.schedule()
    optimizer = build_optimizer(objective, schedule)
    learning = nn.ModuleDict({"student": objective.student, "heads": objective.heads})
    start, before = partial.restore(learning, optimizer, schedule.steps, report)
    last: dict[str, float] = {}

    def on_step(step: int, figures: dict[str, float]) -> None:
        last.update({name: figures[name] for name in ("loss", *objective.teachers)})
        report.track("distill", step + 1, schedule.steps, f"loss {figures['loss']:.3f}")
        if step + 1 < schedule.steps and stopping():
            partial.save(learning, optimizer, step + 1, time.perf_counter() - started + before)
            raise Interrupted(f"stopped at distill, step {step + 1}; {how_to_go_on(partial.folder.parent.parent)}")

    run_steps(objective, schedule, optimizer, start=start, on_step=on_step)
    return last, before
