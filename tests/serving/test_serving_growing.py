"""A cache that grows in place holds what any other cache holds, whatever is done to its rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.cache_utils import Cache, DynamicCache

from astrea.serving.growing import SPARE, GrowingLayer, Room, growing_cache
from astrea.serving.slots import compacted, merged

CHANGES = st.one_of(
    st.tuples(st.just("grow"), st.integers(1, 3)),
    st.tuples(st.just("select"), st.lists(st.integers(0, 99), min_size=1, max_size=3)),
    st.tuples(st.just("repeat"), st.integers(1, 2)),
    st.tuples(st.just("crop"), st.integers(1, 2)),
    st.tuples(st.just("keep"), st.tuples(st.sets(st.integers(0, 5), min_size=1), st.integers(0, 4))),
    st.tuples(st.just("join"), st.tuples(st.integers(1, 2), st.integers(1, 6))),
    st.tuples(st.just("reset"), st.none()),
)
"""What engines and transformers' generation do to a cache."""


def keys(rows: int, count: int, start: int) -> torch.Tensor:
    """(rows, 2, count, 3), every number another one."""
    return torch.arange(start, start + rows * 2 * count * 3, dtype=torch.float32).reshape(rows, 2, count, 3)


def filled(cache: Cache, new: torch.Tensor) -> Cache:
    """A cache of two layers with keys."""
    for layer in (0, 1):
        cache.update(new, -new, layer)
    return cache


def change_rows(cache: Cache, order: list[int], padding: int) -> None:
    """Keep some rows, as an engine does with either kind of cache."""
    for layer in cache.layers:
        if isinstance(layer, GrowingLayer):
            layer.keep(order, padding)
        else:
            layer.keys, layer.values = layer.keys[order][:, :, padding:], layer.values[order][:, :, padding:]


@given(st.lists(CHANGES, max_size=12))
def test_it_holds_what_a_cache_that_copies_holds(changes):
    grown, copied = growing_cache(), DynamicCache()
    rows, made = 2, 0
    given_out: list[tuple[torch.Tensor, torch.Tensor]] = []
    for change, how in [("grow", 3), *changes]:
        length = copied.get_seq_length()
        if change == "grow" or not length:
            rows = rows if length else 2
            new = keys(rows, how if change == "grow" else 1, made)
            made += new.numel()
            found = [cache.update(new, -new, layer) for layer in (0, 1) for cache in (grown, copied)]
            given_out.append((found[0][0], found[0][0].clone()))
            for mine, theirs in zip(found[0] + found[2], found[1] + found[3], strict=True):
                assert torch.equal(mine, theirs)
            continue
        if change == "join":
            new = keys(*how, made)
            made += new.numel()
            grown = merged([grown, filled(growing_cache(), new)])
            copied = merged([copied, filled(DynamicCache(), new)])
            rows += how[0]
            continue
        if change == "keep":
            order = compacted(sorted({row % rows for row in how[0]}))
            for cache in (grown, copied):
                change_rows(cache, order, min(how[1], length - 1))
            rows = len(order)
            given_out.clear()  # rows that have left are written over
            continue
        for cache in (grown, copied):
            if change == "select":
                cache.batch_select_indices(torch.tensor([row % rows for row in how]))
            elif change == "repeat":
                cache.batch_repeat_interleave(how)
            elif change == "crop" and how < length:
                cache.crop(-how)
            elif change == "reset":
                cache.reset()
        if change in ("select", "repeat"):
            rows = len(how) if change == "select" else rows * how
    assert grown.get_seq_length() == copied.get_seq_length()
    for mine, theirs in zip(grown.layers, copied.layers, strict=True) if copied.get_seq_length() else ():
        assert torch.equal(mine.keys, theirs.keys)
        assert torch.equal(mine.values, theirs.values)
    # What a step was given is never written to by a later one.
    assert all(torch.equal(part, then) for part, then in given_out)


def test_a_step_copies_nothing_until_the_room_is_full():
    room = Room()
    held = room.behind(None, keys(2, 4, 0))
    held = room.behind(held, keys(2, 1, 100))
    place = held.data_ptr()
    for step in range(SPARE):
        held = room.behind(held, keys(2, 1, 200 + step))
        assert held.data_ptr() == place
    full = held
    held = room.behind(full, keys(2, 1, 300))
    assert held.data_ptr() != place
    assert torch.equal(held[:, :, :-1], full)


@pytest.mark.parametrize("changed", [lambda held: held[:1], lambda held: held[:, :, :-1], lambda held: held.clone()])
def test_keys_that_others_have_changed_are_never_written_into(changed):
    room = Room()
    before = room.behind(room.behind(None, keys(2, 4, 0)), keys(2, 1, 100))
    kept, mine = before.clone(), changed(before)
    new = keys(len(mine), 1, 200)
    assert torch.equal(room.behind(mine, new), torch.cat([mine, new], 2))
    assert torch.equal(before, kept)


def test_rows_that_leave_have_one_moved_into_each_place_and_nothing_else_copied():
    assert compacted([0, 1, 2]) == [0, 1, 2]
    assert compacted([1, 3, 4, 6]) == [4, 1, 6, 3]
    assert compacted([5]) == [5]
    assert compacted([]) == []
    room = Room()
    held = room.behind(room.behind(None, keys(5, 4, 0)), keys(5, 1, 200))
    wanted = held[[4, 1, 3], :, 2:].clone()
    kept = room.kept(held, [4, 1, 3], 2)
    assert torch.equal(kept, wanted)
    assert kept[1].data_ptr() == held[1, :, 2:].data_ptr()
    place = kept.data_ptr()
    after = room.behind(kept, keys(3, 1, 300))
    assert after.data_ptr() == place
    assert torch.equal(after, torch.cat([wanted, keys(3, 1, 300)], 2))


def test_rows_that_join_have_room_to_grow():
    room = Room()
    first, second = keys(2, 5, 0), keys(1, 3, 100)
    joined = room.stacked([first, second])
    assert torch.equal(joined[:2], first)
    assert torch.equal(joined[2:, :, 2:], second)
    assert not joined[2:, :, :2].any()
    place = joined.data_ptr()
    assert room.behind(joined, keys(3, SPARE, 200)).data_ptr() == place
