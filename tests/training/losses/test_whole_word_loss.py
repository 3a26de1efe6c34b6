"""Alignment by the words of captions: what it teaches, to whom, and that no pass of the language model is needed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from astrea.alignment.phrases import PhraseAdapter
from astrea.experts.protocol import ExpertFeatures, index_select
from astrea.training.assembly import assemble
from astrea.training.borrowed_names import Lent
from astrea.training.context import TrainingContext
from astrea.training.loop import build_optimizer, run_steps
from astrea.training.losses.protocol import AlignStep
from astrea.training.losses.whole_words import WholeWordsKept
from astrea.training.own_words import words_told
from astrea.training.plan import plan_stages
from astrea.training.stages.align import AlignObjective
from astrea.training.stages.instruct import InstructObjective
from astrea.training.stages.step import InstructStep
from astrea.training.trainable import train_only
from astrea.world.dataset import WorldData
from phrase_experts import EXPERTS, Seer, seen
from small_runs import small_run

NAMES = ("cat", "dog", "umbrella", "sun", "sea", "tree")
PICTURES = 60
LOSSES = {"caption_words": 1.0}


def data(tokenizer) -> WorldData:
    """Pictures of two things each, told in captions; features are the things' own, a little noisy, in any slot."""
    generator = torch.Generator().manual_seed(0)
    looks = torch.randn(len(NAMES), 5, generator=generator)
    one, captions = seen(tokenizer), []
    shown = torch.stack([torch.randperm(len(NAMES), generator=generator)[:2] for _ in range(PICTURES)])
    features = {name: part.rows(torch.zeros(PICTURES, dtype=torch.long)) for name, part in one.items()}
    things = torch.zeros(PICTURES, Seer.num_tokens, Seer.width)
    things[:, :2, :5] = looks[shown] + 0.05 * torch.randn(PICTURES, 2, 5, generator=generator)
    sure = torch.tensor([1.0, 1.0, 0.0]).expand(PICTURES, -1)
    features["things"] = ExpertFeatures(things, sure, torch.rand(PICTURES, 3, 2, generator=generator))
    for a, b in shown.tolist():
        captions.append([f"a {NAMES[a]} and a {NAMES[b]}.", f"the {NAMES[b]}s are here."])
    return WorldData(features, [[] for _ in captions], captions)


@pytest.fixture(scope="module")
def make(language_checkpoint):
    def build(findings: str = "phrases", **changes) -> TrainingContext:
        model = {"contrast_width": 16, "adapter_hidden": 24, "findings": findings}
        align = {"align__losses": LOSSES, "align__steps": 40, "align__lr": 5e-3} | changes
        run = small_run(
            experts=EXPERTS, model=model, llm={"checkpoint": str(language_checkpoint("llama_tied"))}, **align
        )
        made, tokenizer = assemble(run, None)
        return TrainingContext(run, made.train(), tokenizer, data(tokenizer))

    return build


def trained(ctx: TrainingContext, joining: str | None, steps: int) -> list[float]:
    objective = AlignObjective(ctx, joining=joining, aligned=[], offset=0)
    train_only((p for _, p, _ in objective.trainable()), (ctx.model, ctx.contrast, ctx.words))
    schedule, losses = ctx.recipe.align.lasting(steps), []
    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=lambda _, f: losses.append(f["loss"]))
    return losses


def test_features_learn_the_words_of_captions_without_the_language_model(make, monkeypatch):
    ctx = make()
    monkeypatch.setattr(ctx.model.model.language_model, "forward", None)
    before = {name: value.clone() for name, value in ctx.model.alignment.state_dict().items()}
    losses = trained(ctx, "things", 40)
    least = math.log(2)  # of two words that are as likely
    assert sum(losses[-5:]) / 5 - least < 0.3 * (sum(losses[:5]) / 5 - least)
    # Every token is nearest to the word of its own thing, though no caption said which is which.
    words, mean, vectors = ctx.whole_words
    matrix = ctx.model.alignment(ctx.data.features)
    unit = F.normalize(matrix.tokens[:, matrix.features & (matrix.expert == 0)] - mean, dim=-1)
    known = [words.index[name] for name in NAMES]
    found = (unit @ vectors[known].T).argmax(-1)[:, :2]
    told = [sorted(name for name in NAMES if name in texts[0]) for texts in ctx.data.captions]
    right = [sorted(NAMES[i] for i in row) == names for row, names in zip(found.tolist(), told, strict=True)]
    assert sum(right) > 0.7 * PICTURES  # by chance 1 in 15
    after = ctx.model.alignment.state_dict()
    learned = "adapters.things.slots.feature.layers.3.weight"
    assert not torch.equal(after[learned], before[learned])
    for name, value in before.items():
        # All else keeps its direction, which is all that counts of a mixture of words: weights decay.
        if not name.startswith("adapters.things.slots.feature"):
            torch.testing.assert_close(F.normalize(after[name].flatten(), dim=0), F.normalize(value.flatten(), dim=0))


