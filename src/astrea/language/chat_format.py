"""A chat template in tokens: where its prompt ends, which token ends an answer, which tokens are the question.

All of it is found by trying the template out; nothing here knows a family of models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.language.chat import (
    AGAIN,
    ANSWER,
    FOLD,
    QUESTION,
    SYSTEM,
    Message,
    assistant,
    name_of,
    render,
    settled_template,
    user,
    with_parts,
)
from astrea.language.question_span import MOST_MARKS
from astrea.language.tokenizer import ASSISTANT, IMAGE, USER

TEMPLATE = "use a template whose add_generation_prompt writes exactly what every answer begins with"
SLOT = re.compile(r"zq(\d+)qz")
"""Stands for a text while a template is tried out."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text in tokens. spans: which characters each token stands for, (0, 0) where the tokenizer does not tell."""

    ids: list[int]
    spans: list[tuple[int, int]]

    def touching(self, start: int, stop: int) -> list[int]:
        """The tokens that hold any of the characters ``start .. stop``."""
        return [i for i, (first, last) in enumerate(self.spans) if first < last and first < stop and last > start]


@dataclass(frozen=True, slots=True)
class ReferenceOutputs:
    """One text of a rendered conversation: who said it, as which message, and its characters."""

    role: str
    message: int
    start: int
    stop: int


def known_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """The id of a token that is in the vocabulary, else None."""
    found: Any = tokenizer.convert_tokens_to_ids(token)
    return None if found is None or found == tokenizer.unk_token_id else int(found)


