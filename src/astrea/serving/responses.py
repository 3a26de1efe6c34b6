"""The part of OpenAI's responses interface that is about text: one conversation in, one message out."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Literal

from pydantic import Field, model_validator

from astrea.serving.answers import Stream, Wanted
from astrea.serving.errors import ApiError, internal
from astrea.serving.logs import log_failure
from astrea.serving.reply import Reply, usage_of
from astrea.serving.sampling import Sampling
from astrea.serving.schema import MOST_TOKENS, Generation, Message

UNKEPT = ("previous_response_id", "conversation", "prompt")
"""What a request refers to that this server would have to have kept."""


class Item(Message):
    """A message of the input."""

    type: Literal["message"] = "message"


class ResponsesRequest(Generation):
    """The body of ``POST /v1/responses``."""

    input: str | list[Item] = Field(min_length=1)
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    background: Literal[False] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_kept(cls, given: Any) -> Any:
        for key in UNKEPT if isinstance(given, dict) else ():
            if given.get(key) is not None:
                raise ValueError(f"{key} is not supported: nothing is kept")
        return given

    @property
    def messages(self) -> list[Message]:
        """The conversation."""
        said = [Message(role="user", content=self.input)] if isinstance(self.input, str) else list(self.input)
        return [*([Message(role="system", content=self.instructions)] if self.instructions else []), *said]

    @property
    def wanted(self) -> Wanted:
        """How it is to be answered."""
        top_p = 1.0 if self.top_p is None else self.top_p
        return Wanted(Sampling(self.temperature or 0.0, top_p), most=self.max_output_tokens)


class Response:
    """One request that has been accepted, and its answer."""

    def __init__(self, reply: Reply, request: ResponsesRequest) -> None:
        self.reply, self.request, self.stream = reply, request, reply.stream
        self.id, self.item = f"resp_{uuid.uuid4().hex}", f"msg_{uuid.uuid4().hex}"
        self.created, self.number = int(time.time()), 0

    async def whole(self) -> dict[str, Any]:
        """The response in one."""
        text = "".join(piece.text for piece in await self.stream.all())
        self.reply.answered(self.stream.job)
        return {**self._object(text), "astrea": await self.reply.extras(self.request.astrea)}

    async def events(self) -> AsyncIterator[str]:
        """The response as server-sent events."""
        try:
            async for kind, fields in self._events(self.stream):
                yield self._event(kind, **fields)
        except Exception as error:
            if not isinstance(error, ApiError):
                log_failure(error)
            failure = error if isinstance(error, ApiError) else internal()
            yield self._event("error", message=failure.message, code=failure.code, param=failure.param)
        finally:
            self.stream.job.cancel()

    async def _events(self, stream: Stream) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        place: dict[str, Any] = {"item_id": self.item, "output_index": 0, "content_index": 0}
        yield "response.created", {"response": self._object(None)}
        item = {**self._message(""), "status": "in_progress", "content": []}
        yield "response.output_item.added", {"output_index": 0, "item": item}
        yield "response.content_part.added", {**place, "part": _part("")}
        text = ""
        async for batch in stream.batches():
            new = "".join(piece.text for piece in batch)
            text += new
            if new:
                yield "response.output_text.delta", {**place, "delta": new, "logprobs": []}
        self.reply.answered(stream.job)
        yield "response.output_text.done", {**place, "text": text, "logprobs": []}
        yield "response.content_part.done", {**place, "part": _part(text)}
        yield "response.output_item.done", {"output_index": 0, "item": self._message(text)}
        done = {**self._object(text), "astrea": await self.reply.extras(self.request.astrea)}
        yield "response.incomplete" if done["status"] == "incomplete" else "response.completed", {"response": done}

    def _event(self, kind: str, **fields: Any) -> str:
        self.number += 1
        event = {"type": kind, "sequence_number": self.number - 1, **fields}
        return f"event: {kind}\ndata: {json.dumps(event)}\n\n"

    def _message(self, text: str) -> dict[str, Any]:
        return {
            "id": self.item,
            "type": "message",
            "role": "assistant",
            "status": "incomplete" if self._cut else "completed",
            "content": [_part(text)],
        }

    @property
    def _cut(self) -> bool:
        return self.stream.job.answers[0].finish == "length"

    def _object(self, text: str | None) -> dict[str, Any]:
        """The response; ``text`` is None while there is none."""
        usage = usage_of(self.stream.job)
        counts = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        status = "in_progress" if text is None else "incomplete" if self._cut else "completed"
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": self.request.instructions,
            "max_output_tokens": self.request.max_output_tokens,
            "model": self.reply.name,
            "output": [] if text is None else [self._message(text)],
            "parallel_tool_calls": False,
            "temperature": self.request.temperature,
            "top_p": self.request.top_p,
            "tool_choice": "none",
            "tools": [],
            "metadata": {},
            "usage": None if text is None else counts,
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}
