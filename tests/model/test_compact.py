"""What `answers_only` leaves out changes nothing: the same answers are scored alike, with the same gradients."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from astrea import AstreaError
from astrea.training.assembly import assemble
from phrase_experts import EXPERTS, seen
from small_runs import small_run


@pytest.fixture(scope="module")
def built(language_checkpoint):
    """A model with phrases by family and strategy, its tokenizer and what its experts found."""

    @cache
    def build(family: str, fused: str):
        own = {"contrast_width": 16, "adapter_hidden": 24, "findings": "phrases", "strategy": fused}
        run = small_run(experts=EXPERTS, model=own, llm={"checkpoint": str(language_checkpoint(family))})
        model, tokenizer = assemble(run, None)
        return model, tokenizer, seen(tokenizer)

    return build


def batch(model, tokenizer):
    """Two rows of two questions each behind a picture; the second is shorter, and its picture shows less."""
    rows = []
    for questions in ((" what is it?", " is there a dog?"), (" why?", " what?")):
        ids, segments, labels = [5, *[model.config.image_token_id] * model.num_visual_tokens], [], []
        segments, labels = [0] * len(ids), [-100] * len(ids)
        for number, question in enumerate(questions, 1):
            said, answer = (list(tokenizer(text).input_ids) for text in (question, " a cat"))
            ids += said + answer
            segments += [number] * len(said + answer)
            labels += [-100] * len(said) + answer
        rows.append((ids, segments, labels))
    longest = max(len(ids) for ids, _, _ in rows)
    ids, segments, labels = (
        torch.tensor([row[part] + [fill] * (longest - len(row[part])) for row in rows])
        for part, fill in enumerate((0, -1, -100))
    )
    weights = torch.where(labels == -100, 0.0, 1.0 + torch.arange(longest) % 3)
    return {
        "input_ids": ids,
        "attention_mask": (segments >= 0).long(),
        "segments": segments,
        "labels": labels,
        "label_weights": weights,
    }


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("family", "fused"), [("llama", "astrea"), ("gemma3", "sequence_concat"), ("gpt2", "astrea")])
def test_the_same_loss_from_less(built, family, fused):
    model, tokenizer, features = built(family, fused)
    rows = batch(model, tokenizer)
    lengths = []
    hook = model.language_model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    whole = model(**rows, features=features, use_cache=False)
    less = model(**rows, features=features, use_cache=False, answers_only=True)
    hook.remove()
    unread = (~model.alignment(features).valid).sum(1).min()
    assert lengths[0] == rows["input_ids"].shape[1]
    assert lengths[1] <= lengths[0] - unread
    assert less.logits is None
    before = (rows["labels"][:, 1:] != -100).nonzero(as_tuple=True)
    torch.testing.assert_close(less.label_logits, whole.logits[before], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(less.loss, whole.loss, atol=1e-5, rtol=1e-5)
    wanted, found = gradients(model, whole.loss), gradients(model, less.loss)
    assert wanted.keys() == found.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_a_row_that_is_read_whole_leaves_the_others_where_they_are(language_checkpoint):
    checkpoint = str(language_checkpoint("llama"))
    run = small_run(
        experts=EXPERTS,
        model={"contrast_width": 16, "adapter_hidden": 24, "strategy": "sequence_concat"},
        llm={"checkpoint": checkpoint},
    )
    model, tokenizer = assemble(run, None)
    rows = batch(model, tokenizer)
    full = {
        name: replace(
            part, confidence=torch.stack([torch.ones(slots := part.tokens.shape[1]), torch.arange(slots) / slots])
        )
        for name, part in seen(tokenizer).items()
    }
    valid = model.alignment(full).valid
    assert valid[0].all()
    assert not valid[1].all()
    whole = model(**rows, features=full, use_cache=False)
    less = model(**rows, features=full, use_cache=False, answers_only=True)
    before = (rows["labels"][:, 1:] != -100).nonzero(as_tuple=True)
    torch.testing.assert_close(less.label_logits, whole.logits[before], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(less.loss, whole.loss, atol=1e-5, rtol=1e-5)


def test_a_part_of_a_batch_may_have_no_label(built):
    model, tokenizer, features = built("llama", "astrea")
    rows = batch(model, tokenizer)
    rows["labels"] = torch.full_like(rows["labels"], -100)
    found = model(**rows, features=features, use_cache=False, answers_only=True, num_items_in_batch=7)
    assert found.loss == 0
    assert len(found.label_logits) == 0
    with pytest.raises(AstreaError, match="every label of this batch is masked"):
        model(**rows, features=features, use_cache=False, answers_only=True)


def test_it_needs_labels_and_no_cache(built):
    model, tokenizer, features = built("llama", "astrea")
    rows = batch(model, tokenizer)
    with pytest.raises(AstreaError, match="no labels"):
        model(input_ids=rows["input_ids"], features=features, use_cache=False, answers_only=True)
    with pytest.raises(AstreaError, match="use_cache=False"):
        model(**rows, features=features, use_cache=True, answers_only=True)
