"""What holds for every registered strategy, in a whole small model: it learns, batches as it does alone, and nothing of
an absent expert gets through. A strategy that is registered later is tested with the rest.
"""

from __future__ import annotations

import copy
import functools
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from astrea.data.packing import Turn
from astrea.evaluation.generate import Predictor
from astrea.fusion.protocol import Layout
from astrea.fusion.registry import STRATEGIES, build_strategy
from astrea.fusion.routing.policies import POLICIES as POLICY_NAMES
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import assemble
from astrea.training.context import TrainingContext
from astrea.training.loop import build_optimizer, run_steps
from astrea.training.stages.instruct import InstructObjective
from astrea.world.dataset import WorldData
from astrea.world.experts.truth import pixels_from_scenes
from astrea.world.language.pretraining import ideal_features
from astrea.world.scenes.captions import captions
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.questions import Balancer

POLICIES = {f"routed {name}": {"policy": name} for name in POLICY_NAMES if name != "soft"}
OPTIONS: dict[str, dict] = {"single": {"expert": "detection"}, **POLICIES}
"""What a strategy's constructor is told, if anything."""
OWN = {
    "random": {"second", "consistency"},
    "cascade": {"cascade", "predicted_confidence"},
    "grouped": {"auxiliary", "imbalance"},
}
"""What a routing policy tells the log beside what all do."""
SCENES = [split_scene("train", index, 0) for index in range(12)]

every_strategy = pytest.mark.parametrize("name", STRATEGIES)


@pytest.fixture(scope="module")
def world_data() -> WorldData:
    """Twelve scenes as faultless experts see them."""
    balancer, rng = Balancer(), random.Random(0)
    questions = [balancer.choose(scene, rng)[:3] for scene in SCENES]
    return WorldData(ideal_features(SCENES), questions, [captions(s, 3, i) for i, s in enumerate(SCENES)])


@pytest.fixture(scope="module")
def assembled(small_overrides: list[str]) -> Callable[[str], tuple]:
    """The recipe, a small model and the tokenizer of a strategy, assembled as a recipe would; each is made once."""

    @functools.cache
    def make(strategy: str) -> tuple:
        options = json.dumps(OPTIONS.get(strategy, {}))
        chosen = [f"model.strategy={strategy}", f"model.options={options}", "model.word_start=false", "align.steps=0"]
        recipe = load_recipe(Recipe, "tiny", small_overrides, then=chosen)
        return (recipe, *assemble(recipe, Path(recipe.pretrain)))

    return make


@pytest.fixture
def make_context(assembled: Callable[[str], tuple], world_data: WorldData) -> Callable[[str], TrainingContext]:
    """A small model with a strategy; nothing in its fusion is left at a zero start."""

    def make(name: str) -> TrainingContext:
        strategy = name.split()[0]
        recipe, model, tokenizer = copy.deepcopy(assembled(strategy))
        torch.manual_seed(1)
        if name in POLICIES:
            inner = model.model
            layout = Layout(
                inner.config.text_config.hidden_size, tuple(inner.experts.names), tuple(inner.alignment.counts), 2
            )
            inner.fusion = build_strategy(strategy, layout, POLICIES[name])
        with torch.no_grad():
            for parameter in model.fusion.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
        return TrainingContext(recipe, model.train(), tokenizer, world_data)

    return make


def fuse(ctx: TrainingContext) -> InstructObjective:
    return InstructObjective(ctx, "fuse", ctx.recipe.fuse, offset=0)


def check_gradients(ctx: TrainingContext) -> None:
    """A training step reaches all of the fusion."""
    objective = fuse(ctx)
    loss, _ = objective.loss(objective.batch(0, 0, 8), 0)
    loss.backward()
    assert loss.isfinite()
    for part, parameter in ctx.model.fusion.named_parameters():
        assert parameter.grad is not None, part
        assert parameter.grad.isfinite().all(), part
        assert parameter.grad.abs().sum() > 0, part


@every_strategy
def test_a_training_step_reaches_all_of_the_fusion_and_no_expert(name, make_context):
    ctx = make_context(name)
    check_gradients(ctx)

    # The experts themselves look now, and nothing but `encode_images` keeps the gradient from them.
    packed = ctx.packer.pack([[Turn("what colour is the cat?", "red")]] * 4)
    pixels = pixels_from_scenes(SCENES[:4])
    ctx.model.zero_grad()
    ctx.model(**packed.model_inputs(), pixel_values=pixels, use_cache=False).loss.backward()
    assert all(p.grad is None for p in ctx.model.experts.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in ctx.model.alignment.adapters.parameters())