def test_experts_of_words_alone_have_nothing_to_learn(make):
    ctx = make()
    idle = {name: AlignObjective(ctx, joining=name, aligned=[], offset=0).idle for name in EXPERTS}
    assert idle == {"things": False, "signs": True, "lines": False}
    assert not AlignObjective(ctx, joining=None, aligned=[], offset=0).idle
    # Another loss may teach them.
    more = make(align__losses=LOSSES | {"itc": 0.1})
    assert not AlignObjective(more, joining="signs", aligned=[], offset=0).idle


def test_written_findings_leave_stages_without_anything_to_learn(make):
    alone = {"fuse__train": ["adapters", "fusion"], "fuse__losses": {"lm": 1.0}}

    def idle(ctx: TrainingContext) -> list[bool]:
        stages = [InstructObjective(ctx, name, getattr(ctx.recipe, name), offset=0) for name in ("fuse", "tune")]
        return [AlignObjective(ctx, joining=None, aligned=[], offset=0).idle, *(stage.idle for stage in stages)]

    adapters = {"align__train": ["adapters"]}
    assert idle(make("written", **alone, **adapters)) == [True, True, False]
    assert idle(make("phrases", **alone, **adapters)) == [False, False, False]
    measured = {**alone, "fuse__losses": {"lm": 1.0, "contribution": 0.1}}
    assert idle(make("written", **measured, **adapters)) == [True, False, False]


def test_the_phases_are_one_expert_after_another_and_all_together(make):
    names = [plan.name for plan in plan_stages(make().recipe) if plan.name.startswith("align")]
    assert names == ["align/things", "align/signs", "align/lines", "align/joint"]


def test_single_tokens_learn_from_words_too(make):
    ctx = make("tokens")
    losses = trained(ctx, "things", 30)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def step_of(ctx: TrainingContext, local: slice) -> AlignStep:
    samples = ctx.data.draw(0, 8, 0, pairs=True)
    captions = ctx.captions(samples, "align", 0, 0)
    features = index_select(ctx.encode(samples), local)
    matrix = ctx.model.alignment({"things": features["things"]})
    head = ctx.model.alignment.picture_head
    return AlignStep(samples, captions, local, features, matrix, head, ("things",), (), 0)


def test_parts_of_a_batch_add_up(make):
    ctx = make()
    (loss,) = AlignObjective(ctx, joining="things", aligned=[], offset=0).losses.values()
    whole = loss(step_of(ctx, slice(0, 8)))
    parts = [loss(step_of(ctx, local)) for local in (slice(0, 3), slice(3, 8))]
    torch.testing.assert_close(sum(parts), whole)
    assert whole > 0.1


