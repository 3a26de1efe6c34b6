"""Training rows without the experts that serving would skip: each question is read as if it were asked so by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.confidence.estimator import ConfidenceEstimator
from astrea.confidence.familiarity import learn_familiar, summary
from astrea.data.packing import answer_losses
from astrea.serving.features import Picture
from astrea.serving.job import Prompt
from astrea.serving.skipping import ExpectedWeights
from astrea.training.context import TrainingContext
from astrea.training.stages.batch import InstructBatch
from astrea.training.stages.expert_skipping import skip_experts, split, weights_of
from astrea.training.stages.step import InstructStep
from own_contexts import fusing


@pytest.fixture
def ctx(make_context) -> TrainingContext:
    """A model whose gate does not say the same of all experts."""
    found = make_context(regularisation={"expert_dropout": 0.0, "expert_skipping": 0.4})
    with torch.no_grad():
        for parameter in found.model.parameters():
            parameter.mul_(1.5)
        found.model.fusion.allocator.bias_question.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return found


def losses_of(ctx: TrainingContext, batch: InstructBatch, present: torch.Tensor) -> torch.Tensor:
    """(R, S) of every question."""
    features = ctx.encode(batch.samples)
    shown = {name: part.rows(batch.shown) for name, part in features.items()}
    out = ctx.model.eval()(**batch.packed.model_inputs(), features=shown, present=present, use_cache=False)
    return answer_losses(out.logits, batch.packed.labels, batch.packed.segments, batch.groups.shape[1])


@torch.no_grad()
def test_every_question_is_answered_as_without_its_skipped_experts(ctx):
    batch = fusing(ctx).batch(0, 0, 3)
    questions = batch.groups.shape[1]
    skip = torch.zeros(3, questions, 4, dtype=torch.bool)
    skip[0, ::2, 1] = True
    skip[1, :, 0] = True
    skip[2, 1] = torch.tensor([True, True, False, True])
    made = split(batch, skip, ctx.packer)
    assert made.shown.tolist() == [0, 0, 1, 2, 2]
    assert made.row.tolist() == [0, 1, 2, 3, 4]
    assert made.labelled == batch.labelled
    assert made.complete().tolist() == [not out.any() for out in made.skipped]
    found = losses_of(ctx, made, made.present_shown(slice(None)))
    for row, picture in enumerate(made.shown.tolist()):
        alone = losses_of(ctx, batch, (~made.skipped[row]).expand(3, 4))[picture]
        asked = made.groups[row] >= 0
        assert torch.equal(asked, (batch.groups[picture] >= 0) & (skip[picture] == made.skipped[row]).all(1))
        assert torch.allclose(found[row][asked], alone[asked], atol=1e-4)


def test_what_is_skipped_is_what_serving_would_skip(ctx):
    """For all questions of a batch, the pictures of which are all that is usual."""
    batch = fusing(ctx).batch(0, 0, 8)
    features = ctx.encode(batch.samples)
    familiar = {name: learn_familiar(part) for name, part in features.items()}
    # Of most of the pictures; of all of them here.
    familiar = {name: replace(one, mean=summary(features[name]).mean(0)) for name, one in familiar.items()}
    ctx.model.confidence_estimator = ConfidenceEstimator(familiar)
    expected = ExpectedWeights(ctx.model, 0.2)
    weights = weights_of(ctx, batch.packed, features)
    skips = set()
    for row, asked in enumerate(batch.samples.content):
        for number, question in enumerate(asked):
            made = ctx.packer.prompts([question.text])
            prompt = Prompt(made["input_ids"][0], made["question_mask"][0], (Picture("", torch.zeros(0)),))
            assert weights[row, number].tolist() == pytest.approx(list(expected.of(prompt).values()), abs=1e-5)
            skips.add(frozenset(expected.skipped(prompt)))
    ctx.model.confidence_estimator = None
    assert len(skips) > 1


def test_a_step_reads_the_pictures_without_them_and_thresholds_are_drawn_anew(ctx):
    objective = fusing(ctx)
    batch = objective.batch(0, 0, 8)
    steps = [InstructStep(ctx, "fuse", ctx.recipe.fuse, objective.weights, batch, number) for number in (0, 0, 1)]
    shown = [step.pictures_shown("residual")[1] for step in steps]
    assert torch.equal(shown[0], shown[1])
    assert shown[0].shape != shown[2].shape or not torch.equal(shown[0], shown[2])
    assert len(shown[0]) > 8
    assert 0 < (~shown[0]).sum() < shown[0].numel()
    assert shown[0].any(1).all()
    assert steps[0].complete.tolist() == shown[0].all(1).tolist()
    loss, _ = objective.loss(batch, 0)
    loss.backward()
    assert loss.isfinite()


def test_conversations_skip_what_none_of_their_questions_needs(ctx):
    """Two conversations in a row, each with a picture and two questions."""

    def said(*words: str) -> list[dict[str, str]]:
        roles = ("user", "assistant") * 2
        return [{"role": role, "content": word} for role, word in zip(roles, words, strict=True)]

    talks = [said("<image> is it a cat?", "yes", "how many?", "two"), said("<image> how many?", "one", "a cat?", "no")]
    packed = ctx.packer.pack_conversations([[ctx.packer.conversation(talk) for talk in talks]])
    batch = fusing(ctx).batch(0, 0, 2)
    batch = replace(
        batch,
        packed=packed,
        groups=torch.tensor([[0, 1, 2, 3]]),
        shown=torch.tensor([1, 0]),
        row=torch.tensor([0, 0]),
    )
    skip = torch.zeros(1, 4, 4, dtype=torch.bool)
    skip[0, :2, 2] = True
    skip[0, 2, 0] = True
    made = split(batch, skip, ctx.packer)
    assert made.shown.tolist() == [1, 0]
    assert made.groups.tolist() == [[0, 1, -1, -1], [-1, -1, 2, 3]]
    assert made.skipped.tolist() == [[False, False, True, False], [False] * 4]
    lengths = [len(ctx.packer.conversation(talk).ids) for talk in talks]
    assert made.packed.attention_mask.sum(1).tolist() == lengths
    # Nobody skips anything: the row stays as it is.
    same = split(batch, torch.zeros_like(skip), ctx.packer)
    assert torch.equal(same.packed.input_ids, packed.input_ids)
    assert torch.equal(same.shown, batch.shown)


def test_without_a_gate_or_a_picture(ctx, make_context):
    batch = fusing(ctx).batch(0, 0, 2)
    features = ctx.encode(batch.samples)
    blind = replace(batch, samples=replace(batch.samples, pictures=0))
    assert skip_experts(ctx, blind, features, 0.9, torch.Generator()) is blind
    gateless = make_context(model={"gate": False})
    with pytest.raises(AstreaError, match="this model has none"):
        skip_experts(gateless, batch, features, 0.9, torch.Generator())
