"""The experts at work in a thread of their own: while they look at the pictures of new requests, the language model
goes on decoding the answers of others."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from astrea.serving.features import FeatureCache
from astrea.serving.job import Job
from astrea.serving.skipping import ExpectedWeights

GATHERED = 4
"""While answers are being decoded, experts look as soon as there is one request for so many of them."""

PATIENCE = 2.0
"""Or when the first has waited so many times as long as looking takes."""

POLL = 0.005
"""Seconds between two looks at how many answers are being decoded."""


@dataclass(frozen=True, slots=True)
class Look:
    """One request's turn. skipped: experts that are not run for it. had: those that have looked at its pictures before,
    and are not run again."""

    job: Job
    skipped: set[str]
    had: set[str]


class Vision:
    """Looks at the pictures of requests, those of several together, in the order in which they come. To look at several
    takes less time than one after another; so does to read their prompts, which come out together.

    Args:
        cache: of the experts' outputs. expected: which experts a question needs.
        most: how many pictures an expert is run on together, if no request has more. Those that it has seen before take
            no time and do not count.
        running: how many answers are being decoded.
        seen: gets requests whose pictures have been seen, from this thread; and those that nobody waits for any more,
            as they came. failed: gets a request whose pictures could not be, and why.
    """

    def __init__(
        self,
        cache: FeatureCache,
        expected: ExpectedWeights,
        most: int,
        running: Callable[[], int],
        seen: Callable[[Sequence[Job]], None],
        failed: Callable[[Job, Exception], None],
    ) -> None:
        self.cache, self.expected, self.most, self._running = cache, expected, most, running
        self._seen, self._failed = seen, failed
        self._looking_takes = 0.0
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._next: Look | None = None
        self._taken: list[Look] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="astrea-vision", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Look at all that has come, then end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """How many requests' pictures have not been seen."""
        return len(self._waiting) + len(self._taken)

    def look(self, job: Job) -> None:
        """Look at a request's pictures when it is their turn. From any thread."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()

    def _run(self) -> None:
        with torch.inference_mode():
            while self._wait():
                unwanted = self._take()
                seen = self._look(self._taken)
                # Before others count them.
                self._taken = []
                self._seen([*unwanted, *seen])

    def _wait(self) -> bool:
        """Until it is time to look at something; false when there is nothing and never will be."""
        with self._changed:
            while not self._waiting:
                if self._stopping:
                    return False
                self._changed.wait()
            while self._gathers():
                self._changed.wait(POLL)
        return True

    def _take(self) -> list[Job]:
        """Take the next requests, as many as are looked at together. Needs no lock: others only add to the end.

        Returns:
            Those on the way that nobody waits for any more.
        """
        unwanted = []
        lacking: dict[str, set[str]] = {name: set() for name in self.expected.names}
        while self._waiting:
            job = self._waiting[0]
            if job.unwanted:
                unwanted.append(job)
            elif (look := self._look_of(job)) is not None:
                # The more experts are skipped, and the more has been seen before, the more pictures come together.
                for name in lacking.keys() - look.skipped - look.had:
                    lacking[name] |= self.cache.lacks(name, job.prompt.pictures)
                if self._taken and max(map(len, lacking.values())) > self.most:
                    break
                self._taken.append(look)
            self._next = None
            self._waiting.popleft()
        return unwanted

    def _look_of(self, job: Job) -> Look | None:
        """Which experts are run for the first that waits, worked out once; None if that fails, and with it the job."""
        if self._next is None:
            try:
                skipped = self.expected.skipped(job.prompt) - job.wanted
            except Exception as error:  # whatever it is, other requests can be looked at
                self._failed(job, error)
                return None
            had = set() if not job.seen else set(job.seen[0]) - job.skipped[0]
            self._next = Look(job, skipped, had)
        return self._next

    def _gathers(self) -> bool:
        """Whether to wait for more pictures, while others are answered."""
        if self._stopping or len(self._waiting) * GATHERED >= self._running():
            return False
        return time.monotonic() - self._waiting[0].timing.came < PATIENCE * self._looking_takes

    def _look(self, looks: Sequence[Look]) -> list[Job]:
        """Look at pictures together; if that fails, one request's after another, so that one bad request fails alone.

        Returns:
            The requests whose pictures have been seen.
        """
        if not looks:
            return []
        began = time.monotonic()
        each = [(look, picture) for look in looks for picture in look.job.prompt.pictures]
        pictures, not_run = [picture for _, picture in each], [look.skipped | look.had for look, _ in each]
        try:
            found = iter(self.cache.each(pictures, not_run, [look.job.seen is not None for look, _ in each]))
        except Exception as error:  # such as memory that ran out
            if len(looks) == 1:
                self._failed(looks[0].job, error)
                return []
            return [seen for look in looks for seen in self._look([look])]
        took = time.monotonic() - began
        self._looking_takes = (self._looking_takes + took) / 2
        for look in looks:
            job = look.job
            job.timing.waiting += began - (job.timing.ready or job.timing.came)
            job.timing.experts += took
            new = [next(found) for _ in job.prompt.pictures]
            if job.seen is not None:
                both = zip(job.seen, new, strict=True)
                new = [{name: (old if name in look.had else one)[name] for name in one} for old, one in both]
            job.seen, job.skipped = new, [look.skipped] * len(new)
        return [look.job for look in looks]
