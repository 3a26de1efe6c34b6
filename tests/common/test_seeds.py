"""Everything random is a function of seed, purpose and step."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from astrea.common.seeds import generator_for, sample_indices


def draws(*arguments: object) -> list[float]:
    return torch.rand(4, generator=generator_for(*arguments)).tolist()  # type: ignore[arg-type]


def test_the_same_purpose_gives_the_same_numbers():
    assert draws(0, "fuse", 3) == draws(0, "fuse", 3)
    others = [draws(*a) for a in [(0, "fuse", 3), (1, "fuse", 3), (0, "tune", 3), (0, "fuse", 4), (0, "fuse", 3, 0)]]
    assert len({tuple(d) for d in others}) == 5


def test_a_purpose_does_not_touch_the_global_generator():
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    draws(5, "anything")
    sample_indices(10, 4, 0, 0)
    assert torch.equal(torch.rand(3), wanted)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 23), st.integers(1, 9), st.integers(0, 100), st.integers(0, 5))
def test_every_epoch_holds_every_sample_once(total, size, seed, epoch):
    start = epoch * total
    stream: list[int] = []
    while len(stream) < total:
        stream += sample_indices(total, min(size, total - len(stream)), start + len(stream), seed).tolist()
    assert sorted(stream) == list(range(total))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 23), st.integers(0, 60), st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 9))
def test_a_position_is_the_same_sample_however_one_comes_to_it(total, start, sizes, seed):
    whole = sample_indices(total, sum(sizes), start, seed).tolist()
    parts: list[int] = []
    for size in sizes:
        parts += sample_indices(total, size, start + len(parts), seed).tolist()
    assert parts == whole
    assert parts == [int(sample_indices(total, 1, start + i, seed)) for i in range(len(whole))]


def test_epochs_differ_and_so_do_seeds():
    orders = [tuple(sample_indices(50, 50, position, seed).tolist()) for position, seed in ((0, 0), (50, 0), (0, 1))]
    assert len(set(orders)) == 3
