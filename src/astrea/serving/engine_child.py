"""The process of an engine that is not the server's: it takes requests from a socket, and sends what is said."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from astrea.model.loaded import LoadedModel
from astrea.model.processing import AstreaProcessor
from astrea.serving.engine import Engine
from astrea.serving.errands import Errand, sent
from astrea.serving.errors import ApiError
from astrea.serving.frames import Frame, read_frame, read_pictures, read_prompts, written, written_error
from astrea.serving.job import Finished, Job, Piece
from astrea.serving.limits import Limits
from astrea.serving.logs import log_failure, log_to_standard_error
from astrea.serving.pace import Pace
from astrea.serving.sampling import Sampling
from astrea.serving.shared_weights import unpack
from astrea.serving.within import READERS


@dataclass(frozen=True, slots=True)
class Given:
    """What the process is told at its start, by the server's own program. threads: that the model computes with."""

    processor: AstreaProcessor
    limits: Limits
    skip_below: float | Mapping[str, float]
    skip_sure: float
    expert_process: bool | None
    threads: int


class Outbox:
    """What has been said since it was last handed on, by all answers: one message wakes the server once. For any number
    of threads."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._said: list[dict[str, Any]] = []
        self._steps: list[int] = []
        self._lock = threading.Lock()

    def put(self, said: dict[str, Any]) -> None:
        """Something to hand on with the next message."""
        with self._lock:
            self._said.append(said)

    def step(self, running: int, waiting: int) -> None:
        """The engine made a step: hand on what was said in it."""
        self._steps.append(running)
        self.hand_on()

    def failed(self, error: Exception) -> None:
        """Something failed in the engine."""
        log_failure(error)

    def hand_on(self) -> None:
        """Send what there is, if anything was said."""
        with self._lock:
            if self._said:
                message = {"said": self._said, "steps": self._steps}
                self._said, self._steps = [], []
                self._send(message)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message at once."""
        with self._lock:
            self._send(message)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._server.sendall(written(message))
        except OSError:
            # The server has gone: nobody waits for anything, and whoever reads from it ends this process.
            self._said = []


class Working(Engine):
    """An engine that hands on what was said before it takes the next step, such as the first words of some answers."""

    watch: Outbox

    def _step(self) -> None:
        self.watch.hand_on()
        super()._step()


class Answers:
    """One request in the engine, and its pieces on their way to the server.

    Args:
        told: the request, and ``behind`` it its pictures. over: called when nothing more comes.
    """

    def __init__(self, engine: Working, told: dict[str, Any], behind: memoryview, over: Callable[[], Any]) -> None:
        self.number, self.outbox, self._over = told["id"], engine.watch, over
        self._counts = engine.features.counts
        (prompt,) = read_prompts([told["prompt"]], behind)
        tokenizer = engine.processor.tokenizer
        self.pace = Pace(engine)
        self.job = Job(
            prompt,
            Sampling(**told["sampling"]),
            choices=told["choices"],
            most=told["most"],
            stops=told["stops"],
            deadline=told["deadline"],
            decode=lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)),
            emit=self.take,
            due=self.pace.due,
        )
        self.job.timing.came = told["came"]
        self._begun = False

    def take(self, piece: Piece | Finished) -> None:
        """A piece, or the end; in the engine's thread, or in that of its experts."""
        if (batch := self.pace.taken(piece)) is not None:
            self.outbox.put(self._written(batch))
            if isinstance(piece, Finished):
                self._over()
                if piece.error is not None:  # it may be that no step follows
                    self.outbox.hand_on()

    def _written(self, batch: list[Piece | Finished]) -> dict[str, Any]:
        said: dict[str, Any] = {"id": self.number, "pieces": [piece for piece in batch if isinstance(piece, Piece)]}
        if not self._begun:
            self._begun = True
            said |= {"shares": self.job.shares, "skipped": [sorted(one) for one in self.job.skipped]}
        end = batch[-1]
        if isinstance(end, Finished):
            said["error"] = None if end.error is None else written_error(end.error)
            said["timing"] = asdict(self.job.timing)
            said["counts"] = {name: asdict(counts) for name, counts in self._counts.items()}
        return said


class Worker:
    """Does what the server asks, message by message."""

    def __init__(self, engine: Working) -> None:
        self.engine, self.outbox = engine, engine.watch
        self.answers: dict[int, Job] = {}
        self.readers = ThreadPoolExecutor(READERS, "astrea-readings")

    def take(self, frame: Frame) -> bool:
        """Begin to do what a message asks; false when it asks to end."""
        message, behind = frame
        if message["do"] == "end":
            return False
        if message["do"] == "cancel":
            if (job := self.answers.get(message["id"])) is not None:
                job.cancel()
        elif message["do"] == "answer":
            self._answer(message, behind)
        else:
            self._errand(message, behind)
        return True

    def _answer(self, message: dict[str, Any], behind: memoryview) -> None:
        number = message["id"]
        answers = Answers(self.engine, message, behind, lambda: self.answers.pop(number, None))
        self.answers[number] = answers.job
        try:
            self.engine.submit(answers.job)
        except ApiError as error:
            answers.take(Finished(error))

    def _errand(self, message: dict[str, Any], behind: memoryview) -> None:
        pictures, behind = read_pictures(message["pictures"], behind)
        prompts = read_prompts(message["prompts"], behind)
        errand = Errand(message["do"], tuple(pictures), tuple(prompts), tuple(message["tokens"]), message["text"])
        done = sent(self.engine, errand, self.readers)
        done.add_done_callback(partial(self._tell, message["id"]))

    def _tell(self, number: int, done: Future[Any]) -> None:
        """In the thread that did it."""
        error = done.exception()
        if error is None:
            self.outbox.send({"errand": number, "result": done.result()})
            return
        told = written_error(error)
        if told.get("status") == 500:
            log_failure(error)
        self.outbox.send({"errand": number, "error": told})


def work(server: socket.socket, given: Given, weights: Path) -> None:
    """What the process does: it takes the model, then answers until it is asked to end, or nobody is there to ask.

    Args:
        weights: the model's file.
    """
    # Ctrl-C is for the server, and so is what a supervisor sends to all: it ends this one when all is answered.
    for asked_to_end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked_to_end, signal.SIG_IGN)
    log_to_standard_error()
    torch.set_num_threads(given.threads)
    with server, server.makefile("rb", buffering=1 << 18) as source:
        first = read_frame(source)
        if first is None:
            return
        loaded = LoadedModel(unpack(bytes(first[1]), weights), given.processor)
        outbox = Outbox(server)
        engine = Working(
            loaded,
            given.limits,
            outbox,
            given.skip_below,
            skip_sure=given.skip_sure,
            expert_process=given.expert_process,
        )
        engine.start()
        outbox.send({"ready": time.monotonic()})
        worker = Worker(engine)
        while (frame := read_frame(source)) is not None:
            if not worker.take(frame):
                engine.stop()
                return
