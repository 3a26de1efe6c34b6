"""An engine in a process of its own.

Threads of one process share one interpreter lock, so that a step of the language model waits while a request is read or
an event written, and the other way round. On a processor of several cores the engine gets a process.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import multiprocessing
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from astrea.common.errors import AstreaError
from astrea.common.paths import file_guard
from astrea.model.loaded import LoadedModel
from astrea.serving.engine import Watch, ends_of
from astrea.serving.engine_child import Given, work
from astrea.serving.errands import Errand
from astrea.serving.errors import busy, internal
from astrea.serving.features import Counts
from astrea.serving.frames import Frames, read_error, read_frame, written, written_pictures, written_prompts
from astrea.serving.job import Finished, Job, Piece, Timing
from astrea.serving.limits import Limits
from astrea.serving.logs import log
from astrea.serving.sampling import Chosen
from astrea.serving.shared_weights import pack
from astrea.serving.within import Answering, EngineWithin


class ProcessWatch(Watch, Protocol):
    """Who is told of the work of an engine in a process of its own."""

    def ended(self) -> None:
        """It has ended, and nobody asked it to."""


def placed_engine(
    loaded: LoadedModel,
    limits: Limits,
    watch: ProcessWatch,
    skip_below: float | Mapping[str, float],
    skip_sure: float,
    expert_process: bool | None,
    engine_process: bool | None,
) -> Answering:
    """An engine where a server has it work.

    Args:
        engine_process: whether in a process of its own; None = where the model is on a processor of several cores.
        Otherwise: see `Engine`.
    """
    given = Given(loaded.processor, limits, skip_below, skip_sure, expert_process, torch.get_num_threads())
    wanted = given.threads > 1 and loaded.model.device.type == "cpu" if engine_process is None else engine_process
    if wanted:
        return EngineProcess(loaded, given, watch)
    return EngineWithin(loaded, limits, watch, skip_below, skip_sure=skip_sure, expert_process=expert_process)


class EngineProcess(asyncio.Protocol):
    """An engine that works in another process, for one event loop, in whose thread all of this runs. Both map the same
    file of weights, so that these are in memory once. Nothing that clients send is ever unpickled there or here.

    Args:
        watch: told of the engine's steps, as `Engine` does, and of its end.
    """

    def __init__(self, loaded: LoadedModel, given: Given, watch: ProcessWatch) -> None:
        self.model, self.processor = loaded
        self.limits, self.watch = given.limits, watch
        self.ends = ends_of(self.model)
        self.running = 0
        self.counts: dict[str, Counts] = {name: Counts() for name in self.model.experts.names}
        self._given = given
        self._numbers = itertools.count()
        self._jobs: dict[int, Job] = {}
        self._unread: set[int] = set()
        self._errands: dict[int, asyncio.Future[Any]] = {}
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._ended = asyncio.Event()
        self._closing = False

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._transport is not None and not self._ended.is_set()

    @property
    def waiting(self) -> int:
        """How many requests have no first token yet."""
        return len(self._unread)

    async def opened(self) -> None:
        """Begin to work.

        Raises:
            AstreaError: the model cannot be sent to another process, or that has ended.
        """
        ours = await asyncio.to_thread(self._begin)
        # All that is left here is a few numbers at a time, for which others would only be woken.
        torch.set_num_threads(1)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)

    def _begin(self) -> socket.socket:
        """Start the process, and wait until it is ready."""
        with file_guard("the folder for temporary files"):
            folder = tempfile.TemporaryDirectory(prefix="astrea-engine-", ignore_cleanup_errors=True)
        # Once the other process has opened the file it needs no name any more, and none is left, whatever ends the two.
        with folder:
            file = Path(folder.name) / "weights.safetensors"
            sent = pack(self.model, file)
            ours, theirs = socket.socketpair()
            # No daemon, which could not start a process for the experts.
            self._process = multiprocessing.get_context("spawn").Process(
                target=work, args=(theirs, self._given, file), name="astrea-engine", daemon=False
            )
            self._process.start()
            theirs.close()
            atexit.register(self._process.kill)  # or this process would wait for it at its end
            with ours.makefile("rb", buffering=1 << 12) as source:
                try:
                    ours.sendall(written({}, [sent]))
                    ready = read_frame(source)
                except OSError:
                    ready = None
            if ready is None:
                ours.close()
                self._process.join()
                raise AstreaError("the model's process ended before it was ready", "its log, above, says why")
        return ours

    async def closed(self) -> None:
        """Finish what runs and what waits, then end."""
        self._closing = True
        self._send({"do": "end"})
        await self._ended.wait()
        await asyncio.to_thread(self._process.join)
        atexit.unregister(self._process.kill)

    def submit(self, job: Job) -> None:
        """Let a request be answered.

        Raises:
            ApiError: too many wait already, or the engine is stopping.
        """
        if self._closing or self.waiting >= self.limits.waiting:
            raise busy()
        if not self.alive:
            raise internal()
        number = next(self._numbers)
        self._jobs[number] = job
        self._unread.add(number)
        job.given_up = partial(self._give_up, number)
        (prompt,), parts = written_prompts([job.prompt])
        message = {
            "do": "answer",
            "id": number,
            "prompt": prompt,
            "sampling": asdict(job.sampling),
            "choices": len(job.answers),
            "most": job.most,
            "stops": job.stops,
            "deadline": job.deadline,
            "came": job.timing.came,
        }
        self._send(message, parts)

    def _give_up(self, number: int) -> None:
        if number in self._jobs:
            self._send({"do": "cancel", "id": number})

    async def done(self, errand: Errand) -> Any:
        """What comes of an errand."""
        if not self.alive:
            raise internal()
        number = next(self._numbers)
        found = self._errands[number] = asyncio.get_running_loop().create_future()
        pictures, parts = written_pictures(errand.pictures)
        prompts, more = written_prompts(errand.prompts)
        message = {"do": errand.kind, "id": number, "pictures": pictures, "prompts": prompts}
        self._send({**message, "tokens": errand.tokens, "text": errand.text}, [*parts, *more])
        try:
            return await found
        finally:
            del self._errands[number]

    def _send(self, message: dict[str, Any], parts: list[bytes] | None = None) -> None:
        if self._transport is not None:
            self._transport.write(written(message, parts or []))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is the loop's."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Something was said."""
        for message, _ in self._frames.push(data):
            if "said" in message:
                for running in message["steps"]:
                    self.running = running
                    self.watch.step(running, self.waiting)
                for said in message["said"]:
                    self._hear(said)
            elif (future := self._errands.get(message.get("errand", -1))) is not None and not future.done():
                if "error" in message:
                    future.set_exception(read_error(message["error"]))
                else:
                    future.set_result(message["result"])

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended, as it was asked to or not."""
        self._ended.set()
        self.running = 0
        self._unread.clear()
        if not self._closing:
            log("the model's process has ended")
            self.watch.ended()
        for job in [self._jobs.pop(number) for number in list(self._jobs)]:
            hand_on(job, [Finished(internal())])
        for future in self._errands.values():
            if not future.done():
                future.set_exception(internal())

    def _hear(self, said: dict[str, Any]) -> None:
        """What is new of one request."""
        number = said["id"]
        job = self._jobs[number]
        if "shares" in said:
            job.shares, job.skipped = said["shares"], [set(one) for one in said["skipped"]]
            self._unread.discard(number)
        batch: list[Piece | Finished] = []
        for choice, text, (token, logprob, top), finish in said["pieces"]:
            answer = job.answers[choice]
            answer.tokens.append(token)
            answer.finish = finish
            chosen = Chosen(token, logprob, tuple((word, nats) for word, nats in top))
            batch.append(Piece(choice, text, chosen, finish))
        if "timing" in said:
            del self._jobs[number]
            job.timing = Timing(**said["timing"])
            self.counts = {name: Counts(**counts) for name, counts in said["counts"].items()}
            batch.append(Finished(None if said["error"] is None else read_error(said["error"])))
        hand_on(job, batch)


def hand_on(job: Job, batch: list[Piece | Finished]) -> None:
    """Give a request what is new, together if it can take that."""
    if job.emit_together is not None:
        job.emit_together(batch)
        return
    for piece in batch:
        job.emit(piece)
