"""Experts look at pictures in a thread of their own: together, in order, and each request fails alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from astrea.serving.features import Picture
from astrea.serving.job import Job, Prompt
from astrea.serving.sampling import Sampling
from astrea.serving.vision import Vision


class Cache:
    """Stands for the experts: notes which pictures it is shown together, and waits if it is told to."""

    def __init__(self) -> None:
        self.shown: list[list[str]] = []
        self.kept: set[str] = set()
        self.go_on = threading.Event()
        self.go_on.set()

    def each(self, pictures, skipped, again):
        self.shown.append([picture.key for picture in pictures])
        self.go_on.wait(20)
        if any(picture.key == "bad" for picture in pictures):
            raise MemoryError
        return [{"expert": picture.key} for picture in pictures]

    def lacks(self, name, pictures):
        return {picture.key for picture in pictures} - self.kept


class Expected:
    """Nothing is skipped but where a picture's name says so; it cannot be told of "odd". Notes what it is asked."""

    names = ("expert", "other")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def skipped(self, prompt: Prompt) -> set[str]:
        self.asked.append(prompt.pictures[0].key)
        if self.asked[-1] == "odd":
            raise ArithmeticError
        return {"other"} if self.asked[-1] == "few" else set()


class Eyes:
    """A `Vision` over a `Cache`, and what it hands on."""

    def __init__(self, most: int, running: int = 0) -> None:
        self.cache, self.expected, self.seen, self.failed, self.errors = Cache(), Expected(), [], [], []
        self.running = running
        self.vision = Vision(self.cache, self.expected, most, lambda: self.running, self.seen.extend, self.fail)

    def fail(self, job: Job, error: Exception) -> None:
        self.failed.append(job)
        self.errors.append(type(error))

    def look(self, *names: str, seconds: float = 60.0) -> Job:
        pictures = tuple(Picture(name, torch.zeros(0)) for name in names)
        job = Job(
            Prompt(torch.zeros(1), torch.zeros(1), pictures), Sampling(), choices=1, most=1, stops=(),
            deadline=time.monotonic() + seconds, decode=str, emit=lambda piece: None,
        )  # fmt: skip
        self.vision.look(job)
        return job


@pytest.fixture
def eyes() -> Iterator[Eyes]:
    found = Eyes(most=3)
    yield found
    found.cache.go_on.set()
    if found.vision.alive:
        found.vision.stop()


def test_requests_that_wait_are_looked_at_together_up_to_a_number_of_pictures_and_in_order(eyes: Eyes):
    jobs = [eyes.look("a", "b"), eyes.look("c"), eyes.look("d"), eyes.look("e", "f", "g", "h")]
    assert eyes.vision.waiting == 4
    eyes.vision.start()
    eyes.vision.stop()
    assert eyes.cache.shown == [["a", "b", "c"], ["d"], ["e", "f", "g", "h"]]
    assert eyes.seen == jobs
    assert [[one["expert"] for one in job.seen] for job in jobs] == [["a", "b"], ["c"], ["d"], ["e", "f", "g", "h"]]
    assert eyes.vision.waiting == 0


def test_a_request_whose_pictures_cannot_be_looked_at_fails_alone(eyes: Eyes):
    jobs = [eyes.look("a"), eyes.look("bad"), eyes.look("b")]
    eyes.vision.start()
    eyes.vision.stop()
    assert eyes.failed == [jobs[1]]
    assert eyes.seen == [jobs[0], jobs[2]]


def test_what_nobody_waits_for_is_handed_on_unseen(eyes: Eyes):
    jobs = [eyes.look("a"), eyes.look("b"), eyes.look("c", seconds=-1)]
    jobs[0].cancel()
    eyes.vision.start()
    eyes.vision.stop()
    assert eyes.cache.shown == [["b"]]
    assert sorted(eyes.seen, key=jobs.index) == jobs
    assert [job.seen is None for job in jobs] == [True, False, True]


