"""Momentum contrast: the formula, the queue, the copy, and that a duplicate is never a negative."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.alignment.alignment import Alignment
from astrea.training.losses.contrast import MomentumContrast, MomentumQueue, agreement, positives

WIDTH = 6


def contrast(queue: int = 8, momentum: float = 0.9, temperature: float = 0.1) -> MomentumContrast:
    torch.manual_seed(0)
    alignment = Alignment({"a": (2, 3)}, hidden=4, model_width=8, contrast=WIDTH)
    return MomentumContrast(alignment, width=WIDTH, momentum=momentum, queue=queue, temperature=temperature)


def unit(count: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)), dim=-1)


def ids(*pairs: tuple[int, int]) -> torch.Tensor:
    return torch.tensor(pairs)


def distinct(count: int, start: int = 0) -> torch.Tensor:
    return torch.arange(start, start + count).repeat(2, 1).T.contiguous()


def test_without_queue_and_soft_targets_it_is_plain_infonce():
    part = contrast(queue=0)
    picture, text = unit(5, 1), unit(5, 2)
    found = part.loss(picture, text, picture, text, distinct(5), 0.0)
    scores = picture @ text.T / 0.1
    label = torch.arange(5)
    assert torch.allclose(found, (F.cross_entropy(scores, label) + F.cross_entropy(scores.T, label)) / 2)


def test_the_whole_formula_against_plain_loops():
    part = contrast()
    held_p, held_t, held = unit(3, 5), unit(3, 6), ids((0, 40), (41, 2), (42, 43))
    part.queue.push(held_p, held_t, held)
    picture, text, picture_key, text_key = (unit(4, seed) for seed in (1, 2, 3, 4))
    mine, soft, tau = ids((0, 0), (1, 1), (2, 2), (3, 0)), 0.3, 0.1

    def one_way(query, own, keys):
        total = 0.0
        others = torch.cat([mine, held])
        for i in range(4):
            score = [float(query[i] @ key) / tau for key in keys]
            slow = [math.exp(float(own[i] @ key) / tau) for key in keys]
            same = [bool(mine[i, 0] == o[0] or mine[i, 1] == o[1]) for o in others]
            norm = math.log(sum(math.exp(s) for s in score))
            for k in range(len(keys)):
                target = soft * slow[k] / sum(slow) + (1 - soft) * same[k] / sum(same)
                total -= target * (score[k] - norm)
        return total / 4

    wanted = one_way(picture, picture_key, [*text_key, *held_t]) + one_way(text, text_key, [*picture_key, *held_p])
    assert part.loss(picture, text, picture_key, text_key, mine, soft).item() == pytest.approx(wanted / 2, rel=1e-4)


def test_positives_share_a_sample_or_a_caption():
    found = positives(ids((1, 10), (2, 20)), ids((1, 99), (98, 20), (10, 1), (1, 10)))
    assert found.tolist() == [[1, 0, 0, 1], [0, 1, 0, 0]]


@pytest.mark.parametrize("entry", [(0, 50), (50, 0)], ids=["same sample", "same caption"])
def test_a_duplicate_in_the_queue_is_no_negative(entry):
    """A text just like the query: held as a stranger it is the hardest negative, as a duplicate it is none at all."""
    picture, text = unit(3, 1), unit(3, 2)
    losses, towards = {}, {}
    for name, held in {"duplicate": entry, "stranger": (50, 50)}.items():
        part = contrast()
        near = F.normalize(picture[:1] + 0.3 * unit(1, 9), dim=-1)
        part.queue.push(unit(1, 8), near, ids(held))
        query = picture.clone().requires_grad_()
        loss = part.loss(query, text, picture, text, distinct(3), 0.0)
        loss.backward()
        pull = -query.grad[0]
        losses[name], towards[name] = loss.item(), float(pull @ near[0] - pull @ text[0])
    assert losses["duplicate"] < losses["stranger"]
    # A step down the gradient leaves a stranger for the own text; a duplicate is pulled towards more than that.
    assert towards["stranger"] < 0
    assert towards["duplicate"] > towards["stranger"] + 0.5


def test_empty_slots_count_for_nothing():
    picture, text = unit(3, 1), unit(3, 2)
    with_queue, without = contrast(queue=16), contrast(queue=0)
    arguments = (picture, text, picture, text, distinct(3), 0.4)
    assert with_queue.loss(*arguments).item() == without.loss(*arguments).item()
    with_queue.queue.push(unit(2, 3), unit(2, 4), distinct(2, 10))
    assert with_queue.loss(*arguments) > without.loss(*arguments)
    with_queue.queue.clear()
    assert with_queue.loss(*arguments).item() == without.loss(*arguments).item()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.lists(st.integers(1, 9), max_size=6))
def test_the_queue_holds_the_newest(size, pushes):
    queue, pushed, model = MomentumQueue(size, 2), 0, [None] * size
    pointer = 0
    for count in pushes:
        numbers = torch.arange(pushed, pushed + count)
        values = numbers.float().unsqueeze(1).repeat(1, 2)
        queue.push(values, -values, torch.stack([numbers, numbers + 1000], 1))
        for i in range(min(count, size)):
            model[pointer] = pushed + i
            pointer = (pointer + 1) % size
        pushed += count
    assert queue.ids[:, 0].tolist() == [-1 if m is None else m for m in model]
    known = queue.ids[:, 0] >= 0
    assert torch.equal(queue.picture[known][:, 0], queue.ids[known][:, 0].float())
    assert torch.equal(queue.text[known], -queue.picture[known])
    assert torch.equal(queue.ids[known][:, 1], queue.ids[known][:, 0] + 1000)
    assert int(queue.pointer) == pointer


def test_pushing_does_not_break_a_graph_that_reads_the_queue():
    part = contrast(queue=4)
    part.queue.push(unit(4, 3), unit(4, 4), distinct(4, 10))
    arguments = (unit(2, 2), unit(2, 1), unit(2, 2), distinct(2), 0.2)
    one, two = (unit(2, 1).requires_grad_() for _ in range(2))
    part.loss(one, *arguments).backward()
    loss = part.loss(two, *arguments)
    part.queue.push(unit(4, 7), unit(4, 8), distinct(4, 20))
    loss.backward()
    assert torch.equal(one.grad, two.grad)
    assert not part.queue.picture.requires_grad


def test_a_queue_of_no_size_takes_and_gives_nothing():
    queue = MomentumQueue(0, WIDTH)
    queue.push(unit(3, 1), unit(3, 2), distinct(3))
    queue.clear()
    assert len(queue.ids) == 0


def test_the_queue_comes_back_from_its_state():
    queue, other = MomentumQueue(5, WIDTH), MomentumQueue(5, WIDTH)
    queue.push(unit(3, 1), unit(3, 2), distinct(3))
    other.load_state_dict(queue.state_dict())
    for part in (queue, other):
        part.push(unit(4, 3), unit(4, 4), distinct(4, 30))
    assert torch.equal(queue.ids, other.ids)
    assert torch.equal(queue.text, other.text)
    assert int(queue.pointer) == int(other.pointer) == 2


def test_the_copy_moves_by_the_formula():
    part = contrast(momentum=0.9)
    fast = Alignment({"a": (2, 3)}, hidden=4, model_width=8, contrast=WIDTH)
    before = [p.clone() for p in part.copy.parameters()]
    assert all(not p.requires_grad for p in part.copy.parameters())
    part.follow(fast)
    for old, new, target in zip(before, part.copy.parameters(), fast.parameters(), strict=True):
        assert torch.allclose(new, 0.9 * old + 0.1 * target, atol=1e-6)
    for _ in range(200):
        part.follow(fast)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(part.copy.parameters(), fast.parameters(), strict=True))


def test_the_copy_is_a_copy():
    torch.manual_seed(0)
    alignment = Alignment({"a": (2, 3)}, hidden=4, model_width=8, contrast=WIDTH)
    part = MomentumContrast(alignment, width=WIDTH, momentum=0.9, queue=0, temperature=0.1)
    kept = part.copy.text_head.out[1].weight.clone()
    with torch.no_grad():
        alignment.text_head.out[1].weight.add_(1)
    assert torch.equal(part.copy.text_head.out[1].weight, kept)


def test_the_temperature_starts_as_told_and_is_clamped():
    part = contrast(temperature=0.07)
    assert part.temperature().item() == pytest.approx(0.07)
    for value, wanted in ((-50.0, 0.001), (50.0, 0.5)):
        with torch.no_grad():
            part.log_temperature.fill_(value)
        assert part.temperature().item() == pytest.approx(wanted)


@pytest.mark.parametrize("value", [-50.0, 50.0])
def test_a_temperature_at_its_bound_can_still_learn(value):
    part = contrast()
    with torch.no_grad():
        part.log_temperature.fill_(value)
    part.follow(part.copy)
    part.temperature().backward()
    assert part.log_temperature.grad.abs() > 0


def test_temperature_and_queries_learn_and_keys_do_not():
    part = contrast()
    tensors = [unit(3, seed).requires_grad_() for seed in range(4)]
    part.loss(*tensors[:2], *(t.detach() for t in tensors[2:]), distinct(3), 0.4).backward()
    assert all(t.grad.abs().sum() > 0 for t in tensors[:2])
    assert part.log_temperature.grad.abs() > 0


def test_agreement_is_infonce_against_the_others_with_duplicates_forgiven():
    query, other = unit(4, 1), 3 * unit(4, 2)
    tau = torch.tensor(0.2)
    scores = query @ F.normalize(other, dim=-1).T / tau
    assert torch.allclose(
        agreement(query, other, distinct(4), tau), F.cross_entropy(scores, torch.arange(4)), atol=1e-6
    )
    log_p = scores.log_softmax(1)
    wanted = -((log_p[0, 0] + log_p[0, 3]) / 2 + log_p[1, 1] + log_p[2, 2] + (log_p[3, 0] + log_p[3, 3]) / 2) / 4
    found = agreement(query, other, ids((0, 5), (1, 6), (2, 7), (3, 5)), tau)
    assert torch.allclose(found, wanted, atol=1e-6)
