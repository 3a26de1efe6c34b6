"""All tokens side by side."""

from __future__ import annotations

import torch

from astrea.fusion.peers.sequence_concat import SequenceConcat


def test_without_slots_tokens_are_as_they_are(layout, make_matrix, make_questions):
    made, seen = SequenceConcat(layout, slot_embedding=False), make_matrix(absent=(1,))
    out = made(seen, make_questions())
    assert torch.equal(out.tokens, seen.tokens)
    assert torch.equal(out.valid, seen.valid)
    assert torch.allclose(out.shares, torch.tensor([0.5, 0.0, 0.5]).expand(3, 2, 3))
    assert out.bias is None
    assert not list(made.parameters())


def test_a_slot_says_which_it_is(layout, make_matrix, make_questions):
    made, seen = SequenceConcat(layout), make_matrix()
    shift = made(seen, make_questions()).tokens - seen.tokens
    assert torch.allclose(shift, made.slot.expand(3, -1, -1), atol=1e-6)
    assert made.slot.shape == (layout.tokens, layout.width)
    assert (torch.cdist(made.slot, made.slot) + torch.eye(layout.tokens)).min() > 1e-3