class ChatFormat:
    """How a tokenizer writes conversations.

    Attributes:
        template: the tokenizer's, with the preface it needs (see `astrea.language.chat`).
        image_id: of ``<image>``. stop_id: of the token that ends an answer.
        tail: what the prompt has behind the question, as text; tail_ids: as tokens, without those that may have grown
            together with the question. lead: what an answer begins with before its words, such as a space.
        marked: the vocabulary has ``<user>`` and ``<assistant>``, which then belong to the question.

    Raises:
        AstreaError: the tokenizer lacks ``<image>``; the template cannot be used: it refuses a question and an answer,
            its prompt is not how the whole conversation begins, or no token ends an answer. Names the template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        image_id = known_id(tokenizer, IMAGE)
        if image_id is None:
            raise AstreaError(
                f"the tokenizer has no {IMAGE} token", "prepare it with astrea.language.checkpoint.prepare_tokenizer"
            )
        self.image_id = image_id
        self.marked = known_id(tokenizer, USER) is not None and known_id(tokenizer, ASSISTANT) is not None
        self.template = settled_template(tokenizer)
        prompt = self.render([user(QUESTION)], prompt=True)
        whole = self.render([user(QUESTION), assistant(ANSWER)])
        self.tail = prompt[prompt.index(QUESTION) + len(QUESTION) :]
        self.lead = whole[len(prompt) : whole.index(ANSWER)]
        before, with_answer = self.encode(prompt), self.encode(whole)
        if not whole.startswith(prompt) or with_answer.ids[: len(before.ids)] != before.ids:
            raise AstreaError(
                f"{name_of(tokenizer)}: its prompt {prompt[-60:]!r} is not how the conversation {whole[-90:]!r} begins",
                TEMPLATE,
            )
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder} - {self.image_id}
        ends = self.encode(whole[whole.index(ANSWER) + len(ANSWER) :]).ids
        stops = [i for i in ends if i in special and i in with_answer.ids[len(before.ids) :]]
        if not stops:
            raise AstreaError(
                f"{name_of(tokenizer)} ends an answer with {whole[whole.index(ANSWER) + len(ANSWER) :]!r}, which holds "
                "no special token that a model could stop at",
                "put eos_token behind every answer of the template",
            )
        self.stop_id = stops[0]
        self.tail_ids = _common_end(before.ids, self.encode(self.render([user(f"{AGAIN}.")], prompt=True)).ids)

    @cached_property
    def opening(self) -> str:
        """What stands right in front of a user's words in every turn; "" if turns have nothing in common."""
        talk = [user(QUESTION, 0), assistant(ANSWER), user(AGAIN, 0)]
        text = self.render(talk, prompt=True)
        found = _common_end(text[: text.index(QUESTION)], text[: text.index(AGAIN)])
        if FOLD not in self.template:
            ruled = self.render([{"role": "system", "content": SYSTEM}, user(QUESTION, 0)], prompt=True)
            found = _common_end(found, ruled[: ruled.index(QUESTION)])
        return str(found)

    @cached_property
    def question_span(self) -> dict[str, Any] | None:
        """The tokens in front of and behind a user's words in every turn, see `astrea.language.question_span`; None if
        turns have nothing in common there, or the tokenizer does not tell."""
        if self.marked:
            marks = [int(known_id(self.tokenizer, mark) or 0) for mark in (USER, ASSISTANT)]
            return {"start": marks[:1], "stop": marks[1:], "included": True}
        if not self.tokenizer.is_fast:
            return None
        talk = [user(QUESTION, 0), assistant(ANSWER), user(AGAIN, 0)]
        text = self.render(talk, prompt=True)
        encoded = self.encode(text)
        before = [
            encoded.ids[: encoded.touching(text.index(words), text.index(words) + 1)[0]] for words in (QUESTION, AGAIN)
        ]
        if FOLD not in self.template:
            text = self.render([{"role": "system", "content": SYSTEM}, user(QUESTION, 0)], prompt=True)
            encoded = self.encode(text)
            before.append(encoded.ids[: encoded.touching(text.index(QUESTION), text.index(QUESTION) + 1)[0]])
        start = before[0]
        for other in before[1:]:
            start = _common_end(start, other)
        while start and not str(self.tokenizer.decode(start[-1:])).strip(" "):
            start = start[:-1]  # a space grows together with the word behind it
        stop = self.tail_ids
        if not start or not stop:
            return None
        return {"start": start[-MOST_MARKS:], "stop": stop[:MOST_MARKS], "included": False}

    def render(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        """A conversation as text, see `astrea.language.chat.render`."""
        return render(self.tokenizer, self.template, [with_parts(message) for message in messages], prompt=prompt)

    def encode(self, text: str) -> Encoded:
        """A rendered text in tokens; the template has put every special token already."""
        if not self.tokenizer.is_fast:
            ids = list(self.tokenizer(text, add_special_tokens=False).input_ids)
            return Encoded(ids, [(0, 0)] * len(ids))
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return Encoded(list(found.input_ids), [(int(a), int(b)) for a, b in found["offset_mapping"]])

    def asked(self, text: str, encoded: Encoded) -> list[bool]:
        """Which tokens of a rendered text are the words of its last user turn, answered or not; of any other text, all
        but special tokens."""
        outside = {self.image_id, *self.tokenizer.all_special_ids}
        start = text.rfind(self.opening) + len(self.opening) if self.opening in text else 0
        stop = text.find(self.tail, start) if self.opening in text and self.opening else text.rfind(self.tail)
        if stop < 0 or not self.tokenizer.is_fast:
            return [i not in outside for i in encoded.ids]
        mine = set(encoded.touching(start, stop))
        return [place in mine and i not in outside for place, i in enumerate(encoded.ids)]

    def texts(self, messages: Sequence[Message]) -> tuple[str, list[ReferenceOutputs]]:
        """A whole conversation as text, and where in it each of its texts is.

        Raises:
            AstreaError: the template leaves something out or rewrites it beyond recognition.
        """
        said: list[tuple[str, int, str]] = []
        slotted: list[dict[str, Any]] = []
        for number, message in enumerate(map(with_parts, messages)):
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            new: list[Any] = []
            for part in parts:
                if part.get("type") == "text":
                    new.append({"type": "text", "text": f"zq{len(said)}qz"})
                    said.append((str(message["role"]), number, str(part["text"])))
                else:
                    new.append(part)
            slotted.append({**message, "content": new[0]["text"] if isinstance(content, str) else new})
        text = self.render(messages)
        pieces = SLOT.split(self.render(slotted))
        between, order = pieces[::2], pieces[1::2]
        found: list[ReferenceOutputs] = []
        at = len(between[0]) if order == [str(i) for i in range(len(said))] and text.startswith(between[0]) else -1
        for (role, number, words), after in zip(said, between[1:], strict=False):
            stop = -1 if at < 0 else _end_of(text, at, words, after, last=len(found) == len(said) - 1)
            if stop < 0:
                at = -1
                break
            found.append(ReferenceOutputs(role, number, at, stop))
            at = stop + len(after)
        if at < 0:
            raise AstreaError(
                f"{name_of(self.tokenizer)} does not write out all that is said, in its order", "use another template"
            )
        return text, found

    def answer_ends(
        self, messages: Sequence[Message], text: str, encoded: Encoded, said: Sequence[ReferenceOutputs]
    ) -> list[tuple[int, int]]:
        """The tokens (first, behind the last) of every answer, the token that ends it among them if the template writes
        one there."""
        found: list[tuple[int, int]] = []
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            mine = [one for one in said if one.message == number]
            later = [one.start for one in said if one.message > number]
            led = text[: mine[0].start].endswith(self.lead)
            tokens = encoded.touching(mine[0].start - (len(self.lead) if led else 0), mine[-1].stop)
            stop = tokens[-1] + 1
            for place in range(stop, len(encoded.ids)):
                if later and encoded.spans[place][0] >= later[0]:
                    break
                if encoded.ids[place] == self.stop_id:
                    stop = place + 1
                    break
            found.append((tokens[0], stop))
        return found

    def answered(self, messages: Sequence[Message], text: str) -> list[int]:
        """1 for each token of a rendered conversation that belongs to an answer or ends it, 0 for the others.

        Raises:
            AstreaError: the template leaves something out, or the tokenizer does not tell what its tokens stand for.
        """
        if not self.tokenizer.is_fast:
            raise AstreaError(
                "the tokenizer does not tell which characters a token stands for, so answers cannot be found",
                "use the checkpoint's fast tokenizer (tokenizer.json)",
            )
        encoded = self.encode(text)
        found = [0] * len(encoded.ids)
        for start, stop in self.answer_ends(messages, text, encoded, self.texts(messages)[1]):
            found[start:stop] = [1] * (stop - start)
        return found

    def answers(self, generated: list[int]) -> list[int]:
        """What follows the last prompt in a row of tokens; the whole row if it holds no prompt."""
        size = len(self.tail_ids)
        for start in range(len(generated) - size, -1, -1):
            if generated[start : start + size] == self.tail_ids:
                return generated[start + size :]
        return generated


def _end_of(text: str, at: int, words: str, after: str, *, last: bool) -> int:
    """Where a text that begins at ``at`` ends, given what follows it; -1 if it is not there. Templates may trim it."""
    for version in (words, words.strip(), words.rstrip(), words.lstrip()):
        stop = at + len(version)
        if (
            text.startswith(version, at)
            and text.startswith(after, stop)
            and (not last or stop + len(after) == len(text))
        ):
            return stop
    stop = len(text) - len(after) if last else text.find(after, at) if after else -1
    return stop if stop >= at and text.startswith(after, stop) else -1


def _common_end(one: Any, other: Any) -> Any:
    """What two texts (or lists) both end with."""
    size = 0
    while size < min(len(one), len(other)) and one[-1 - size] == other[-1 - size]:
        size += 1
    return one[len(one) - size :]