def test_while_others_are_answered_it_waits_for_more_pictures_but_not_for_long():
    eyes = Eyes(most=16, running=8)
    eyes.vision._looking_takes = 1000.0
    eyes.vision.start()
    first = eyes.look("a")
    time.sleep(0.03)
    assert eyes.cache.shown == []
    second = eyes.look("b")  # one for every four that are answered
    _until(lambda: eyes.seen == [first, second])
    assert eyes.cache.shown == [["a", "b"]]
    eyes.vision._looking_takes = 0.01
    eyes.look("c")  # nobody else comes
    _until(lambda: len(eyes.seen) == 3)
    eyes.vision._looking_takes = 1000.0
    eyes.look("d")
    eyes.running = 0  # those who were answered are done
    _until(lambda: len(eyes.seen) == 4)
    eyes.vision.stop()


def _until(true) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_who_looks_again_rides_along_and_only_what_is_new_is_run(eyes: Eyes):
    jobs = [eyes.look("a"), eyes.look("b"), eyes.look("c"), eyes.look("few"), eyes.look("e")]
    jobs[1].seen, jobs[1].skipped, jobs[1].wanted = [{"expert": "old", "other": "blank"}], [{"other"}], {"other"}
    asked, again_of = [], []
    each = eyes.cache.each

    def noted(pictures, skipped, again):
        again_of.extend(again)
        asked.extend(zip([picture.key for picture in pictures], skipped, strict=True))
        return [{**one, "other": f"new {one['expert']}"} for one in each(pictures, skipped, again)]

    eyes.cache.each = noted
    eyes.vision.start()
    eyes.vision.stop()
    # Three pictures for an expert at most; one looks again beside them.
    assert eyes.cache.shown == [["a", "b", "c", "few"], ["e"]]
    assert again_of == [False, True, False, False, False]
    assert dict(asked)["b"] == {"expert"}
    assert dict(asked)["a"] == set()
    assert jobs[1].seen == [{"expert": "old", "other": "new b"}]
    assert jobs[1].skipped == [set()]


def test_what_a_request_needs_is_worked_out_once_however_long_it_waits(eyes: Eyes):
    jobs = [eyes.look(name) for name in "abcdefg"]
    eyes.vision.start()
    _until(lambda: len(eyes.seen) == 7)
    assert eyes.cache.shown == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert eyes.expected.asked == list("abcdefg")
    jobs[0].wanted.add("other")
    eyes.vision.look(jobs[0])  # once for every look
    eyes.vision.stop()
    assert eyes.expected.asked == list("abcdefga")


def test_a_request_whose_need_cannot_be_worked_out_fails_alone(eyes: Eyes):
    jobs = [eyes.look("odd"), eyes.look("a"), eyes.look("odd"), eyes.look("b")]
    eyes.vision.start()
    eyes.vision.stop()
    assert eyes.failed == [jobs[0], jobs[2]]
    assert eyes.errors == [ArithmeticError, ArithmeticError]
    assert eyes.cache.shown == [["a", "b"]]
    assert eyes.seen == [jobs[1], jobs[3]]
    assert eyes.expected.asked == ["odd", "a", "odd", "b"]
    assert eyes.vision.waiting == 0


def test_others_hand_in_requests_while_it_is_worked_out_what_one_needs(eyes: Eyes):
    asked, go_on = threading.Event(), threading.Event()
    skipped = eyes.expected.skipped

    def slowly(prompt: Prompt) -> set[str]:
        asked.set()
        assert go_on.wait(20)
        return skipped(prompt)

    eyes.expected.skipped = slowly
    eyes.vision.start()
    eyes.look("a")
    assert asked.wait(20)
    other = threading.Thread(target=lambda: eyes.look("b"), daemon=True)
    other.start()
    other.join(20)
    free = not other.is_alive()
    go_on.set()
    assert free
    eyes.vision.stop()
    assert [job.prompt.pictures[0].key for job in eyes.seen] == ["a", "b"]


def test_pictures_that_have_been_seen_before_do_not_count(eyes: Eyes):
    eyes.cache.kept = {"a", "b", "c", "d"}
    for names in ("a", "b", "e", "c", "e", "f", "d", "g", "h"):
        eyes.look(names)
    eyes.vision.start()
    eyes.vision.stop()
    # Three new ones at most; one that is asked about twice is looked at once.
    assert eyes.cache.shown == [["a", "b", "e", "c", "e", "f", "d", "g"], ["h"]]
