"""The experts at work in a thread of their own: while they look at the pictures of new requests, the language model
goes on decoding the answers of others."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

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


class Vision:
    """Looks at the pictures of requests, those of several together, in the order in which they come. To look at several
    takes less time than one after another; so does to read their prompts, which come out together.

    Args:
        cache: of the experts' outputs. expected: which experts a question needs.
        most: how many pictures an expert looks at together, if no request has more.
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
        self._taken: list[Job] = []
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
            while self._take():
                unwanted = [job for job in self._taken if job.unwanted]
                seen = self._look([job for job in self._taken if job not in unwanted])
                # Before others count them.
                self._taken = []
                self._seen([*unwanted, *seen])

    def _take(self) -> bool:
        """The next requests; false when there are none and never will be."""
        with self._changed:
            while not self._waiting:
                if self._stopping:
                    return False
                self._changed.wait()
            while self._gathers():
                self._changed.wait(POLL)
            pictures = dict.fromkeys(self.expected.names, 0)
            while self._waiting:
                # The more experts are skipped, the more pictures come together.
                for name in self._needed(self._waiting[0]):
                    pictures[name] += len(self._waiting[0].prompt.pictures)
                if self._taken and max(pictures.values()) > self.most:
                    break
                self._taken.append(self._waiting.popleft())
        return True

    def _needed(self, job: Job) -> set[str]:
        """The experts that will be run for a request; all of them where that cannot be told, as `_look` will find."""
        try:
            return (set(self.expected.names) - (self.expected.skipped(job.prompt) - job.wanted)) - had_run(job)
        except Exception:
            return set(self.expected.names)

    def _gathers(self) -> bool:
        """Whether to wait for more pictures, while others are answered."""
        if self._stopping or len(self._waiting) * GATHERED >= self._running():
            return False
        return time.monotonic() - self._waiting[0].timing.came < PATIENCE * self._looking_takes

    def _look(self, jobs: Sequence[Job]) -> list[Job]:
        """Look at pictures together; if that fails, one request's after another, so that one bad request fails alone.

        Returns:
            The requests whose pictures have been seen.
        """
        began = time.monotonic()
        try:
            skipped = [self.expected.skipped(job.prompt) - job.wanted for job in jobs]
            # What has been run for a request already is not run again.
            known = [had_run(job) for job in jobs]
            not_run = [one | other for one, other in zip(skipped, known, strict=True)]
            pictures = [picture for job in jobs for picture in job.prompt.pictures]
            shown = [left_out for job, left_out in zip(jobs, not_run, strict=True) for _ in job.prompt.pictures]
            again = [job.seen is not None for job in jobs for _ in job.prompt.pictures]
            found = iter(self.cache.each(pictures, shown, again))
        except Exception as error:  # such as memory that ran out
            if len(jobs) == 1:
                self._failed(jobs[0], error)
                return []
            return [seen for job in jobs for seen in self._look([job])]
        took = time.monotonic() - began
        self._looking_takes = (self._looking_takes + took) / 2
        for job, left_out, had in zip(jobs, skipped, known, strict=True):
            job.timing.waiting += began - (job.timing.ready or job.timing.came)
            job.timing.experts += took
            new = [next(found) for _ in job.prompt.pictures]
            if job.seen is not None:
                both = zip(job.seen, new, strict=True)
                new = [{name: (old if name in had else one)[name] for name in one} for old, one in both]
            job.seen, job.skipped = new, [left_out] * len(new)
        return list(jobs)


def had_run(job: Job) -> set[str]:
    """The experts that have looked at a request's pictures before."""
    return set() if not job.seen else set(job.seen[0]) - job.skipped[0]
