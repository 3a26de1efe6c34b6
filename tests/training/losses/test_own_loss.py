"""Losses of other packages, through recipe lines alone: the example, and errors that name what is wrong."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.losses.protocol import AlignLoss, AlignStep
from astrea.training.stages.align import AlignObjective
from astrea.training.stages.instruct import InstructObjective
from repository import EXAMPLES

NAME = "answer_entropy:AnswerEntropy"


class PooledSize(AlignLoss):
    """Mean square of the pooled picture."""

    def __call__(self, step: AlignStep) -> torch.Tensor:
        return step.picture.square().sum() / len(step.captions.tokens)


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = ModuleType("pooled_size")
    module.PooledSize = PooledSize
    monkeypatch.setitem(sys.modules, "pooled_size", module)


def tuning(ctx) -> InstructObjective:
    return InstructObjective(ctx, "tune", ctx.recipe.tune, offset=0)


@pytest.mark.usefixtures("examples")
def test_the_example_is_the_entropy_of_the_answers_and_learns(make_context):
    ctx = make_context(tune__losses={"lm": 1.0, NAME: 0.5}, regularisation={"expert_dropout": 0.0})
    objective = tuning(ctx)
    batch = objective.batch(0, 0, 4)
    loss, parts = objective.loss(batch, 0)
    assert set(parts) == {"lm", NAME}
    with torch.no_grad():
        features = ctx.encode(batch.samples)
        logits = ctx.model(**batch.packed.model_inputs(), features=features, present=batch.present).logits
    entropy = torch.distributions.Categorical(logits=logits[:, :-1]).entropy()
    weight = (batch.packed.labels[:, 1:] != -100) * batch.packed.label_weights[:, 1:]
    assert parts[NAME] == pytest.approx(-0.5 * float((entropy * weight).sum() / weight.sum()), rel=1e-3)
    ctx.model.zero_grad()
    (loss - parts["lm"]).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in ctx.model.language_model.parameters())


@pytest.mark.usefixtures("examples")
def test_align_takes_a_loss_of_its_own_kind(make_context):
    ctx = make_context(align__losses={"word": 1.0, "pooled_size:PooledSize": 0.5})
    objective = AlignObjective(ctx, joining="classification", aligned=["captioning"], offset=0)
    _, parts = objective.loss(objective.batch(0, 0, 4), 0)
    # What is pooled has length 1.
    assert parts["pooled_size:PooledSize"] == pytest.approx(0.5, rel=1e-4)


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pooled_size:PooledSize", "is not a subclass of .*InstructLoss"),
        ("answer_entropy:Nothing", "no attribute 'Nothing'"),
        ("no_such_module:Loss", "No module named 'no_such_module'"),
    ],
)
def test_what_is_no_loss_of_tune_is_named(make_context, name, message):
    ctx = make_context(tune__losses={"lm": 1.0, name: 1.0})
    with pytest.raises(AstreaError, match=message) as caught:
        tuning(ctx)
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tune.losses.entropy=0.1", "unknown loss 'entropy'; known: lm, word"),
        (f"tune.losses.{NAME}=-1", "greater than or equal to 0"),
    ],
)
def test_a_recipe_says_which_loss_it_does_not_know(change, message):
    with pytest.raises(AstreaError, match=message):
        load_recipe(Recipe, "tiny", [change])
    assert load_recipe(Recipe, "tiny", [f"tune.losses.{NAME}=0.3"]).tune.losses.weights[NAME] == 0.3
