"""The yardstick of shares: averages of what was measured, and shares in proportion to it."""

from __future__ import annotations

import pytest
import torch

from astrea.fusion.contribution import DECAY, Contributions


def test_the_first_measurements_count_alike_and_then_it_moves():
    known = Contributions(2, 3)
    values = [torch.tensor([1.0, 2.0, 3.0]) * k for k in (1, 2, 6)]
    for value in values:
        known.learn(0, value)
    torch.testing.assert_close(known.table[0], torch.stack(values).mean(0))
    assert known.seen.tolist() == [3, 0]
    assert (known.table[1] == 0).all()
    for _ in range(20):
        known.learn(0, torch.zeros(3))
    before = known.table[0].clone()
    known.learn(0, torch.zeros(3))
    torch.testing.assert_close(known.table[0], DECAY * before)


def test_shares_follow_contributions_and_nobody_starves():
    known = Contributions(3, 4)
    known.table[0] = torch.tensor([0.0, 1.0, 2.0, -1.0])
    known.table[2] = torch.tensor([0.0, 0.0, 0.0, 50.0])
    told = known.targets(torch.zeros(4))
    torch.testing.assert_close(told.sum(1), torch.ones(3))
    assert told[0, :4].argsort().tolist()[-2:] == [1, 2]
    assert told[0, 0] == told[0, 3]
    assert (told[1, :4] == told[1, 0]).all()
    assert (told > 0.005).all()
    # Where more is lost without them, more goes to the experts, and not to nobody.
    assert told[1, 4] > told[0, 4] > told[2, 4]
    # One that is worth four times as much gets twice the share.
    known.table[1] = torch.tensor([0.4, 1.6, 0.4, 0.0])
    shares = known.targets(torch.zeros(4))[1]
    assert float(shares[1] / shares[0]) == pytest.approx(2, rel=0.01)


def test_the_load_bias_shifts_the_target_as_it_shifts_the_shares():
    known, bias = Contributions(1, 3), torch.tensor([0.5, -0.2, 0.0])
    known.table[0] = torch.tensor([0.3, 0.1, 0.0])
    plain = known.targets(torch.zeros(3))
    shifted = (plain.log() + torch.cat([bias, torch.zeros(1)])).softmax(1)
    torch.testing.assert_close(known.targets(bias), shifted)


def test_a_state_is_put_back():
    known, other = Contributions(2, 2), Contributions(2, 2)
    known.learn(1, torch.tensor([1.0, 2.0]))
    other.load_state_dict({name: value.clone() for name, value in known.state_dict().items()})
    assert torch.equal(other.table, known.table)
    assert torch.equal(other.seen, known.seen)
