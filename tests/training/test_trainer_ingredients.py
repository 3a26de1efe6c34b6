"""Every ingredient can be switched off by the recipe alone: where it is on, its code runs and changes what is learned;
where it is off, its code does not run.

The check itself is tested by mutation: with the ingredient's code turned into a no-op it must fail, and so it must with
a switch that does nothing.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.fusion.protocol import equal_shares
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.model import PHRASE_KEYS, Contrast, Model, Regularisation
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import assemble
from astrea.training.context import TrainingContext
from astrea.training.loop import build_optimizer, run_steps
from astrea.training.plan import plan_stages
from astrea.training.trainable import train_only
from astrea.training.trainer import train
from astrea.world.dataset import WorldData

SHORT = [
    *("experts={captioning: {kind: captioning}, detection: {kind: detection}}", "model.reliability=false"),
    *("align.steps=3", "fuse.steps=2", "tune.steps=1"),
]
FEW = {
    "astrea.fusion.reliability_loss:PICTURES": 8,
    "astrea.fusion.calibration:MEASURED": 4,
    "astrea.fusion.gate:BAND": 0.0,
}
"""Constants that make a run cheap, and the load bias move within it."""

Real = Callable[..., Any]


class Switch(NamedTuple):
    """One way to switch an ingredient off.

    off: the overrides. code: the functions that do its work, "module:name" or "module:Class.name". noop: makes of such
    a function one that leaves the ingredient's work undone. active: whether a call (its arguments) does the work; a
    function that is called in any case has arguments that say so. on: overrides that make it show within a few steps.
    """

    off: list[str]
    code: list[str]
    noop: Callable[[Real], Real]
    active: Callable[..., bool] = lambda *args, **kwargs: True
    on: tuple[str, ...] = ()


def gives(value: Any) -> Callable[[Real], Real]:
    """A no-op that returns the same whatever it is given."""
    return lambda real: lambda *args, **kwargs: value


def with_argument(place: int, value: Any) -> Callable[[Real], Real]:
    """The function as it is, one of its arguments replaced."""
    return lambda real: lambda *args, **kwargs: real(*args[:place], value, *args[place + 1 :], **kwargs)


def no_question(real: Real) -> Real:
    return lambda gate, question, *rest: real(gate, torch.zeros_like(question), *rest)


def no_confidence(real: Real) -> Real:
    return lambda gate, question, expert, sure, present: real(gate, question, expert, torch.zeros_like(sure), present)


def copied(real: Real) -> Real:
    def follow(contrast: Any, alignment: Any) -> None:
        with torch.no_grad():
            for slow, fast in zip(contrast.copy.parameters(), alignment.parameters(), strict=True):
                slow.copy_(fast)

    return follow


GATE, CONTRAST = "astrea.fusion.gate:Allocator", "astrea.training.losses.contrast"

SWITCHES: dict[str, Switch] = {
    "mixer": Switch(
        ["model.mixer=false"],
        ["astrea.fusion.mixer:Mixer.forward"],
        lambda real: lambda mixer, matrix, *rest: torch.zeros_like(matrix.tokens),
    ),
    "residual": Switch(
        ["model.residual=false"],
        ["astrea.fusion.mixer:StochasticResidual.forward"],
        lambda real: lambda residual, mixed, matrix, *rest: matrix.tokens + mixed,
    ),
    "gate": Switch(
        ["model.gate=false"],
        [f"{GATE}.forward"],
        lambda real: lambda gate, question, expert, sure, present: equal_shares(present, question.shape[1]),
    ),
    "question of the gate": Switch(
        ["model.gate_question=false"], [f"{GATE}.forward"], no_question, lambda gate, *rest: gate.use_question
    ),
    "confidence of the gate": Switch(
        ["model.gate_confidence=false"],
        [f"{GATE}.forward"],
        no_confidence,
        lambda gate, *rest: gate.from_confidence is not None,
        on=("model.gate_confidence=true",),
    ),
    "items of the gate": Switch(
        ["model.gate_targets=templates"],
        ["astrea.fusion.item_gate:ItemGate.forward"],
        lambda real: lambda gate, question, matrix: 0 * real(gate, question, matrix),
        on=("model.gate_targets=items",),
    ),
    "reliability": Switch(
        ["model.reliability=false"],
        ["astrea.fusion.astrea:reliability_loss"],
        gives(torch.zeros(())),
        on=("model.reliability=true",),
    ),
    "kinds of corruption": Switch(
        ["model.reliability_kinds=[]"],
        ["astrea.fusion.reliability_loss:corrupt_by_kind"],
        lambda real: lambda features, labels, expert, kinds, generator: (features, torch.full_like(expert, -1)),
        on=("model.reliability=true", "model.reliability_kinds=[mirrored, noise]"),
    ),
    "pruning": Switch(
        ["model.prune_share=0"],
        ["astrea.fusion.astrea:draw_thresholds"],
        lambda real: lambda bias, *rest: torch.full_like(bias[..., :1], -torch.inf),
        on=("model.prune_share=0.9",),
    ),
    "word match": Switch(
        ["model.word_match=0"],
        ["astrea.model.reading:word_match"],
        lambda real: lambda words, keys, gamma: 0 * real(words, keys, gamma),
    ),
    "word start": Switch(["model.word_start=false"], ["astrea.alignment.adapter:Adapter.start_at_words"], gives(None)),
    "queue": Switch(
        ["contrast.queue=0"], [f"{CONTRAST}:MomentumQueue.push"], gives(None), lambda queue, *rest: queue.size > 0
    ),
    "soft targets": Switch(
        ["contrast.soft_targets=0"],
        [f"{CONTRAST}:MomentumContrast.loss"],
        with_argument(6, 0.0),
        lambda *args, **kwargs: args[6] > 0,
    ),
    "momentum": Switch(
        ["contrast.momentum=0"],
        [f"{CONTRAST}:MomentumContrast.follow"],
        copied,
        lambda contrast, alignment: contrast.momentum > 0,
    ),
    "contribution": Switch(
        ["regularisation.contribution_every=0"],
        ["astrea.training.stages.step:InstructStep.leave_one_out"],
        lambda real: lambda step, rows: torch.zeros_like(real(step, rows)),
    ),
    "contribution's weight": Switch(
        ["tune.losses.contribution=0"],
        ["astrea.training.stages.step:InstructStep.leave_one_out"],
        lambda real: lambda step, rows: torch.zeros_like(real(step, rows)),
        lambda step, rows: step.name == "tune",
    ),
    "expert dropout": Switch(
        ["regularisation.expert_dropout=0"],
        ["astrea.training.stages.batch:draw_experts"],
        with_argument(2, 0.0),
        lambda count, experts, chance, generator: chance == 0.9,
        on=("regularisation.expert_dropout=0.9",),
    ),
    "corruption": Switch(
        ["regularisation.corruption=0"],
        ["astrea.training.stages.batch:draw_experts"],
        with_argument(2, 0.0),
        lambda count, experts, chance, generator: chance == 0.8,
        on=("regularisation.corruption=0.8",),
    ),
    "expert skipping": Switch(
        ["regularisation.expert_skipping=0"],
        ["astrea.training.stages.expert_skipping:split"],
        lambda real: lambda batch, skip, packer: batch,
        on=("regularisation.expert_skipping=1",),
    ),
    "load bias": Switch(
        ["regularisation.load_rate=0"],
        [f"{GATE}.update_load"],
        lambda real: lambda gate, shares, rate: real(gate, shares, rate=0.0),
        lambda gate, shares, rate: rate > 0,
        on=("regularisation.expert_dropout=0", "regularisation.corruption=0"),  # it learns of whole pictures
    ),
    "one at a time": Switch(
        ["align.progressive=false"],
        ["astrea.training.plan:align_phases"],
        lambda real: lambda recipe: [None],
        lambda recipe: recipe.align.progressive,
    ),
    "word loss": Switch(
        ["align.losses.word=0"], ["astrea.training.losses.alignment:CaptionWords.__call__"], gives(None)
    ),
    "contrast": Switch(
        ["align.losses.itc=0", "fuse.losses.itc=0", "tune.losses.itc=0"],
        [
            "astrea.training.losses.alignment:PictureCaptionContrast.__call__",
            "astrea.training.losses.fused_contrast:FusedContrast.__call__",
        ],
        gives(None),
    ),
    "agreement": Switch(
        ["align.losses.agree=0"], ["astrea.training.losses.alignment:AlignedAgreement.__call__"], gives(None)
    ),
    "alignment": Switch(
        ["align.steps=0"], ["astrea.training.stages.align:AlignObjective.loss"], gives((torch.zeros(()), {}))
    ),
}


class Outcome(NamedTuple):
    """What a short run has learned, and how often each ingredient's code did its work."""

    learned: dict[str, Tensor]
    calls: Counter[str]