def test_experts_that_learn_together_have_a_loss_each(make):
    """One that sees less well than another is not helped by saying nothing."""
    ctx = make()
    (loss,) = AlignObjective(ctx, joining="things", aligned=[], offset=0).losses.values()
    step = step_of(ctx, slice(0, 8))
    # Half of the features are taken for those of another expert.
    place = step.matrix.features.nonzero().flatten()
    split = step.matrix.expert.clone()
    split[place[len(place) // 2 :]] = 1
    both = replace(step, matrix=replace(step.matrix, expert=split), learning=("things", "signs"))
    alone = [loss(replace(both, learning=(name,))) for name in both.learning]
    assert alone[0] != alone[1]
    torch.testing.assert_close(loss(both), torch.stack(alone).mean())


def test_pictures_without_words_or_findings_count_for_nothing(make):
    ctx = make()
    (loss,) = AlignObjective(ctx, joining="things", aligned=[], offset=0).losses.values()
    step = step_of(ctx, slice(0, 8))
    silent = replace(step.samples, texts=[["a"], *step.samples.texts[1:]])
    blind = replace(step.matrix, valid=step.matrix.valid & (torch.arange(8) > 0).unsqueeze(1))
    first = loss(step) - loss(replace(step, matrix=blind))
    assert first > 0
    # Without words it is no picture of the batch; without findings it is, and has no loss.
    torch.testing.assert_close(loss(replace(step, samples=silent)) * 7, loss(replace(step, matrix=blind)) * 8)
    none = replace(step.samples, texts=[["a"]] * 8)
    assert loss(replace(step, samples=none)) == 0


def test_a_token_of_words_does_not_count(make):
    """Literal words, places and names are words already: only what features make is compared with captions."""
    ctx = make()
    (loss,) = AlignObjective(ctx, joining="things", aligned=[], offset=0).losses.values()
    step = step_of(ctx, slice(0, 8))
    other = torch.where(step.matrix.features.view(1, -1, 1), step.matrix.tokens, torch.randn_like(step.matrix.tokens))
    torch.testing.assert_close(loss(replace(step, matrix=replace(step.matrix, tokens=other))), loss(step))
    assert isinstance(ctx.model.alignment.adapters["things"], PhraseAdapter)


def instruct_step(ctx: TrainingContext, objective: InstructObjective):
    batch = objective.batch(0, 0, 8)
    return InstructStep(ctx, "tune", ctx.recipe.tune, ctx.recipe.tune.losses.weights, batch, 0)


def test_the_later_stages_keep_features_near_their_words(make):
    """The same loss, over the pictures that samples of those stages show."""
    ctx = make(tune__losses={"lm": 1.0, "caption_words": 0.5}, tune__train=["adapters", "fusion", "language_model"])
    objective = InstructObjective(ctx, "tune", ctx.recipe.tune, offset=0)
    step = instruct_step(ctx, objective)
    kept = WholeWordsKept(ctx)(step, None)
    samples = step.batch.samples
    shown = samples.first[samples.first >= 0]
    matrix = ctx.model.alignment(index_select(step.features, shown))
    texts = [texts for texts, first in zip(samples.texts, samples.first.tolist(), strict=True) if first >= 0]
    (loss,) = AlignObjective(ctx, joining=None, aligned=[], offset=0).losses.values()
    names = tuple(ctx.model.experts.names)
    same = AlignStep(
        replace(samples, texts=texts), None, slice(0, len(texts)), step.features, matrix, None, names, (), 0
    )
    torch.testing.assert_close(kept, loss(same))
    assert kept > 0.1
    kept.backward()
    assert ctx.model.alignment.adapters["things"].slots["feature"].layers[3].weight.grad.abs().max() > 0


def test_where_adapters_do_not_learn_nothing_is_kept(make):
    ctx = make(tune__train=["language_model"], tune__losses={"lm": 1.0, "caption_words": 0.5})
    objective = InstructObjective(ctx, "tune", ctx.recipe.tune, offset=0)
    assert WholeWordsKept(ctx)(instruct_step(ctx, objective), None) is None


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_step_shows_rightly_named_findings_without_their_features(make, chance):
    ctx = make(regularisation__own_words=chance)
    named = ctx.data.features["things"].tokens
    named[:, :2, 5:8] = 0
    named[:, 0, 6] = 1.0  # every first finding is called a dog
    step = instruct_step(ctx, InstructObjective(ctx, "tune", ctx.recipe.tune, offset=0))
    told = words_told(step.batch.samples, ctx.whole_words[0])
    dog = ctx.whole_words[0].index["dog"]
    hidden = (step.corrupted["things"].tokens[..., :5] == 0).all(-1)
    right = torch.tensor([[dog in some, False, False] for some in told])
    assert right.any()
    assert torch.equal(hidden[:, :2], (right & (chance > 0))[:, :2])  # nothing was found in the third slot
    assert (step.features["things"].tokens[:, :2, :5] != 0).any(-1).all()


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_step_calls_things_by_borrowed_names_in_findings_and_texts(make, chance):
    ctx = make(regularisation__borrowed_names=chance)
    named = ctx.data.features["things"].tokens
    named[:, :2, 5:8] = 0
    named[:, 0, 6] = 1.0  # every first finding is called a dog
    vars(ctx)["lent_labels"] = Lent({"things": ("cat", "dog", "sea lion")}, {"things": torch.tensor([2])})
    step = instruct_step(ctx, InstructObjective(ctx, "tune", ctx.recipe.tune, offset=0))
    rows = [ctx.tokenizer.decode(row[row != -100]) for row in step.inputs["labels"]]
    told = [" ".join(texts) for texts in step.batch.samples.texts]
    assert any("dog" in texts for texts in told)
    which = step.batch.captions.which.tolist()
    for row, (said, texts) in enumerate(zip(rows, told, strict=True)):
        borrowed = chance > 0 and "dog" in texts
        here = "dog" in step.batch.samples.texts[row][which[row]]  # one of its captions is the answer
        assert ("sea lion" in said) == (here and borrowed)
        assert ("dog" in said) == (here and not borrowed)
        assert int(step.corrupted["things"].tokens[row, 0, 5:8].argmax()) == (2 if borrowed else 1)
        assert bool((step.corrupted["things"].tokens[row, 0, :5] == 0).all()) == borrowed
    # What `caption_words` reads stays as it is.
    assert (step.features["things"].tokens[:, 0, 6] == 1).all()
