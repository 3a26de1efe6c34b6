"""The word loss against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from astrea.training.losses.words import WordContrast, many_positives

VOCABULARY, WIDTH = 12, 5
# Word 1 stands in every caption, words 2 to 6 in some, the others in none.
CORPUS = [[1, 2, 3], [1, 3, 4], [1, 5, 2], [1, 6], [1, 2, 5, 5], [1, 6, 4], [1, 3], [1]]


@pytest.fixture
def words() -> WordContrast:
    return WordContrast(CORPUS, VOCABULARY)


def example() -> tuple[torch.Tensor, torch.Tensor, list[list[int]], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 4, WIDTH, generator=generator)
    valid = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 1, 1]]).bool()
    return tokens, valid, [[1, 2, 3], [1, 3, 4, 9], [1, 5, 5]], torch.randn(VOCABULARY, WIDTH, generator=generator)


def slow(words: WordContrast, tokens, valid, captions, table) -> float:
    scale, bias = words.scale.item(), words.bias.item()
    kept = sorted({w for ids in captions for w in ids if words.weight[w] > 0})
    score, here = {}, {}
    for b, ids in enumerate(captions):
        for w in kept:
            best = max(
                float(torch.dot(tokens[b, t], table[w]) / tokens[b, t].norm() / table[w].norm())
                for t in range(tokens.shape[1])
                if valid[b, t]
            )
            score[b, w], here[b, w] = scale * best, w in ids
    total = by_word = by_picture = bce = 0.0
    rows = range(len(captions))
    for b in rows:
        for w in kept:
            own, weight = math.exp(score[b, w]), float(words.weight[w])
            probability = 1 / (1 + math.exp(-(score[b, w] + bias)))
            bce -= 2 * math.log(probability) if here[b, w] else math.log(1 - probability)
            if here[b, w]:
                total += weight
                word_rivals = sum(math.exp(score[b, v]) for v in kept if not here[b, v])
                picture_rivals = sum(math.exp(score[a, w]) for a in rows if not here[a, w])
                by_word -= weight * math.log(own / (own + word_rivals))
                by_picture -= weight * math.log(own / (own + picture_rivals))
    return (by_word + by_picture) / 2 / total + bce / len(score)


def test_it_equals_a_slow_reference(words):
    arguments = example()
    assert words(*arguments).item() == pytest.approx(slow(words, *arguments), rel=1e-4)


def test_rare_words_weigh_more_and_common_or_unknown_ones_nothing(words):
    weight = words.weight
    assert weight[1] == 0  # in every caption
    assert weight[[0, 7, 8, 9, 10, 11]].eq(0).all()  # in none
    counts = {w: sum(w in ids for ids in CORPUS) for w in range(2, 7)}
    assert weight.max() == 1
    for w, count in counts.items():
        assert weight[w].item() == pytest.approx(math.log(8 / count) / math.log(8 / 2))
    assert WordContrast(CORPUS, VOCABULARY, common=0.3).weight[3] == 0


def test_common_words_change_nothing(words):
    tokens, valid, captions, table = example()
    bare = [[w for w in ids if words.weight[w] > 0] for ids in captions]
    assert bare != captions
    assert words(tokens, valid, bare, table).item() == words(tokens, valid, captions, table).item()


def test_tokens_that_are_not_valid_change_nothing(words):
    tokens, valid, captions, table = example()
    other = torch.where(valid.unsqueeze(-1), tokens, 100.0)
    assert words(other, valid, captions, table).item() == words(tokens, valid, captions, table).item()


@pytest.mark.parametrize("captions", [[[1], [1, 9], []], [[], [], []]])
def test_no_telling_word_is_no_loss(words, captions):
    tokens, valid, _, table = example()
    tokens.requires_grad_()
    loss = words(tokens, valid, captions, table)
    loss.backward()
    assert loss.item() == 0
    assert tokens.grad.eq(0).all()


def test_gradient_reaches_the_tokens_and_its_own_scale_but_not_the_word_table(words):
    tokens, valid, captions, table = example()
    tokens.requires_grad_()
    table.requires_grad_()
    words(tokens, valid, captions, table).backward()
    assert tokens.grad[valid].abs().sum() > 0
    assert tokens.grad[~valid].eq(0).all()
    assert table.grad is None
    assert words.scale.grad.abs() > 0
    assert words.bias.grad.abs() > 0


def test_descending_brings_tokens_to_their_words(words):
    tokens, valid, captions, table = example()
    tokens.requires_grad_()
    optimizer = torch.optim.Adam([tokens], lr=0.05)
    first = words(tokens, valid, captions, table).item()
    for _ in range(60):
        optimizer.zero_grad()
        words(tokens, valid, captions, table).backward()
        optimizer.step()
    assert words(tokens, valid, captions, table).item() < 0.5 * first
    cosine = torch.cosine_similarity(tokens[2, valid[2]].unsqueeze(1), table[[5, 2, 3, 4]].unsqueeze(0), dim=-1)
    assert cosine.amax(0).argmax() == 0


def test_positives_of_one_row_do_not_compete():
    score = torch.tensor([[2.0, 1.0, 0.0]])
    both = many_positives(score, torch.tensor([[1.0, 1.0, 0.0]]))
    assert both[0, 0].item() == pytest.approx(math.log(1 + math.exp(0 - 2)))
    assert both[0, 1].item() == pytest.approx(math.log(1 + math.exp(0 - 1)))
    assert many_positives(score, torch.ones(1, 3)).max() < 1e-6
