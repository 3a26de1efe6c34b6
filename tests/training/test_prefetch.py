"""Batches made ahead: their order, what goes wrong while one is made, and leaving early."""

from __future__ import annotations

import threading
import traceback

import pytest

from astrea.training.prefetch import DEPTH, prefetch


def test_batches_come_in_order_and_each_is_made_once():
    made: list[tuple[int, int]] = []

    def make(step: int, micro: int) -> str:
        made.append((step, micro))
        return f"{step}.{micro}"

    wanted = [(step, micro) for step in range(5) for micro in range(3)]
    with prefetch(make, wanted) as batches:
        assert [batches.next() for _ in wanted] == [f"{step}.{micro}" for step, micro in wanted]
    assert made == wanted


def test_batches_are_made_by_another_thread_and_no_further_ahead_than_need_be():
    begun: list[int] = []
    threads: set[str] = set()
    going = threading.Semaphore(0)

    def make(number: int) -> int:
        threads.add(threading.current_thread().name)
        begun.append(number)
        going.release()
        return number

    with prefetch(make, ((number,) for number in range(100))) as batches:
        for taken in range(3):
            assert batches.next() == taken
        for _ in range(3 + DEPTH):
            assert going.acquire(timeout=30)
        assert not going.acquire(timeout=0.05)
        assert begun == list(range(3 + DEPTH))
    assert len(threads) == 1
    assert threading.current_thread().name not in threads


def broken_maker(number: int) -> int:
    if number == 2:
        raise ValueError(f"batch {number} is broken")
    return number


def test_what_making_a_batch_raises_reaches_whoever_asks_for_it_with_its_traceback():
    with prefetch(broken_maker, ((number,) for number in range(9))) as batches:
        assert [batches.next(), batches.next()] == [0, 1]  # those before it are given out all the same
        with pytest.raises(ValueError, match="batch 2 is broken") as caught:
            batches.next()
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "broken_maker"


def test_leaving_early_gives_up_what_was_not_begun_and_ends_the_thread():
    begun: list[int] = []
    hold = threading.Event()

    def make(number: int) -> int:
        begun.append(number)
        if number:
            assert hold.wait(30)
        return number

    def leave() -> None:
        with prefetch(make, ((number,) for number in range(100))) as batches:
            assert batches.next() == 0
            threading.Timer(0.1, hold.set).start()
            raise KeyError("the caller's own")

    before = threading.active_count()
    with pytest.raises(KeyError, match="the caller's own"):
        leave()
    assert begun in ([0], [0, 1])
    hold.wait(30)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
    assert threading.active_count() <= before + 1  # the timer may still be ending


def test_waiting_is_measured():
    hold = threading.Event()

    def make(number: int) -> int:
        if number == 1:
            assert hold.wait(30)
        return number

    with prefetch(make, [(0,), (1,)]) as batches:
        batches.next()
        first = batches.waited
        threading.Timer(0.2, hold.set).start()
        batches.next()
        assert batches.waited >= first + 0.15


def test_nothing_wanted_is_nothing_made():
    with prefetch(broken_maker, []) as batches:
        assert batches.waited == 0
        with pytest.raises(IndexError):
            batches.next()
