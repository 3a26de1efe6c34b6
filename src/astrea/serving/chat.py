"""Chat completions: from a request to its response, whole or as a stream of events."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

from astrea.serving.answers import Stream, Wanted, deadline_of, masking_effects
from astrea.serving.conversation import Prompts
from astrea.serving.engine import Engine
from astrea.serving.errors import ApiError, internal
from astrea.serving.job import Job, Piece
from astrea.serving.limits import Limits
from astrea.serving.logs import log_failure
from astrea.serving.sampling import Chosen, Sampling
from astrea.serving.schema import ChatRequest, Extra


class Chat:
    """One request that has been accepted, and its answers.

    Args:
        answered: told of the job when all its answers are there.
    """

    def __init__(
        self, engine: Engine, request: ChatRequest, stream: Stream, name: str, answered: Callable[[Job], None]
    ) -> None:
        self.engine, self.request, self.stream, self.name, self.answered = engine, request, stream, name, answered
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    @classmethod
    async def begin(
        cls, engine: Engine, prompts: Prompts, request: ChatRequest, name: str, answered: Callable[[Job], None]
    ) -> Chat:
        """Hand a request to the engine.

        Raises:
            ApiError: something is wrong with it, or there is too much to do.
        """
        wanted = wanted_of(request, engine.limits)
        deadline = deadline_of(engine.limits)
        prompt = await prompts.of(request.messages, request.astrea)
        return cls(engine, request, Stream(engine, prompt, wanted, deadline), name, answered)

    async def whole(self) -> dict[str, Any]:
        """The response in one."""
        pieces = await self.stream.all()
        self.answered(self.stream.job)
        choices = []
        for answer in self.stream.job.answers:
            mine = [piece for piece in pieces if piece.choice == answer.number]
            said = {"role": "assistant", "content": "".join(piece.text for piece in mine), "refusal": None}
            choices.append(
                {
                    "index": answer.number,
                    "message": said,
                    "logprobs": self._logprobs(mine),
                    "finish_reason": answer.finish,
                }
            )
        head = {"id": self.id, "object": "chat.completion", "created": self.created, "model": self.name}
        return {**head, "choices": choices, "usage": self._usage(), "astrea": await self._astrea()}

    async def events(self) -> AsyncIterator[str]:
        """The response as server-sent events. What goes wrong after the first becomes an event itself."""
        try:
            async for chunk in self._chunks():
                yield f"data: {json.dumps(chunk)}\n\n"
            yield "data: [DONE]\n\n"
        except ApiError as error:
            yield f"data: {json.dumps(error.body)}\n\n"
        except Exception as error:
            log_failure(error)
            yield f"data: {json.dumps(internal().body)}\n\n"
        finally:
            self.stream.job.cancel()

    async def _chunks(self) -> AsyncIterator[dict[str, Any]]:
        job = self.stream.job
        usage = self.request.stream_options is not None and self.request.stream_options.include_usage
        begun: set[int] = set()
        async for piece in self.stream:
            delta: dict[str, Any] = {"content": piece.text} if piece.text else {}
            more: dict[str, Any] = {}
            if piece.choice not in begun:
                # The first chunk of an answer has its role; the very first one what is known of the pictures.
                delta = {"role": "assistant", "content": piece.text}
                more = {} if begun else {"astrea": pictures_of(job)}
                begun.add(piece.choice)
            if delta or piece.finish or self.request.logprobs:
                choice = {
                    "index": piece.choice,
                    "delta": delta,
                    "logprobs": self._logprobs([piece]),
                    "finish_reason": piece.finish,
                }
                yield self._chunk([choice], **more, **({"usage": None} if usage else {}))
        self.answered(job)
        extra = self.request.astrea
        if extra.readings or extra.masking or extra.token_ids:
            yield self._chunk([], astrea=await self._astrea(), **({"usage": None} if usage else {}))
        if usage:
            yield self._chunk([], usage=self._usage())

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.name}
        return {**head, "choices": choices, **more}

    def _usage(self) -> dict[str, int]:
        return usage_of(self.stream.job)

    def _logprobs(self, pieces: list[Piece]) -> dict[str, Any] | None:
        if not self.request.logprobs:
            return None
        # The token that ends an answer is none of its words.
        told = [piece.chosen for piece in pieces if piece.chosen.token not in self.engine.ends]
        return {"content": [self._logprob(chosen) for chosen in told], "refusal": None}

    def _logprob(self, chosen: Chosen) -> dict[str, Any]:
        top = [self._token(token, logprob) for token, logprob in chosen.top]
        return {**self._token(chosen.token, chosen.logprob), "top_logprobs": top}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = str(self.engine.processor.tokenizer.decode([token]))
        # JSON has no infinity; this is what OpenAI's interface says of what cannot be.
        return {"token": text, "logprob": max(logprob or 0.0, -9999.0), "bytes": list(text.encode())}

    async def _astrea(self) -> dict[str, Any]:
        return await extras(self.engine, self.stream.job, self.request.astrea)


def wanted_of(request: ChatRequest, limits: Limits) -> Wanted:
    """How a request wants to be answered. Without a temperature answers are the likeliest, as ``model.generate`` gives
    them.

    Raises:
        ApiError: it wants too much.
    """
    choices = request.n or 1
    if choices > limits.choices:
        raise ApiError(400, f"n is larger than {limits.choices}", param="n")
    stops = [stop for stop in request.stops if stop]
    if len(stops) > limits.stops or any(len(stop) > limits.stop_characters for stop in stops):
        what = f"stop has more than {limits.stops} texts, or one of more than {limits.stop_characters} characters"
        raise ApiError(400, what, param="stop")
    sampling = Sampling(
        request.temperature or 0.0,
        1.0 if request.top_p is None else request.top_p,
        request.seed,
        (request.top_logprobs or 0) if request.logprobs else None,
    )
    return Wanted(sampling, choices, request.longest, tuple(stops))


def usage_of(job: Job) -> dict[str, int]:
    """Tokens read and generated."""
    told = sum(len(answer.told) for answer in job.answers)
    return {"prompt_tokens": len(job.prompt.ids), "completion_tokens": told, "total_tokens": len(job.prompt.ids) + told}


def pictures_of(job: Job) -> dict[str, Any]:
    """Per picture: each expert's gate weight, and which experts were not run."""
    skipped = job.skipped or [set()] * len(job.shares)
    return {
        "pictures": [
            {"gate_weights": {name: round(w, 4) for name, w in shares.items()}, "skipped": sorted(left_out)}
            for shares, left_out in zip(job.shares, skipped, strict=True)
        ]
    }


async def extras(engine: Engine, job: Job, extra: Extra) -> dict[str, Any]:
    """The ``astrea`` key of a response: gate weights, and what else was asked for."""
    found = pictures_of(job)
    if extra.readings and job.prompt.pictures:
        readings = await asyncio.wrap_future(engine.call(lambda: engine.readings(job.prompt.pictures)))
        for one, read in zip(found["pictures"], readings, strict=True):
            one["readings"] = read
    if extra.masking:
        effects = await masking_effects(engine, job)
        found["masking"] = {name: asdict(effect) for name, effect in effects.items()}
    if extra.token_ids:
        found["token_ids"] = [answer.told for answer in job.answers]
    return found
