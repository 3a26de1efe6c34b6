"""The expert matrix: one mask takes an expert away, whatever its tokens hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.alignment.alignment import Alignment
from astrea.alignment.matrix import ExpertMatrix
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.mixer import Mixer

SHAPES = {"words": (3, 5), "tags": (2, 4), "boxes": (4, 6)}
NAMES = list(SHAPES)


@pytest.fixture(scope="module")
def alignment() -> Alignment:
    torch.manual_seed(0)
    return Alignment(SHAPES, hidden=7, model_width=8, contrast=6)


def features(batch: int = 3, seed: int = 0) -> dict[str, ExpertFeatures]:
    """Random features in which about a third of the slots are empty."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, (tokens, width) in SHAPES.items():
        sure = torch.rand(batch, tokens, generator=generator)
        said = torch.randn(batch, tokens, width, generator=generator)
        places = None if name == "tags" else torch.rand(batch, tokens, 2, generator=generator)
        found[name] = ExpertFeatures(said, sure.masked_fill(sure < 0.33, 0), places)
    return found


def same_where_valid(one: ExpertMatrix, two: ExpertMatrix) -> None:
    assert torch.equal(one.valid, two.valid)
    assert torch.equal(one.present, two.present)
    assert torch.equal(one.tokens[one.valid], two.tokens[two.valid])
    assert torch.equal(one.confidence[one.valid], two.confidence[two.valid])
    assert torch.equal(one.places[one.valid].nan_to_num(-1), two.places[two.valid].nan_to_num(-1))
    for a, b in zip(one.summary(), two.summary(), strict=True):
        assert torch.equal(a, b)


def test_tokens_stand_in_the_order_of_the_experts(alignment):
    seen = features()
    matrix = alignment({name: seen[name] for name in reversed(NAMES)})
    assert matrix.expert.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert matrix.experts == 3
    assert matrix.present.all()
    tags = alignment.adapters["tags"](seen["tags"].tokens)
    filled = seen["tags"].confidence > 0
    assert torch.equal(matrix.tokens[:, 3:5][filled], tags[filled])
    assert torch.equal(matrix.valid, torch.cat([seen[name].confidence > 0 for name in NAMES], 1))
    assert torch.equal(alignment.only(matrix, 1)[:, 3:5], matrix.valid[:, 3:5])
    assert alignment.only(matrix, 1).sum() == matrix.valid[:, 3:5].sum()
    # Places as the experts gave them; tags have none.
    for part, name in ((matrix.places[:, :3], "words"), (matrix.places[:, 5:], "boxes")):
        filled = seen[name].confidence > 0
        assert torch.equal(part[filled], seen[name].places[filled])
        assert part[~filled].isnan().all()
    assert matrix.places[:, 3:5].isnan().all()


@pytest.mark.parametrize("name", NAMES)
def test_masking_an_expert_is_not_having_it(alignment, name):
    seen = features()
    index = NAMES.index(name)
    present = torch.ones(3, 3, dtype=torch.bool)
    present[:, index] = False
    masked = alignment(seen, present)
    without = alignment({other: part for other, part in seen.items() if other != name})
    same_where_valid(masked, without)
    same_where_valid(alignment(seen).with_presence(present), without)
    assert not masked.valid[:, masked.expert == index].any()


@pytest.mark.parametrize("rubbish", [1e4, float("nan"), float("inf")])
def test_what_an_absent_expert_says_changes_nothing(alignment, rubbish):
    seen = features()
    present = torch.tensor([[True, False, True], [True, True, True], [False, False, True]])
    assert (seen["words"].confidence[2] > 0).any()
    wanted = alignment(seen, present)
    broken = {}
    for index, name in ((0, "words"), (1, "tags")):
        gone = ~present[:, index]
        broken[name] = seen[name].map(torch.clone)
        for value in (broken[name].tokens, broken[name].confidence, broken[name].places):
            if value is not None:
                value[gone] = rubbish
    found = alignment(seen | broken, present)
    same_where_valid(found, wanted)
    # Neither does it reach what comes after, nor the weights in training.
    torch.manual_seed(0)
    mixer = Mixer(8, 2)
    for made in (lambda m: alignment.picture_head(m.tokens, m.valid), lambda m: mixer(m)[m.valid]):
        assert torch.equal(made(found), made(wanted))
        made(found).square().sum().backward(retain_graph=True)
    for parameter in [*alignment.parameters(), *mixer.parameters()]:
        assert parameter.grad is None or parameter.grad.isfinite().all()
    alignment.zero_grad()


def test_the_contents_of_an_empty_slot_change_nothing(alignment):
    seen = features()
    empty = seen["boxes"].confidence == 0
    assert empty.any()
    other = seen["boxes"].map(torch.clone)
    other.tokens[empty], other.places[empty] = float("nan"), float("inf")
    same_where_valid(alignment(seen | {"boxes": other}), alignment(seen))


def test_presence_can_only_be_taken_away(alignment):
    first = torch.tensor([[True, False, True]] * 3)
    second = torch.tensor([[False, True, True]] * 3)
    matrix = alignment(features(), first).with_presence(second)
    assert matrix.present.tolist() == [[False, False, True]] * 3
    before = alignment(features())
    after = before.with_presence(first)
    assert torch.equal(after.tokens, before.tokens)
    assert torch.equal(after.confidence, before.confidence)
    assert before.present.all()


def test_a_picture_that_no_expert_saw_is_zero_not_nan(alignment):
    matrix = alignment(features(), torch.zeros(3, 3, dtype=torch.bool))
    mean, sure = matrix.summary()
    assert not matrix.valid.any()
    assert mean.eq(0).all()
    assert sure.eq(0).all()
    assert alignment.picture_head(matrix.tokens, matrix.valid).isfinite().all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_summary_is_the_confidence_weighted_mean(seed, batch):
    generator = torch.Generator().manual_seed(seed)
    owner = torch.tensor([0, 0, 1, 1, 1])
    sure = torch.rand(batch, 5, generator=generator)
    sure = sure.masked_fill(sure < 0.3, 0)
    present = torch.rand(batch, 2, generator=generator) < 0.8
    tokens = torch.randn(batch, 5, 3, generator=generator)
    matrix = ExpertMatrix(tokens, sure, (sure > 0) & present[:, owner], present, owner, torch.rand(batch, 5, 2))
    mean, confidence = matrix.summary()
    for b in range(batch):
        for e in range(2):
            mine = [t for t in range(5) if owner[t] == e and matrix.valid[b, t]]
            total = sum(float(sure[b, t]) for t in mine)
            assert float(confidence[b, e]) == pytest.approx(total / len(mine) if mine else 0, abs=1e-5)
            wanted = sum((sure[b, t] * tokens[b, t] for t in mine), torch.zeros(3)) / (total or 1)
            assert torch.allclose(mean[b, e], wanted, atol=1e-5)


def test_heads_give_unit_vectors(alignment):
    matrix = alignment(features())
    picture = alignment.picture_head(matrix.tokens, matrix.valid)
    text = alignment.text_head(torch.randn(3, 8))
    assert torch.allclose(picture.norm(dim=-1), torch.ones(3))
    assert torch.allclose(text.norm(dim=-1), torch.ones(3))
    assert picture.shape == text.shape == (3, 6)


def test_the_order_of_an_experts_tokens_is_nothing_to_the_picture_head(alignment):
    matrix = alignment(features())
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    one = alignment.picture_head(matrix.tokens, matrix.valid)
    assert torch.allclose(alignment.picture_head(matrix.tokens[:, order], matrix.valid[:, order]), one, atol=1e-6)
