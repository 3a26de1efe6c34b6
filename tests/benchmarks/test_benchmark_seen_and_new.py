"""benchmarks/seen_and_new.py: what is read of which finding, what tells seen from new, and how choices are counted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from astrea.alignment.known_words import KnownWords
from astrea.alignment.matrix import ExpertMatrix
from astrea.experts.protocol import ExpertFeatures
from benchmark_scripts import benchmark_script
from phrase_experts import phrase_matrix

script = benchmark_script("seen_and_new")
things = benchmark_script("familiar_things")


def matrix() -> ExpertMatrix:
    """Experts: 0 has two findings of features (phrase 0) and words (phrase 1), 1 has words alone, 2 one finding of
    words first and features (phrase 1) behind them."""
    features = [True, False, False, True, False, False, False, False, True]
    return phrase_matrix([0, 0, 0, 0, 0, 0, 1, 2, 2], features, [0, 0, 1, 0, 0, 1, 0, 0, 1], place=0.5)


def alignment() -> SimpleNamespace:
    adapters = {
        "a": SimpleNamespace(features=[True, False, False], phrase=[0, 0, 1]),
        "b": SimpleNamespace(features=[False], phrase=[0]),
        "c": SimpleNamespace(features=[False, True], phrase=[0, 1]),
    }
    return SimpleNamespace(names=list(adapters), adapters=adapters, each=[3, 1, 2])


def test_findings_with_two_ways_are_found_in_the_matrix():
    assert things.two_ways(alignment()) == ["a", "c"]
    where = things.layout(alignment(), matrix())
    assert where.expert.tolist() == [0, 0, 2]
    assert where.token.tolist() == [0, 3, 8]
    assert where.finding.tolist() == [0, 0, 0, 1, 1, 1, -1, 2, 2]


def test_each_finding_is_read_as_it_is_to_be_believed():
    where = things.layout(alignment(), matrix())
    words, features = torch.tensor([[True, False, False]]), torch.tensor([[False, True, True]])
    read = script.believed(matrix(), where, words, features).valid[0].tolist()
    assert read == [False, False, True, True, True, False, True, False, True]
    empty = replace(matrix(), valid=torch.zeros(1, 9, dtype=torch.bool))
    assert not script.believed(empty, where, words, features).valid.any()


def test_signals_tell_a_finding_like_those_of_training_from_another():
    experts = {"a": SimpleNamespace(slots={"feature": (0, 2), "thing": (2, 4)})}
    training = {"a": ExpertFeatures(torch.tensor([[[1.0, 0, 1, 0], [-1, 0, 1, 0]]]), torch.ones(1, 2))}
    remembered = things.memory(experts, training)
    assert remembered["a"].said.tolist() == [1, 0]
    known = KnownWords(torch.zeros(4), torch.eye(4)[:2], torch.full((1,), -torch.inf), torch.full((1, 2), torch.nan))
    seen = ExpertFeatures(torch.tensor([[[1.0, 0, 1, 0], [0, 1, 0, 1]]]), torch.ones(1, 2))
    made = replace(matrix(), tokens=torch.eye(4)[[0, 0, 0, 3, 0, 0, 0, 0, 0]][None])
    where = things.Layout(torch.tensor([0, 0]), torch.tensor([0, 3]), torch.zeros(9))
    (old, new) = things.findings(experts, known, remembered, {"a": seen}, made, where).signals[0].tolist()
    assert old[:2] == [1, 1]
    assert new[:2] == [0, 0]
    assert old[2] > new[2]
    assert old[3] == pytest.approx(0)  # one as near as can be, one as far
    assert new[3] == pytest.approx(0)


def found(place: list[tuple[float, float]], there: list[bool]) -> object:
    return things.Findings(
        torch.zeros(1, len(place), 1), torch.tensor([place]), torch.tensor([there]), torch.zeros(len(place)).long()
    )


def test_neighbours_share_what_they_say_and_those_that_are_not_there_say_nothing():
    some = found([(0.1, 0.1), (0.1, 0.15), (0.9, 0.9), (0.1, 0.12)], [True, True, True, False])
    odds = torch.tensor([[1.0, 3.0, 5.0, 100.0]])
    assert things.pooled(odds, some, 0.1).tolist()[0][:3] == [2, 2, 5]
    assert things.pooled(odds, some, 0.0).tolist() == odds.tolist()


def test_a_choice_is_counted_by_thing_and_by_most_of_its_findings():
    boxes = [(0, 0, 60, 60), (10, 10, 20, 20)]
    scene = SimpleNamespace(spec=SimpleNamespace(canvas=100), things=[SimpleNamespace(box=box) for box in boxes])
    some = found([(0.4, 0.4), (0.5, 0.5), (0.15, 0.15), (0.9, 0.9)], [True, True, True, True])
    owner = things.owners(some, [scene])
    assert owner.tolist() == [[0, 0, 1, -1]]
    counted = things.Things(some, owner, [["cat", "toucan"]])
    new = torch.tensor([[False, False, True, True]])
    assert counted.chosen(new, frozenset({"toucan"})) == [True]
    assert counted.chosen(new, frozenset({"cat"})) == [False]
    assert counted.chosen(new, frozenset({"dog"})) == []
    assert counted.balanced(new, frozenset({"cat"}), frozenset({"toucan"})) == (1, 1)
    assert counted.balanced(~new, frozenset({"cat"}), frozenset({"toucan"})) == (0, 0)


def test_the_allocator_learns_which_signal_tells_and_where_to_stop():
    rng = torch.Generator().manual_seed(0)
    count = 60
    new = torch.arange(count) % 2 == 0
    signals = torch.randn(count, 1, 4, generator=rng)
    signals[:, 0, 3] -= 8.0 * new
    some = things.Findings(signals, torch.full((count, 1, 2), 0.5), torch.ones(count, 1).bool(), torch.tensor([0]))
    names = [["toucan" if each else "cat"] for each in new.tolist()]
    counted = things.Things(some, torch.zeros(count, 1).long(), names)
    tried = things.fitted(counted, frozenset({"cat"}), frozenset({"toucan"}))
    score, allocator = tried[0]
    assert allocator.design == "features and own words"
    assert score > 0.95
    assert sum(counted.balanced(allocator.new(some), frozenset({"cat"}), frozenset({"toucan"}))) / 2 == score
    alone = max(score for score, each in tried if each.design == "the nearest word alone")
    assert alone < 0.8


def test_a_shifted_picture_is_darker_softer_and_the_same_again():
    board = (torch.arange(32) % 2).float().expand(1, 3, 32, 32)
    dark = script.shifted(board, 1)
    assert torch.equal(dark, script.shifted(board, 1))
    assert not torch.equal(dark, script.shifted(board, 2))
    assert 0.2 < float(dark.mean()) < 0.35
    assert float(dark.std()) < 0.5 * float(board.std())
    assert 0 <= float(dark.min()) <= float(dark.max()) <= 1