def is_same(one: Outcome, other: Outcome) -> bool:
    return one.learned.keys() == other.learned.keys() and all(
        torch.equal(value, other.learned[name]) for name, value in one.learned.items()
    )


def check(name: str, on: Outcome, without: Outcome, off: Outcome) -> None:
    """What must hold of an ingredient.

    Args:
        on: with it. without: with it, but with its code a no-op. off: switched off.
    """
    assert on.calls[name], "its code does not run where it is on"
    assert not is_same(on, without), "its code changes nothing"
    assert not off.calls[name], "its code runs where it is off"
    assert not is_same(on, off), "switching it off changes nothing"


Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def outcome(small_recipe: Path, world_data: WorldData) -> Run:
    """Trains in memory, by the stages of a real run; what has been run is remembered."""
    names = ("captioning", "detection")
    features = {name: world_data.features[name].rows(slice(0, 24)) for name in names}
    data = WorldData(features, world_data.questions[:24], world_data.captions[:24])

    @functools.cache
    def run(
        on: tuple[str, ...], off: tuple[str, ...] = (), noop: str | None = None, name: str | None = None
    ) -> Outcome:
        calls: Counter[str] = Counter()
        recipe = load_recipe(Recipe, str(small_recipe) if name is None else name, [*SHORT, *on], then=off)
        with contextlib.ExitStack() as patches:
            for name, few in FEW.items():
                patches.enter_context(replaced(name, lambda real, few=few: few))
            for name, switch in SWITCHES.items():
                for code in switch.code:
                    patches.enter_context(replaced(code, lambda real, n=name: counted(n, real, calls, noop == n)))
            return Outcome(trained(recipe, data), calls)

    return run


