"""Adapters start in the language model's own words."""

from __future__ import annotations

import pytest
import torch

from astrea.alignment.adapter import Adapter
from astrea.language.labels import LabelWords
from astrea.world.experts.captioning import CaptioningExpert
from astrea.world.language.tiny import tiny_tokenizer


@pytest.fixture
def adapter() -> Adapter:
    torch.manual_seed(0)
    return Adapter(6, 10, 4)


def test_without_names_both_maps_start_at_random(adapter):
    x = torch.randn(2, 3, 6)
    assert adapter.mixture(x).abs().min() > 0
    assert adapter.residual(x).abs().min() > 0
    assert torch.equal(adapter(x), adapter.mixture(x) + adapter.residual(x))


def test_with_names_a_token_starts_as_the_mixture_of_its_words(adapter):
    words = torch.randn(6, 4)
    words[5] = 0
    adapter.start_at_words(words)
    share = torch.rand(2, 3, 6).softmax(-1)
    assert torch.allclose(adapter(share), share @ words, atol=1e-6)
    one = torch.eye(6).unsqueeze(0)
    assert torch.equal(adapter(one)[0], words)
    assert adapter(one)[0, 5].eq(0).all()


def test_an_unnamed_channel_is_learned_later(adapter):
    adapter.start_at_words(torch.zeros(6, 4))
    adapter(torch.randn(2, 3, 6)).sum().backward()
    assert adapter.mixture.weight.grad.abs().min() > 0
    last = adapter.residual[-1]
    assert last.weight.grad.abs().sum() > 0
    # Behind the zero start, from the second step on.
    assert adapter.residual[1].weight.grad.eq(0).all()


def test_a_word_start_does_not_tie_the_adapter_to_the_table(adapter):
    table = torch.randn(6, 4, requires_grad=True)
    adapter.start_at_words(table * 1.0)
    adapter(torch.randn(1, 1, 6)).sum().backward()
    assert table.grad is None
    assert adapter.mixture.weight.is_leaf
    assert adapter.mixture.weight.requires_grad


def test_a_compact_experts_tokens_start_as_words():
    tokenizer = tiny_tokenizer()
    table = torch.randn(len(tokenizer), 16, generator=torch.Generator().manual_seed(0))
    adapter = Adapter(CaptioningExpert.width, 8, 16)
    adapter.start_at_words(LabelWords(CaptioningExpert.labels, tokenizer).embed(table))
    seen = CaptioningExpert.ideal([["red", "cat", "left"]])
    word = table[tokenizer.convert_tokens_to_ids(["red", "cat", "left"])]
    step = table[tokenizer.convert_tokens_to_ids(["first", "second", "third"])]
    rest = table[tokenizer.convert_tokens_to_ids("sure")] + table[tokenizer.convert_tokens_to_ids("captioning")]
    assert torch.allclose(adapter(seen.tokens)[0, :3], word + step + rest, atol=1e-5)
