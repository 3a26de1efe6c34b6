"""Requests as pydantic reads them: the part of OpenAI's chat completions, responses and embeddings that has a meaning
here. What has none is left out if it changes nothing, and refused if it would."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_TOKENS = 1 << 20


class Request(BaseModel):
    """What all bodies have in common: unknown keys are left out, as servers of this interface do."""

    model_config = ConfigDict(extra="ignore")


class ImageUrl(Request):
    """A picture: ``data:image/...;base64,...``. ``detail`` is taken and changes nothing."""

    url: str
    detail: str | None = None


class TextPart(Request):
    """Words."""

    type: Literal["text", "input_text", "output_text"]
    text: str


class ImagePart(Request):
    """A picture of chat completions."""

    type: Literal["image_url"]
    image_url: ImageUrl | str


class InputImagePart(Request):
    """A picture of responses."""

    type: Literal["input_image"]
    image_url: str


Part = Annotated[TextPart | ImagePart | InputImagePart, Field(discriminator="type")]


class Message(Request):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]


class Extra(Request):
    """The ``astrea`` key of a request.

    readings: also what each expert saw. masking: also what would be answered without each expert.
    without: experts that are switched off. token_ids: also the tokens of each answer.
    """

    readings: bool = False
    masking: bool = False
    without: list[str] = Field(default_factory=list, max_length=64)
    token_ids: bool = False


class StreamOptions(Request):
    """Whether a stream ends with the numbers of tokens."""

    include_usage: bool = False


NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "audio": (),
    "web_search_options": (),
}
"""Keys that would change answers if they were followed, and the values with which they would not."""


class Generation(Request):
    """What chat completions and responses have in common."""

    model: str = Field(default="", max_length=256)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stream: bool | None = None
    astrea: Extra = Field(default_factory=Extra)

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_done(cls, given: Any) -> Any:
        for key, harmless in NEUTRAL.items() if isinstance(given, dict) else ():
            value = given.get(key)
            if value is not None and value not in harmless:
                raise ValueError(f"{key} is not supported")
        return given


class ChatRequest(Generation):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    n: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream to be true")
        return self

    @property
    def longest(self) -> int | None:
        """The longest answer that is wanted, in tokens."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stops(self) -> list[str]:
        """The stop texts."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class EmbeddingRequest(Request):
    """The body of ``POST /v1/embeddings``: texts, or pictures as data URLs."""

    model: str = Field(default="", max_length=256)
    input: str | list[str] = Field(min_length=1)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