def counted(name: str, real: Real, calls: Counter[str], noop: bool) -> Real:
    """A function that counts when it does an ingredient's work, and leaves the work undone if ``noop``."""
    switch = SWITCHES[name]
    function = switch.noop(real) if noop else real

    def call(*args: Any, **kwargs: Any) -> Any:
        calls[name] += bool(switch.active(*args, **kwargs))
        return function(*args, **kwargs)

    return call


def replaced(target: str, wrapper: Callable[[Any], Any]) -> Any:
    """A patch of "module:name" or "module:Class.name", made of what is there."""
    module, _, names = target.partition(":")
    *inner, name = names.split(".")
    holder: Any = importlib.import_module(module)
    for each in inner:
        holder = getattr(holder, each)
    return mock.patch.object(holder, name, wrapper(getattr(holder, name)))


def trained(recipe: Recipe, data: WorldData) -> dict[str, Tensor]:
    torch.manual_seed(recipe.seed)
    model, tokenizer = assemble(recipe, Path(recipe.pretrain))
    ctx = TrainingContext(recipe, model.train(), tokenizer, data)
    for plan in plan_stages(recipe):
        objective = plan.build(ctx)
        train_only((p for _, p, _ in objective.trainable()), (ctx.model, ctx.contrast, ctx.words))
        run_steps(
            objective, plan.schedule, build_optimizer(objective, plan.schedule), on_step=lambda step, figures: False
        )
    return {name: value.clone() for name, value in model.state_dict().items() if ".experts." not in name}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_ingredient_runs_and_matters_where_it_is_on_and_is_not_run_where_it_is_off(name: str, outcome: Run):
    switch = SWITCHES[name]
    on, without, off = outcome(switch.on), outcome(switch.on, noop=name), outcome(switch.on, tuple(switch.off))
    check(name, on, without, off)
    with pytest.raises(AssertionError, match="its code changes nothing"):
        check(name, without, without, off)  # a mutant: the ingredient's code does nothing
    with pytest.raises(AssertionError, match="its code runs where it is off"):
        check(name, on, without, on)  # a mutant: the switch does nothing


