"""One request as the engine sees it: a prompt, how to go on from it, and what has been said so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from astrea.experts.protocol import ExpertFeatures
from astrea.serving.features import Picture
from astrea.serving.sampling import Chosen, Sampling
from astrea.serving.text import AnswerText


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation in tokens. ids: (L,). asked: (L,) bool, the tokens of the question. pictures: in reading order.
    without: names of experts that are switched off."""

    ids: Tensor
    asked: Tensor
    pictures: tuple[Picture, ...]
    without: frozenset[str] = frozenset()


class Piece(NamedTuple):
    """What one decoding step added to one answer. finish: why it ended ("stop" or "length"), or None.

    A tuple, which is made in a third of the time of a frozen dataclass: there is one for every token.
    """

    choice: int
    text: str
    chosen: Chosen
    finish: str | None


@dataclass(frozen=True, slots=True)
class Finished:
    """All answers are done; or an error, or nothing more to come because the request was cancelled."""

    error: Exception | None = None


@dataclass(slots=True)
class Timing:
    """Seconds, by `time.monotonic`: when the request came, could be read (its pictures having been seen), and had its
    first and its last token; how long it stood in queues; how long experts, fusion and the language model took to read
    the prompt (and the prompts read together with it)."""

    came: float = field(default_factory=time.monotonic)
    ready: float = 0.0
    first: float = 0.0
    last: float = 0.0
    waiting: float = 0.0
    experts: float = 0.0
    fusion: float = 0.0
    language: float = 0.0


@dataclass(slots=True)
class Answer:
    """One of a request's answers. tokens: its tokens, the one that ended it included."""

    number: int
    text: AnswerText
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)
    finish: str | None = None


class Job:
    """A request in the engine.

    Args:
        choices: how many answers (``n``). most: the longest answer in tokens. deadline: by `time.monotonic`.
        emit: called from the engine's thread with each `Piece` and at the end with `Finished`.
        due: whether the text of a piece that neither begins nor ends an answer is wanted now, or may come with a later
            one: to decode tokens together takes a part of the time.
        emit_together: called instead by an engine of another process, in the event loop's thread, with all that is to
            be handed on at once.

    Attributes:
        given_up: called, if it is set, when the request is cancelled.
        seen: per picture, what each expert gives, once they have looked. skipped: per picture, those that were not run.
        shares: per picture, the gate weights. wanted: experts that are run although they were skipped at first.
    """

    def __init__(
        self,
        prompt: Prompt,
        sampling: Sampling,
        *,
        choices: int,
        most: int,
        stops: Sequence[str],
        deadline: float,
        decode: Callable[[list[int]], str],
        emit: Callable[[Piece | Finished], None],
        due: Callable[[], bool] = lambda: True,
        emit_together: Callable[[list[Piece | Finished]], None] | None = None,
    ) -> None:
        self._due, self.emit_together, self.stops = due, emit_together, tuple(stops)
        self.prompt, self.sampling, self.most, self.deadline, self.emit = prompt, sampling, most, deadline, emit
        self.answers = [
            Answer(number, AnswerText(decode, stops), sampling.generator(number)) for number in range(choices)
        ]
        self.timing = Timing()
        self.shares: list[dict[str, float]] = []
        self.skipped: list[set[str]] = []
        self.seen: list[dict[str, ExpertFeatures]] | None = None
        self.wanted: set[str] = set()
        self.given_up: Callable[[], None] | None = None
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Nobody wants the answers any more. From any thread."""
        self._cancelled.set()
        if self.given_up is not None:
            self.given_up()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for the answers any more: the request was cancelled, or its time is over."""
        return self.cancelled or time.monotonic() > self.deadline

    def say(self, answer: Answer, chosen: Chosen, *, ends: bool, full: bool) -> None:
        """Hand on a token of an answer.

        Args:
            ends: whether it is one that ends answers; it has no text. full: whether there is room for no other.
        """
        now = time.monotonic()
        self.timing.first, self.timing.last = self.timing.first or now, now
        answer.tokens.append(chosen.token)
        new = "" if ends else answer.text.push(chosen.token, due=len(answer.tokens) == 1 or self._due())
        if ends or answer.text.stopped:
            answer.finish = "stop"
        elif full or len(answer.tokens) >= self.most:
            answer.finish = "length"
        if answer.finish is not None and not answer.text.stopped:
            new += answer.text.finish()
        self.emit(Piece(answer.number, new, chosen, answer.finish))
