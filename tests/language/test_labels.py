"""Channel names as the language model's own word embeddings."""

from __future__ import annotations

import pytest
import torch

from astrea.language.labels import LabelWords
from astrea.world.language.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


@pytest.fixture
def table() -> torch.Tensor:
    return torch.randn(len(TOKENIZER), 6, generator=torch.Generator().manual_seed(0))


def row(table: torch.Tensor, *words: str) -> torch.Tensor:
    return table[TOKENIZER.convert_tokens_to_ids(list(words))]


def test_one_word_is_its_embedding_and_several_are_their_mean(table):
    found = LabelWords(["cat", "red cat", "zeb"], TOKENIZER).embed(table)
    assert torch.equal(found[0], row(table, "cat")[0])
    assert torch.allclose(found[1], row(table, "red", "cat").mean(0))
    assert torch.allclose(found[2], row(table, "z", "##e", "##b").mean(0))


@pytest.mark.parametrize(
    "labels", [[None, "cat", None, None, "red cat", None], ["cat", None], [None, "cat"], [None, None], ["", "cat"]]
)
def test_channels_without_a_name_are_zero(table, labels):
    found = LabelWords(labels, TOKENIZER).embed(table)
    assert found.shape == (len(labels), 6)
    for label, embedding in zip(labels, found, strict=True):
        if label:
            assert torch.allclose(embedding, row(table, *label.split()).mean(0))
        else:
            assert embedding.eq(0).all()


def test_the_gradient_reaches_the_table(table):
    table.requires_grad_()
    LabelWords(["cat", None, "red cat"], TOKENIZER).embed(table).sum().backward()
    touched = table.grad.abs().sum(1).nonzero().flatten().tolist()
    assert touched == sorted(TOKENIZER.convert_tokens_to_ids(["cat", "red"]))
    assert torch.allclose(table.grad[TOKENIZER.convert_tokens_to_ids("cat")], torch.full((6,), 1.5))
