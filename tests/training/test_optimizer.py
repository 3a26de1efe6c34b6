"""Muon beside AdamW: who moves how, and that a state survives a checkpoint."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from astrea.recipes.recipe import LanguageModel
from astrea.training.checkpoint import flatten_optimizer, restore_optimizer
from astrea.training.optimizer import MOMENTUM, MuonAdamW, is_hidden_matrix, orthogonalise
from astrea.world.language.tiny import tiny_language_model, tiny_tokenizer


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), seed=st.integers(0, 99))
def test_singular_values_come_near_one_and_directions_stay(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, rows, columns, generator=generator)
    out = orthogonalise(x)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    # Directions of a tiny singular value need more than five iterations.
    clear = s > 0.1 * s.amax(-1, keepdim=True)
    turned = u.transpose(1, 2) @ out @ vt.transpose(1, 2)
    values = turned.diagonal(dim1=1, dim2=2)
    assert (values[clear] > 0.5).all()
    assert (values[clear] < 1.3).all()
    off = turned - torch.diag_embed(values)
    assert off.abs().max() < 1e-2


def test_nothing_to_go_by_gives_no_step():
    assert torch.equal(orthogonalise(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))


def pair() -> tuple[nn.Parameter, nn.Parameter, MuonAdamW]:
    torch.manual_seed(0)
    matrix, other = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(5, 3))
    groups = [
        {"params": [other], "weight_decay": 0.0, "muon": False},
        {"params": [matrix], "weight_decay": 0.1, "muon": True},
    ]
    return matrix, other, MuonAdamW(groups, lr=0.01, betas=(0.9, 0.98))


def learn(optimizer: MuonAdamW, *parameters: nn.Parameter, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p - 1).pow(4).sum() for p in parameters).backward()
        optimizer.step()


def test_a_muon_step_is_as_published():
    matrix, _, optimizer = pair()
    before = matrix.detach().clone()
    gradient = torch.randn(6, 4)
    matrix.grad = gradient.clone()
    optimizer.step()
    momentum = (1 - MOMENTUM) * gradient
    ahead = gradient + MOMENTUM * (momentum - gradient)
    wanted = before * (1 - 0.01 * 0.1) - 0.01 * 0.2 * 6**0.5 * orthogonalise(ahead.unsqueeze(0))[0]
    torch.testing.assert_close(matrix.detach(), wanted)


def test_the_other_groups_step_as_adamw_does():
    matrix, other, optimizer = pair()
    plain = nn.Parameter(other.detach().clone())
    adam = torch.optim.AdamW([plain], lr=0.01, betas=(0.9, 0.98), weight_decay=0.0)
    learn(optimizer, matrix, other)
    for _ in range(3):
        adam.zero_grad()
        (plain - 1).pow(4).sum().backward()
        adam.step()
    assert torch.equal(other, plain)
    assert len(optimizer.param_groups) == 2


def test_matrices_of_one_shape_do_not_mix():
    torch.manual_seed(1)
    start = [torch.randn(4, 3) for _ in range(2)]
    together = [nn.Parameter(x.clone()) for x in start]
    learn(MuonAdamW([{"params": together, "muon": True}], lr=0.01), *together)
    for x, found in zip(start, together, strict=True):
        alone = nn.Parameter(x.clone())
        learn(MuonAdamW([{"params": [alone], "muon": True}], lr=0.01), alone)
        torch.testing.assert_close(found, alone)


def test_a_restored_state_goes_on_bit_equal():
    matrix, other, optimizer = pair()
    learn(optimizer, matrix, other)
    tensors, state = flatten_optimizer(optimizer)
    again, rest, fresh = pair()
    with torch.no_grad():
        again.copy_(matrix)
        rest.copy_(other)
    restore_optimizer(fresh, tensors, state)
    learn(optimizer, matrix, other)
    learn(fresh, again, rest)
    assert torch.equal(matrix, again)
    assert torch.equal(other, rest)


@pytest.mark.parametrize("tied", [True, False])
def test_words_and_head_are_no_hidden_matrices(tied):
    model = tiny_language_model(LanguageModel(width=16, layers=1, heads=2, feed_forward=24), tiny_tokenizer())
    if not tied:
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    hidden = {n for n, p in model.named_parameters() if is_hidden_matrix(model, p)}
    attention = {f"model.layers.0.self_attn.{n}_proj.weight" for n in "qkvo"}
    assert hidden == attention | {f"model.layers.0.mlp.{n}_proj.weight" for n in ("gate", "up", "down")}
