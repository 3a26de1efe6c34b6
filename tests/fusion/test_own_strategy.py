"""The strategy of docs/add-a-strategy.md does what its page says."""

from __future__ import annotations

import sys

import pytest
import torch

from astrea import AstreaError
from astrea.fusion.protocol import Layout
from fusion_peers import Peer
from repository import EXAMPLES

LAYOUT = Layout(width=8, names=("one", "two"), counts=(3, 5), heads=2)


@pytest.fixture
def peer(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import my_strategy

    yield Peer(my_strategy.SurestTokens, LAYOUT, {"keep": 4})
    sys.modules.pop("my_strategy", None)


def test_the_surest_tokens_of_each_expert_are_read_and_no_others(peer):
    strategy, matrix = peer.strategy(LAYOUT, keep=4), peer.matrix()
    matrix.confidence[1] = torch.tensor([0.1, 0.9, 0.5, 0.5, 0.1, 0.3, 0.4, 0.2])
    fused = strategy(matrix, peer.questions(count=2))
    assert fused.tokens.shape == (3, strategy.num_tokens, 8)
    assert strategy.num_tokens == 3 + 4
    # Token 4, the second expert's least sure one, is the one that is left out.
    assert torch.equal(fused.tokens[1], matrix.tokens[1, [1, 2, 0, 3, 6, 5, 7]])
    assert fused.valid[0].sum() == 6  # the empty slot of the first picture is not read


def test_weights_follow_confidence_and_leave_out_whoever_is_absent(peer):
    strategy, matrix = peer.strategy(LAYOUT, keep=4), peer.matrix()
    matrix.confidence[:, :3] = 0.2
    fused = strategy(matrix, peer.questions())
    assert (fused.shares[..., 0] < fused.shares[..., 1]).all()
    torch.testing.assert_close(fused.shares.sum(-1), torch.ones(3, 1))
    alone = strategy(matrix.with_presence(peer.without(1)), peer.questions())
    assert alone.shares[..., 1].eq(0).all()
    assert not alone.valid[:, 3:].any()
    assert alone.bias.isfinite().all()


def test_its_own_numbers_learn(peer):
    strategy, matrix = peer.awake(), peer.matrix()
    matrix.confidence[:, :3] = 0.2
    fused = strategy(matrix, peer.questions())
    (fused.tokens.square().sum() + fused.bias.square().sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in strategy.parameters())


def test_an_option_that_makes_no_sense_is_an_error(peer):
    with pytest.raises(AstreaError, match="keep is 0"):
        peer.strategy(LAYOUT, keep=0)
