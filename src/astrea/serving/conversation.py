"""From a request's messages to a prompt in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from astrea.common.errors import AstreaError
from astrea.model.processing import CHARACTERS_PER_TOKEN, AstreaProcessor
from astrea.serving.errors import ApiError, refused
from astrea.serving.features import Picture
from astrea.serving.job import Prompt
from astrea.serving.limits import Limits
from astrea.serving.pictures import PictureReader, file_of
from astrea.serving.schema import Extra, InputImagePart, Message, TextPart

ROLES = {"developer": "system"}
"""Names of roles that are others'."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """What makes prompts.

    experts: the model's, by name.
    """

    processor: AstreaProcessor
    reader: PictureReader
    experts: tuple[str, ...]
    limits: Limits

    async def of(self, messages: Sequence[Message], extra: Extra) -> Prompt:
        """The prompt of a conversation, its pictures decoded.

        Raises:
            ApiError: there is too much of something, a picture cannot be read, an expert is unknown, or the model
                cannot be asked this.
        """
        unknown = [name for name in extra.without if name not in self.experts]
        if unknown or set(extra.without) >= set(self.experts):
            what = f"experts that can be switched off, though not all at once: {', '.join(self.experts)}"
            raise ApiError(400, what, param="astrea.without")
        turns, urls = self._turns(messages)
        # All are checked before any is decoded.
        files = [file_of(url, self.limits.picture_bytes) for url in urls]
        return self.made(turns, [await self.reader.read(file) for file in files], frozenset(extra.without))

    def made(self, turns: list[dict[str, Any]], pictures: Sequence[Picture], without: frozenset[str]) -> Prompt:
        """The prompt of turns as chat templates take them."""
        try:
            return prompt_of(self.processor, turns, pictures, without)
        except AstreaError as error:
            raise refused(error, "messages") from None

    def _turns(self, messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[str]]:
        """Turns as chat templates take them, and the URLs of their pictures."""
        if len(messages) > self.limits.messages:
            raise ApiError(400, f"there are more than {self.limits.messages} messages", param="messages")
        turns: list[dict[str, Any]] = []
        urls: list[str] = []
        characters = 0
        for message in messages:
            content: list[dict[str, str]] = []
            given = message.content
            for part in [TextPart(type="text", text=given)] if isinstance(given, str) else given:
                if isinstance(part, TextPart):
                    characters += len(part.text)
                    content.append({"type": "text", "text": part.text})
                    continue
                url = part.image_url
                urls.append(url if isinstance(url, str) else url.url)
                content.append({"type": "image"})
                if isinstance(part, InputImagePart) or message.role == "user":
                    continue
                raise ApiError(400, "only users show pictures", param="messages")
            turns.append({"role": ROLES.get(message.role, message.role), "content": content})
        if len(urls) > self.limits.pictures:
            raise ApiError(400, f"there are more than {self.limits.pictures} pictures", param="messages")
        if characters > self.processor.max_length * CHARACTERS_PER_TOKEN:
            raise ApiError(400, "the conversation is longer than the model can read", param="messages")
        return turns, urls


def prompt_of(
    processor: AstreaProcessor,
    turns: list[dict[str, Any]],
    pictures: Sequence[Picture],
    without: frozenset[str] = frozenset(),
) -> Prompt:
    """The prompt of turns as chat templates take them.

    Raises:
        AstreaError: the model cannot be asked this.
    """
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    row = processor.text_row(text, pictures)
    return Prompt(torch.tensor(row.ids), torch.tensor(row.asked), tuple(pictures), without)
