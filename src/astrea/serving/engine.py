"""Continuous batching over one model: answers of many requests are decoded together, and new ones join between steps.

The engine has one thread, in which the language model runs and nothing else does; experts have another (`Vision`).
Others hand it jobs and get pieces of answers back through the function that a job carries.

Letters: B answers that are being decoded, V words.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import RepetitionPenaltyLogitsProcessor
from transformers.cache_utils import Cache

from astrea.common.errors import AstreaError
from astrea.common.transformers_compat import CACHE
from astrea.model.loaded import LoadedModel
from astrea.serving.errors import busy, internal, refused, too_late
from astrea.serving.expert_process import ExpertProcess, placed
from astrea.serving.features import Experts, FeatureCache, Picture, originals_of
from astrea.serving.job import Answer, Finished, Job
from astrea.serving.limits import Limits
from astrea.serving.prefill import Read, prefill
from astrea.serving.sampling import choose
from astrea.serving.skipping import ExpectedWeights
from astrea.serving.slots import compacted, merged, select_rows
from astrea.serving.vision import Vision

Result = TypeVar("Result")

GATHERED = 4
"""New prompts are read as soon as they are one for so many answers that are being decoded."""


@dataclass(slots=True)
class Row:
    """One answer that is being decoded. room: how many tokens may still follow. last: its newest token."""

    job: Job
    answer: Answer
    room: int
    last: int = 0


class Engine:
    """The model at work. `start` it, hand it jobs, `stop` it.

    Args:
        skip_below: see `ExpectedWeights`. skip_sure: an answer whose first token is less probable is not begun as long
            as an expert was skipped: one more is run, and the prompt is read again.
        expert_process: see `placed`.
        watch: told after every step how many answers are decoded together and how many requests wait; and of every
            exception that nobody foresaw.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        limits: Limits,
        watch: Watch,
        skip_below: float | Mapping[str, float] = 0.0,
        *,
        skip_sure: float = 0.0,
        expert_process: bool | None = False,
    ) -> None:
        self.model, self.processor = loaded
        self.limits, self.watch = limits, watch
        self.features: FeatureCache
        self.vision: Vision
        self.ends = ends_of(self.model)
        self.most_positions: int | None = getattr(self.model.config.text_config, "max_position_embeddings", None)
        self._penalty = _penalty(self.model)
        self._expected, self._sure = ExpectedWeights(self.model, skip_below), skip_sure
        self._ready: deque[Job] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition(threading.RLock())
        self._stopping = False
        self._rows: list[Row] = []
        self._cache: Cache | None = None
        self._reading_takes = 0.0
        self._apart = expert_process
        self._experts: Experts = self.model.experts
        self._thread = threading.Thread(target=self._run, name="astrea-engine", daemon=True)

    def start(self) -> None:
        """Begin to work, once every part of the model has run once."""
        # Another process takes seconds to begin, in which this one can prepare.
        self._experts = placed(self.model.experts, self._apart)
        self._thread.start()
        self.call(self._warm).result()
        self.vision.start()

    def stop(self) -> None:
        """Finish what runs and what waits, then end."""
        with self._changed:
            self._stopping = True
        self.vision.stop()
        with self._changed:
            self._changed.notify()
        self._thread.join()
        if isinstance(self._experts, ExpertProcess):
            self._experts.close()

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive() and self.vision.alive

    @property
    def waiting(self) -> int:
        """How many requests have not begun to be read."""
        return len(self._ready) + self.vision.waiting

    @property
    def running(self) -> int:
        """How many answers are being decoded."""
        return len(self._rows)

    def submit(self, job: Job) -> None:
        """Let a request be answered.

        Raises:
            ApiError: too many wait already, or the engine is stopping.
        """
        with self._changed:
            if self._stopping or self.waiting >= self.limits.waiting:
                raise busy()
            if job.prompt.pictures:
                self.vision.look(job)
            else:
                self._take([job])

    def _take(self, jobs: Sequence[Job]) -> None:
        """Requests without pictures, or whose pictures have been seen."""
        with self._changed:
            for job in jobs:
                job.timing.ready = time.monotonic()
                self._ready.append(job)
            self._changed.notify()

    def call(self, work: Callable[[], Result]) -> Future[Result]:
        """Run something in the engine's thread, between two steps."""
        done: Future[Result] = Future()
        with self._changed:
            if self._stopping:
                done.set_exception(busy())
                return done
            self._calls.append((work, done))
            self._changed.notify()
        return done

    def readings(self, pictures: Sequence[Picture]) -> list[dict[str, dict[str, Any]]]:
        """What every expert saw in pictures, as JSON; boxes and masks are those of the picture, not of its square. From
        any thread but the engine's, which would wait for the experts meanwhile."""
        pixels = torch.stack([picture.pixels for picture in pictures]).to(self.model.device)
        side = pixels.shape[-1]
        sizes = [picture.size or (side, side) for picture in pictures]
        with self.features.lock, torch.inference_mode():
            found = self._experts.readings(pixels, originals_of(pictures), sizes)
        return [
            {name: {**reading.as_dict(), "mask": mask_rows(reading.mask)} for name, reading in one.items()}
            for one in found
        ]

    def _warm(self) -> None:
        size = self.processor.image_processor.image_size
        self.features = FeatureCache(self._experts, size, self.model.device, self.limits.cache_bytes)
        self.vision = Vision(
            self.features,
            self._expected,
            self.limits.pictures_together,
            lambda: self.running,
            self._take,
            lambda job, error: self._fail([job], error),
        )

    def _run(self) -> None:
        with torch.inference_mode():
            while self._wait():
                try:
                    self._turn()
                except Exception as error:  # the thread must not end, or all that came later would wait in vain
                    jobs = self._jobs()
                    self._ready.clear()
                    self._rows, self._cache = [], None
                    self._fail(jobs, error)

    def _turn(self) -> None:
        """Everything that there is to do, and one step of decoding."""
        self._do_calls()
        self._drop_unwanted()
        self._admit()
        if self._rows:
            self._guarded(self._step, [row.job for row in self._rows])
        self.watch.step(self.running, self.waiting)

    def _jobs(self) -> list[Job]:
        """Every request that is here."""
        with self._changed:
            return [*self._ready, *dict.fromkeys(row.job for row in self._rows)]

    def _wait(self) -> bool:
        """Until there is something to do; false when there is nothing and never will be."""
        with self._changed:
            while not (self._rows or self._ready or self._calls):
                if self._stopping and not self.vision.alive:
                    return False
                self._changed.wait()
        return True

    def _do_calls(self) -> None:
        while self._calls:
            work, done = self._calls.popleft()
            if not done.set_running_or_notify_cancel():
                continue
            try:
                done.set_result(work())
            except Exception as error:  # for whoever waits for the result
                done.set_exception(error)

    def _drop_unwanted(self) -> None:
        """Requests that were cancelled, or whose time is over."""
        for job in self._jobs():
            if job.unwanted:
                with contextlib.suppress(ValueError):
                    self._ready.remove(job)
                job.emit(Finished(None if job.cancelled else too_late()))
                self._keep([row for row in self._rows if row.job is not job])

    def _gathers(self) -> bool:
        """Whether reading waits for more prompts, while others are decoded: several are read in little more time than
        one. Never for longer than reading takes, nor when a good part of all has come."""
        if not self._rows or len(self._ready) * GATHERED >= len(self._rows):
            return False
        return time.monotonic() - self._ready[0].timing.ready < self._reading_takes

    def _admit(self) -> None:
        """Read as many waiting prompts as there is room for, a few together."""
        while self._ready and not self._gathers():
            jobs: list[Job] = []
            width, answers = 0, len(self._rows)
            while self._ready:
                job = self._ready[0]
                answers += len(job.answers)
                width = max(width, len(job.prompt.ids))
                full = answers > self.limits.running and (self._rows or jobs)
                if full or (jobs and width * (len(jobs) + 1) > self.limits.prefill_tokens):
                    break
                jobs.append(self._ready.popleft())
            if not jobs:
                return
            self._read(jobs)

    def _read(self, jobs: list[Job]) -> None:
        """Read prompts together; if that fails, one by one, so that one bad request fails alone."""
        began = time.monotonic()
        try:
            read = prefill(self.model, jobs, self.processor.tokenizer.pad_token_id or 0)
        except Exception as error:
            if len(jobs) == 1:
                self._fail(jobs, error)
                return
            for job in jobs:
                self._read([job])
            return
        self._reading_takes = (self._reading_takes + time.monotonic() - began) / 2
        places = self._look_again(jobs, read)
        if len(places) < len(jobs):
            jobs = [jobs[place] for place in places]
            if not jobs:
                return
            read = read.rows(places)
        self._guarded(lambda: self._begin(jobs, read), [*jobs, *(row.job for row in self._rows)])

    def _look_again(self, jobs: list[Job], read: Read) -> list[int]:
        """Have one more expert look for those who are not sure how to begin; the places of all others. One that is
        stopping looks at nothing any more."""
        if not self._sure:
            return list(range(len(jobs)))
        sure = (read.scores.softmax(-1).amax(-1) >= self._sure).tolist()
        kept = []
        for place, job in enumerate(jobs):
            with self._changed:
                if sure[place] or not any(job.skipped) or self._stopping:
                    kept.append(place)
                    continue
                job.wanted.add(self._expected.next(job.prompt, job.skipped[0]))
                job.timing.ready = time.monotonic()
                self.vision.look(job)
        return kept

    def _begin(self, jobs: list[Job], read: Read) -> None:
        """Let requests that have been read join those that are decoded."""
        rows, places = [], []
        for place, job in enumerate(jobs):
            room = job.most if self.most_positions is None else self.most_positions - read.taken[place]
            rows += [Row(job, answer, room) for answer in job.answers]
            places += [place] * len(job.answers)
        cache = select_rows(read.cache, places) if len(places) > len(jobs) else read.cache
        self._say(rows, read.scores[torch.tensor(places, device=read.scores.device)])
        going = [number for number, row in enumerate(rows) if row.answer.finish is None]
        self._finish(rows)
        if not going:
            return
        mine = cache if len(going) == len(rows) else select_rows(cache, going)
        self._cache = mine if self._cache is None else merged([self._cache, mine])
        self._rows = [*self._rows, *(rows[number] for number in going)]

    def _step(self) -> None:
        """One more token for every answer."""
        ids = torch.tensor([[row.last] for row in self._rows], device=self.model.device)
        nothing_asked = torch.zeros_like(ids, dtype=torch.bool)
        out = self.model(input_ids=ids, question_mask=nothing_asked, use_cache=True, **{CACHE: self._cache})
        rows = self._rows
        self._say(rows, out.logits[:, -1].float())
        self._keep([row for row in rows if row.answer.finish is None])
        self._finish(rows)

    def _say(self, rows: list[Row], scores_BV: Tensor) -> None:
        """Choose a token for every row and hand it on."""
        scores_BV[:, self.model.config.image_token_id] = -torch.inf
        if self._penalty is not None:
            for number, row in enumerate(rows):
                said = torch.tensor([[*row.job.prompt.ids.tolist(), *row.answer.tokens]], device=scores_BV.device)
                scores_BV[number] = self._penalty(said, scores_BV[number : number + 1])[0]
        best = scores_BV.argmax(-1).tolist()
        for number, row in enumerate(rows):
            chosen = choose(scores_BV[number], best[number], row.job.sampling, row.answer.generator)
            row.last, row.room = chosen.token, row.room - 1
            row.job.say(row.answer, chosen, ends=chosen.token in self.ends, full=row.room <= 0)

    def _finish(self, rows: list[Row]) -> None:
        for job in dict.fromkeys(row.job for row in rows):
            if all(answer.finish is not None for answer in job.answers):
                job.emit(Finished())

    def _keep(self, rows: list[Row]) -> None:
        """Let the other rows leave."""
        if len(rows) == len(self._rows):
            return
        kept = {id(row) for row in rows}
        places = compacted([place for place, row in enumerate(self._rows) if id(row) in kept])
        self._cache = select_rows(self._cache, places) if places and self._cache is not None else None
        self._rows = [self._rows[place] for place in places]

    def _guarded(self, work: Callable[[], None], jobs: list[Job]) -> None:
        try:
            work()
        except Exception as error:  # such as memory that ran out: these requests fail, others do not
            self._rows, self._cache = [], None
            self._fail(jobs, error)

    def _fail(self, jobs: list[Job], error: Exception) -> None:
        """Tell those who wait; what a request did not cause is for the log."""
        if not isinstance(error, AstreaError):
            self.watch.failed(error)
        failure = refused(error) if isinstance(error, AstreaError) else internal()
        for job in dict.fromkeys(jobs):
            job.emit(Finished(failure))


def mask_rows(mask_HW: Tensor | None) -> list[str] | None:
    """A mask of regions as text, a row per line of the picture and a letter per pixel: "." is background."""
    if mask_HW is None:
        return None
    letters = ".ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return ["".join(letters[min(region, len(letters) - 1)] for region in row) for row in mask_HW.tolist()]


class Watch(Protocol):
    """Who is told of an engine's work."""

    def step(self, running: int, waiting: int) -> None:
        """A step was made."""

    def failed(self, error: Exception) -> None:
        """Something happened that nobody foresaw."""


def ends_of(model: Any) -> frozenset[int]:
    """The tokens that end an answer."""
    ends = model.generation_config.eos_token_id
    return frozenset([ends] if isinstance(ends, int) else ends or ())


def _penalty(model: Any) -> RepetitionPenaltyLogitsProcessor | None:
    """What ``generate`` does to the scores of words that were said before, if the model's folder asks for it."""
    strength = model.generation_config.repetition_penalty
    return None if strength in (None, 1.0) else RepetitionPenaltyLogitsProcessor(float(strength))
