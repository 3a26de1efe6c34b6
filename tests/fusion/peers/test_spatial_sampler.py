"""The spatial sampler: who sees which token, one softmax or two, and shares from attention."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.errors import AstreaError
from astrea.fusion.peers.spatial_sampler import SpatialSampler
from astrea.fusion.protocol import Layout
from fusion_peers import WIDTH, Peer

PEER = Peer(
    SpatialSampler, Layout(width=WIDTH, names=("a", "b", "c"), counts=(3, 1, 3), heads=2), {"heads": 2, "depth": 2}
)
LAYOUT, OWNER, without = PEER.layout, PEER.owner, PEER.without
ROWS, COLUMNS = 2, 3
EACH = pytest.mark.parametrize("softmax", ["joint", "separate"])


def awake(softmax: str = "joint", **options) -> SpatialSampler:
    return PEER.awake(softmax=softmax, noise=0.3, **options)


def matrix(batch: int = 3) -> ExpertMatrix:
    """Expert b has no places."""
    made = PEER.matrix(batch)
    made.places[:, OWNER == 1] = torch.nan
    return made


def questions(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 2, WIDTH, generator=torch.Generator().manual_seed(2))


@EACH
def test_it_gives_a_token_per_cell_and_the_same_shares_for_every_question(softmax):
    made = awake(softmax)
    assert (made.rows, made.columns, made.num_tokens) == (ROWS, COLUMNS, 6)
    out = made(matrix(), questions())
    assert out.tokens.shape == (3, 6, WIDTH)
    assert out.valid.all()
    assert torch.allclose(out.shares.sum(-1), torch.ones(3, 2), atol=1e-6)
    assert torch.equal(out.shares[:, 0], out.shares[:, 1])
    assert torch.equal(made(matrix(), questions() * -3).tokens, out.tokens)
    assert not made.per_question


def test_a_window_is_the_cell_and_a_little_more():
    made = awake()
    places = torch.tensor([[[1 / 6, 1 / 4], [0.5, 0.5], [0.99, 0.01], [torch.nan, torch.nan], [0.25, 0.6]]])
    seen = made.windows(places)[0].view(ROWS, COLUMNS, 5)
    assert seen[..., 0].tolist() == [[True, False, False], [False, False, False]]
    assert seen[..., 1].tolist() == [[False, True, False], [False, True, False]]
    assert seen[..., 2].tolist() == [[False, False, True], [False, False, False]]
    assert seen[..., 3].all()
    assert seen[..., 4].tolist() == [[True, True, False], [True, True, False]]


def test_every_place_is_seen_by_some_cell():
    across = torch.linspace(0, 1, 41)
    places = torch.cartesian_prod(across, across).unsqueeze(0)
    assert SpatialSampler(LAYOUT, heads=2, window=0.5).windows(places).any(1).all()


@EACH
def test_a_cell_depends_on_its_window_and_on_nothing_else(softmax):
    """Cells never read each other, so a changed token shows only where it is seen."""
    made, seen = awake(softmax), matrix()
    before = made(seen, questions()).tokens
    for token in range(7):
        tokens = seen.tokens.clone()
        tokens[:, token] = tokens[:, token].flip(-1)
        changed = (made(replace(seen, tokens=tokens), questions()).tokens - before).abs().amax(-1) > 1e-5
        wanted = made.windows(seen.places)[:, :, token] & seen.valid[:, token : token + 1]
        assert torch.equal(changed, wanted)


@EACH
def test_one_block_is_the_softmax_written_out(softmax):
    made, seen = awake(softmax, depth=1, heads=1), matrix(batch=1)
    block, sight = made.blocks[0], made.windows(seen.places)[0]
    x = made.everywhere + made.cells
    normed = block.norm(x)
    chosen = block.choose(normed).softmax(-1) if softmax == "separate" else None
    read, mass = torch.zeros(6, WIDTH), torch.zeros(6, 3)
    for cell in range(6):
        found = [t for t in range(7) if sight[cell, t] and seen.valid[0, t]]
        power, said = {}, {}
        for t in found:
            e = int(OWNER[t])
            token = block.expert_norms[e](seen.tokens[0, t])
            power[t] = (block.query(normed[cell]) @ block.keys[e](token) / WIDTH**0.5).exp()
            said[t] = block.values[e](token)
        for t in found:
            mine = [p for u, p in power.items() if softmax == "joint" or OWNER[u] == OWNER[t]]
            weight = power[t] / (1 + sum(mine)) * (1 if chosen is None else chosen[cell, OWNER[t]])
            read[cell] += weight * said[t]
            mass[cell, OWNER[t]] += weight
    x = x + block.out(read)
    out = made(seen, questions(1))
    assert torch.allclose(out.tokens[0], x + block.feed(x), atol=1e-5)
    assert torch.allclose(out.shares[0, 0], mass.mean(0) / mass.mean(0).sum(), atol=1e-5)


@EACH
def test_every_parameter_gets_a_gradient(softmax):
    made = awake(softmax)
    made(matrix(), questions()).tokens.square().sum().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@EACH
@pytest.mark.parametrize("expert", range(3))
def test_an_absent_experts_tokens_change_nothing(expert, softmax):
    made, seen = awake(softmax), matrix().with_presence(without(expert))
    out = made(seen, questions())
    mine = OWNER.eq(expert).unsqueeze(-1)
    other = replace(seen, tokens=seen.tokens.masked_fill(mine, torch.nan), places=seen.places.masked_fill(mine, 0.5))
    again = made(other, questions())
    assert torch.equal(out.tokens, again.tokens)
    assert torch.equal(out.shares, again.shares)
    assert out.shares[..., expert].eq(0).all()
    assert torch.allclose(out.shares.sum(-1), torch.ones(3, 2), atol=1e-6)


@EACH
def test_no_expert_at_all_is_finite_and_unread(softmax):
    out = awake(softmax)(matrix().with_presence(without(0, 1, 2)), questions())
    assert out.tokens.isfinite().all()
    assert not out.valid.any()
    assert out.shares.eq(0).all()


@EACH
def test_slots_of_an_expert_are_a_set(softmax):
    made, seen = awake(softmax), matrix()
    order = torch.tensor([2, 0, 1, 3, 6, 5, 4])
    turned = ExpertMatrix(
        seen.tokens[:, order],
        seen.confidence[:, order],
        seen.valid[:, order],
        seen.present,
        OWNER,
        seen.places[:, order],
    )
    assert torch.allclose(made(seen, questions()).tokens, made(turned, questions()).tokens, atol=1e-5)


@pytest.mark.parametrize("options", [{"softmax": "both"}, {"depth": 0}, {"window": 0.4}, {"heads": 3}])
def test_bad_options_are_named(options):
    with pytest.raises(AstreaError):
        SpatialSampler(LAYOUT, **options)
