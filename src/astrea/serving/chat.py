"""Chat completions: from a request to its response, whole or as a stream of events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from astrea.serving.answers import Wanted
from astrea.serving.errors import ApiError, internal
from astrea.serving.job import Piece
from astrea.serving.limits import Limits
from astrea.serving.logs import log_failure
from astrea.serving.reply import Reply, pictures_of, usage_of
from astrea.serving.sampling import Chosen, Sampling
from astrea.serving.schema import ChatRequest


class Chat:
    """One request that has been accepted, and its answers."""

    def __init__(self, reply: Reply, request: ChatRequest) -> None:
        self.reply, self.request, self.stream = reply, request, reply.stream
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    async def whole(self) -> dict[str, Any]:
        """The response in one."""
        pieces = await self.stream.all()
        self.reply.answered(self.stream.job)
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
        head = {"id": self.id, "object": "chat.completion", "created": self.created, "model": self.reply.name}
        return {**head, "choices": choices, "usage": usage_of(self.stream.job), "astrea": await self._astrea()}

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
        async for batch in self.stream.batches():
            for number in dict.fromkeys(piece.choice for piece in batch):
                mine = [piece for piece in batch if piece.choice == number]
                text, finish = "".join(piece.text for piece in mine), mine[-1].finish
                delta: dict[str, Any] = {"content": text} if text else {}
                more: dict[str, Any] = {}
                if number not in begun:
                    # The first chunk of an answer has its role; the very first one what is known of the pictures.
                    delta = {"role": "assistant", "content": text}
                    more = {} if begun else {"astrea": pictures_of(job)}
                    begun.add(number)
                if delta or finish or self.request.logprobs:
                    logprobs = self._logprobs(mine)
                    choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
                    yield self._chunk([choice], **more, **({"usage": None} if usage else {}))
        self.reply.answered(job)
        extra = self.request.astrea
        if extra.readings or extra.masking or extra.token_ids:
            yield self._chunk([], astrea=await self._astrea(), **({"usage": None} if usage else {}))
        if usage:
            yield self._chunk([], usage=usage_of(job))

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.reply.name}
        return {**head, "choices": choices, **more}

    def _logprobs(self, pieces: list[Piece]) -> dict[str, Any] | None:
        if not self.request.logprobs:
            return None
        # The token that ends an answer is none of its words.
        spoken = [piece.chosen for piece in pieces if piece.chosen.token not in self.reply.engine.ends]
        return {"content": [self._logprob(chosen) for chosen in spoken], "refusal": None}

    def _logprob(self, chosen: Chosen) -> dict[str, Any]:
        top = [self._token(token, logprob) for token, logprob in chosen.top]
        return {**self._token(chosen.token, chosen.logprob), "top_logprobs": top}

    def _token(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = str(self.reply.engine.processor.tokenizer.decode([token]))
        # JSON has no infinity; this is what OpenAI's interface says of what cannot be.
        return {"token": text, "logprob": max(logprob or 0.0, -9999.0), "bytes": list(text.encode())}

    async def _astrea(self) -> dict[str, Any]:
        return await self.reply.extras(self.request.astrea)


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
