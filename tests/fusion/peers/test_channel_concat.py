"""Maps stacked on channels, projected together."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from astrea.fusion.peers.channel_concat import ChannelConcat


def test_it_equals_concatenation_and_two_layers(layout, make_matrix, make_questions):
    made, seen = ChannelConcat(layout, hidden=12), make_matrix()
    maps = made.grid(seen)
    stacked = torch.cat([maps[:, 0], maps[:, 1], maps[:, 2]], -1)
    first, _, second = made.project
    assert first.weight.shape == (12, 24)
    wanted = F.linear(F.gelu(F.linear(stacked, first.weight, first.bias)), second.weight, second.bias)
    out = made(seen, make_questions())
    assert torch.allclose(out.tokens, wanted + made.grid.position, atol=1e-6)
    assert out.valid.all()
    assert out.shares.shape == (3, 2, 3)


def test_the_hidden_width_is_the_language_models_by_default(layout):
    assert ChannelConcat(layout).project[0].out_features == layout.width


def test_an_absent_experts_channels_are_zeros(layout, make_matrix, make_questions):
    """As if the columns of the first layer that read it were not there."""
    made, seen = ChannelConcat(layout), make_matrix(absent=(1,))
    before = made(seen, make_questions()).tokens
    with torch.no_grad():
        made.project[0].weight[:, 8:16] = 50.0
    assert torch.equal(made(seen, make_questions()).tokens, before)
    assert not torch.allclose(made(make_matrix(), make_questions()).tokens, before, atol=0.1)