@every_strategy
def test_a_few_real_steps_stay_finite_and_move_the_fusion(name, make_context):
    check_steps(make_context(name))


def check_steps(ctx: TrainingContext) -> dict[str, float]:
    """A few real steps stay finite and move the whole fusion. Returns what the log would say of the last."""
    objective, schedule = fuse(ctx), ctx.recipe.fuse.lasting(3)
    before = [p.clone() for p in ctx.model.fusion.parameters()]
    said: list[dict[str, float]] = []
    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=lambda step, f: said.append(f))
    assert len(said) == 3
    assert all(not torch.equal(a, b) for a, b in zip(before, ctx.model.fusion.parameters(), strict=True))
    return said[-1]


@every_strategy
def test_a_batch_says_what_each_of_its_rows_says_alone(name, make_context, world_data):
    check_rows(make_context(name), world_data)


@torch.no_grad()
def check_rows(ctx: TrainingContext, world_data: WorldData) -> None:
    """Questions of different lengths, pictures with different experts present."""
    model = ctx.model.eval()
    predictor = Predictor(model, ctx.tokenizer)
    asked = ["what colour is the cat?", "how many suns are there in the picture?", "is there a cow?"]
    present = torch.ones(3, 4, dtype=torch.bool)
    present[1, 0] = present[2, 2] = False

    def last(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = predictor.prompts(asked[rows], pictures=True)
        features = {expert: part.rows(slice(0, 3)).rows(rows) for expert, part in world_data.features.items()}
        out = model(**inputs, features=features, present=present[rows])
        return out.logits[:, -1], out.shares

    logits, shares = last(slice(0, 3))
    for row in range(3):
        alone, share = last(slice(row, row + 1))
        assert torch.allclose(alone[0], logits[row], atol=1e-4)
        assert torch.allclose(share[0], shares[row], atol=1e-5)
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@every_strategy
def test_nothing_of_an_absent_expert_gets_through(name, make_context, world_data):
    check_absent(name, make_context(name), world_data)


@torch.no_grad()
def check_absent(name: str, ctx: TrainingContext, world_data: WorldData) -> None:
    """Nothing of an absent expert gets through."""
    fusion = ctx.model.fusion.eval()
    whole = ctx.model.alignment({n: part.rows(slice(0, 4)) for n, part in world_data.features.items()})
    question = torch.randn(4, 1, whole.tokens.shape[-1], generator=torch.Generator().manual_seed(0))
    for expert, lost in enumerate(ctx.model.experts.names):
        present = torch.arange(4).ne(expert).expand(4, -1)
        mine = whole.expert == expert
        tokens, sure, places = whole.tokens.clone(), whole.confidence.clone(), whole.places.clone()
        tokens[:, mine], sure[:, mine], places[:, mine] = 30.0, 0.9, 0.5
        noisy = replace(whole, tokens=tokens, confidence=sure, places=places)
        one, two = (fusion(matrix.with_presence(present), question) for matrix in (whole, noisy))
        assert one.tokens.shape == (4, fusion.num_tokens, tokens.shape[-1])
        assert one.tokens.isfinite().all()
        assert torch.equal(one.valid, two.valid)
        assert torch.equal(one.tokens[one.valid], two.tokens[one.valid])
        assert torch.equal(one.shares, two.shares)
        assert one.shares[..., expert].eq(0).all()
        if one.bias is not None:
            assert torch.equal(one.bias.transpose(1, 2)[one.valid], two.bias.transpose(1, 2)[one.valid])
        shared = one.shares.sum(-1)
        if name == "astrea":  # which may leave some to nobody
            assert ((shared > 0) & (shared < 1)).all()
            continue
        # Whoever reads one expert only has nothing to share out when that one is lost.
        wanted = 0.0 if OPTIONS.get(name, {}).get("expert") == lost else 1.0
        assert torch.allclose(shared, torch.full((4, 1), wanted), atol=1e-5)


@pytest.mark.parametrize("name", POLICIES)
def test_all_of_this_holds_for_every_routing_policy(name, make_context, world_data):
    ctx = make_context(name)
    check_rows(ctx, world_data)
    check_absent(name, ctx, world_data)
    ctx.model.train()
    check_gradients(ctx)
    said = check_steps(ctx)
    assert 1 <= said["experts_read"] <= 4
    assert said["load_max_over_mean"] >= 1
    assert OWN.get(name.split()[1], set()) <= said.keys()
