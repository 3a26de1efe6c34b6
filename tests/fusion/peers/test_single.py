"""One expert alone: it is read, nobody else is."""

from __future__ import annotations

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.fusion.peers.single import SingleExpert


@pytest.mark.parametrize("index", range(3))
def test_only_its_tokens_are_valid_and_the_share_is_its_own(index, layout, make_matrix, make_questions):
    made, seen = SingleExpert(layout, expert=layout.names[index]), make_matrix()
    out = made(seen, make_questions())
    mine = seen.expert == index
    assert torch.equal(out.valid, seen.valid & mine)
    assert torch.equal(out.shares, torch.eye(3)[index].expand(3, 2, 3))
    assert made.num_tokens == layout.tokens
    assert out.bias is None


def test_tokens_stay_as_they_are_but_for_the_slot(layout, make_matrix, make_questions):
    made, seen = SingleExpert(layout, expert="b"), make_matrix()
    out = made(seen, make_questions())
    assert torch.allclose(out.tokens[:, 3:6] - seen.tokens[:, 3:6], made.slot.expand(3, -1, -1), atol=1e-6)
    assert made.slot.shape == (3, layout.width)
    assert 0 < made.slot.std() < 0.04


def test_without_its_expert_nothing_is_valid(layout, make_matrix, make_questions):
    out = SingleExpert(layout, expert="b")(make_matrix(absent=(1,)), make_questions())
    assert not out.valid.any()
    assert out.shares.eq(0).all()


def test_an_unknown_expert_is_told_from_the_known(layout):
    with pytest.raises(AstreaError, match="no expert 'd'") as error:
        SingleExpert(layout, expert="d")
    assert "a, b, c" in error.value.hint