NO_SWITCHES = {
    "model": {"strategy", "options", "findings", "contrast_width", "adapter_hidden", "gate_tau"}
    | {"residual_start", "residual_end"}
    # Of what is loaded, and read at evaluation: tests/training/test_components.py, tests/fusion/test_pruning.py,
    # tests/training/test_agreement_of_run.py.
    | {"pretrained_llm", "keep_threshold", "agreement"},
    "contrast": {"temperature"},
    # Of findings that are phrases: tests/training/test_trainer_phrases.py, tests/alignment/test_known_words.py.
    "regularisation": set(PHRASE_KEYS),
}


def test_every_key_of_these_parts_is_in_the_table_or_is_no_switch():
    there = {word.partition("=")[0] for switch in SWITCHES.values() for word in switch.off}
    for part, model in {"model": Model, "contrast": Contrast, "regularisation": Regularisation}.items():
        assert {f"{part}.{key}" for key in set(model.model_fields) - NO_SWITCHES[part]} <= there


PAPER = {
    "one at a time",
    "word loss",
    "contrast",
    "agreement",
    "queue",
    "momentum",
    "soft targets",
    "mixer",
    "residual",
} | {*("gate", "question of the gate", "contribution", "load bias", "word start", "alignment", "expert dropout")}
"""What the abstract names, and what it needs."""


def test_the_recipe_paper_has_all_on_that_the_abstract_names(small_overrides: list[str], outcome: Run):
    """Only its size is changed here."""
    sizes = ("llm.", "model.contrast_width", "model.adapter_hidden", "data.", "pretrain", "threads")
    small = [word for word in small_overrides if word.startswith(sizes) or ".batch=" in word or ".warmup=" in word]
    small += ["regularisation.contribution_every=2", "regularisation.expert_dropout=0.9"]
    ran = {
        recipe: {name for name, calls in outcome(tuple(small), name=recipe).calls.items() if calls}
        for recipe in ("paper", "tiny")
    }
    assert ran["paper"] >= PAPER
    assert ran["paper"] - ran["tiny"] == {"residual", "queue", "agreement"}


def test_a_run_with_all_of_it_off_is_trained_saved_and_loaded(small_recipe: Path, tmp_path: Path):
    idle = (
        "question of the gate",
        "confidence of the gate",
        "items of the gate",
        "kinds of corruption",
    )  # where there is no gate
    words = [word for name in SWITCHES if name not in idle for word in SWITCHES[name].off]
    recipe = load_recipe(Recipe, str(small_recipe), SHORT, then=words)
    train(recipe, tmp_path / "run", report=Reporter())
    tensors = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in tensors.values())
    assert not any(part in name for name in tensors for part in ("mixer", "allocator", "trust", "segmentation"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == ["fuse", "fuse", "tune"]
    model, _ = load_model(tmp_path / "run" / "model")
    assert model.experts.names == ["captioning", "detection"]


def test_a_stage_without_any_loss_is_an_error(small_recipe: Path, tmp_path: Path):
    recipe = load_recipe(Recipe, str(small_recipe), ["align.losses={agree: 0.1}"])
    with pytest.raises(AstreaError, match="align has no loss"):
        train(recipe, tmp_path / "lossless", report=Reporter())
