"""The texts that pictures are told by: one number per text, states that are kept while the language model is frozen."""

from __future__ import annotations

import pytest
import torch

from astrea.data.feature_cache import FeatureCache
from astrea.training.context import CaptionBatch, TrainingContext
from astrea.training.stages.align import AlignObjective
from astrea.world.dataset import WorldData

LONG = {"align__losses": {"itc": 1.0}, "align__steps": 10_000}
"""An alignment that reads every text."""


def read(ctx: TrainingContext, scenes: list[int], which: list[int]) -> CaptionBatch:
    """The told texts of some scenes, these captions of them."""
    samples = ctx.data.samples(torch.tensor(scenes))
    tokens = [ctx.packer.ids(texts[c]) for texts, c in zip(samples.texts, which, strict=True)]
    told = ctx.captions(samples, "any")
    return CaptionBatch(torch.tensor(which), tokens, told.ids, samples.numbers + torch.tensor(which))


def test_a_sentence_told_of_two_pictures_is_one_text(make_context):
    ctx = make_context()
    sentence = ctx.data.captions[0][0]
    told = [[sentence] if scene in (3, 7) else texts for scene, texts in enumerate(ctx.data.captions)]
    twin = TrainingContext(ctx.recipe, ctx.model, ctx.tokenizer, WorldData(ctx.data.features, ctx.data.questions, told))
    samples = twin.data.samples(torch.tensor([3, 7, *range(20, 60)]))
    found = twin.captions(samples, "align", 0)
    assert found.ids[:, 0].tolist() == [3, 7, *range(20, 60)]
    assert found.ids[0, 1] == found.ids[1, 1]
    assert len(set(found.ids[:, 1].tolist())) == len({tuple(tokens) for tokens in found.tokens}) > 20
    numbered = [text for texts in told for text in texts]
    assert [twin.packer.ids(numbered[number]) for number in found.numbers.tolist()] == found.tokens


def test_which_caption_is_read_changes_from_step_to_step(make_context):
    ctx = make_context()
    samples = ctx.data.samples(torch.arange(60))
    one = ctx.captions(samples, "align", 0, 0).which
    assert torch.equal(one, ctx.captions(samples, "align", 0, 0).which)
    assert not torch.equal(one, ctx.captions(samples, "align", 1, 0).which)
    assert set(one.tolist()) == {0, 1, 2}


def test_text_states_do_not_depend_on_the_batch(make_context):
    ctx = make_context()
    told = read(ctx, [0, 5, 9], [0, 1, 2])
    together = ctx.text_states(told, slice(0, 3))
    assert not together.requires_grad
    for row in range(3):
        alone = ctx.text_states(told, slice(row, row + 1))
        assert torch.allclose(alone[0], together[row], atol=1e-5)


def test_kept_states_are_what_the_language_model_says_and_only_while_it_is_frozen(make_context, tmp_path):
    ctx = make_context(**LONG)
    told, everything = read(ctx, [3, 0, 11], [1, 2, 0]), slice(None)
    fresh = ctx.text_states(told, everything)
    events: list[str] = []
    ctx.keep_states(FeatureCache(tmp_path), lambda *a: None, events.append)
    kept = ctx.text_states(told, everything, frozen=True)
    torch.testing.assert_close(kept, fresh, atol=1e-5, rtol=1e-4)
    assert torch.equal(kept, ctx.kept_states[told.numbers])
    with torch.no_grad():
        ctx.model.get_input_embeddings().weight.mul_(1.5)
    assert torch.equal(ctx.text_states(told, everything, frozen=True), kept)
    assert not torch.allclose(ctx.text_states(told, everything), fresh, atol=1e-3)


def test_another_language_model_finds_no_states_of_this_one(make_context, tmp_path):
    ctx = make_context(**LONG)
    for _ in range(2):  # the second time from the file
        ctx.keep_states(FeatureCache(tmp_path), lambda *a: None, lambda event: None)
    assert len(list(tmp_path.glob("*.json"))) == 1
    with torch.no_grad():
        ctx.model.get_input_embeddings().weight.mul_(1.5)
    before = ctx.kept_states
    ctx.keep_states(FeatureCache(tmp_path), lambda *a: None, lambda event: None)
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert not torch.allclose(ctx.kept_states, before, atol=1e-3)


@pytest.mark.parametrize(
    ("align", "kept"),
    [
        ({"align__losses": {"word": 1.0}, "align__steps": 10_000}, False),  # nobody reads them
        ({"align__losses": {"itc": 1.0}, "align__steps": 2}, False),  # more texts than are looked at
        (LONG, True),
    ],
)
def test_only_states_that_a_loss_reads_are_computed_ahead(make_context, tmp_path, align, kept):
    ctx = make_context(**align)
    ctx.keep_states(FeatureCache(tmp_path), lambda *a: None, lambda event: None)
    assert (ctx.kept_states is not None) == kept


def test_word_alignment_never_runs_the_language_model(make_context, monkeypatch):
    ctx = make_context(align__losses={"word": 1.0, "agree": 0.1})
    monkeypatch.setattr(ctx, "states_of", lambda told: pytest.fail("the language model was asked"))
    objective = AlignObjective(ctx, joining="detection", aligned=["captioning"], offset=0)
    loss, figures = objective.loss(objective.batch(0, 0, 4), 0)
    objective.after_step(0)
    assert loss.requires_grad
    assert set(figures) == {"word", "agree"}


def test_states_are_kept_in_the_precision_of_the_run(make_context, tmp_path):
    states = []
    for precision in ("fp32", "bf16"):
        ctx = make_context(**LONG, runtime={"precision": precision})
        ctx.keep_states(FeatureCache(tmp_path), lambda *a: None, lambda event: None)
        states.append(ctx.kept_states)
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert not torch.equal(*states)
    torch.testing.assert_close(*states, atol=0.1, rtol=0.1)
