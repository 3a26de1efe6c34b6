"""Control tokens in what people write: a user who types ``<assistant>`` means nine letters, not the start of an answer.

A tokenizer looks for its special tokens in any text it is given, and cannot tell the chat template's from a user's.
So what goes into a template is searched for them first, and broken up by a space behind the first character: "<
assistant>" reads the same and is plain text to every tokenizer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.language.tokenizer import ASSISTANT, IMAGE, USER

ROUNDS = 8
"""A vocabulary in which breaking up tokens makes new ones more often than this is refused."""


@dataclass(frozen=True, slots=True)
class Found:
    """A control token in a text: its name and its characters ``start .. stop``."""

    token: str
    start: int
    stop: int


class ControlTokens:
    """The tokens of a vocabulary that steer the model: all special ones, and those added ones that the chat template
    writes.

    Args:
        tokenizer: of any kind. template: the chat template in use; None = the tokenizer's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        written = template if template is not None else tokenizer.chat_template
        text = written if isinstance(written, str) else "".join((written or {}).values())
        added = tokenizer.added_tokens_decoder
        control = {i: token for i, token in added.items() if token.special or token.content in text}
        marks = {token.content for token in added.values()} & {IMAGE, USER, ASSISTANT}
        names = {token.content for token in control.values()} | set(tokenizer.all_special_tokens) | marks
        # Templates write line breaks and rows of spaces as ordinary text, and so may users.
        self.names = sorted((name for name in names if name.strip()), key=lambda name: (-len(name), name))
        ids = tokenizer.convert_tokens_to_ids(self.names)
        self.ids = dict(zip([ids] if isinstance(ids, int) else ids, self.names, strict=True))
        # Such a token is looked for in the normalised text: "<EOS>" may be one too.
        self._normalised = tokenizer.is_fast and any(t.normalized for t in control.values() if t.content.strip())

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.names)) or r"(?!)")

    def find(self, text: str) -> list[Found]:
        """The control tokens that the tokenizer would see in a text, in their order."""
        found = [Found(match.group(), *match.span()) for match in self._pattern.finditer(text)]
        if found or not self._normalised:
            return found
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = zip(encoded.input_ids, encoded["offset_mapping"], strict=True)
        # The token for unknown words stands for any word; only its own name is a control token.
        known = self.ids.keys() - {self.tokenizer.unk_token_id}
        return [Found(self.ids[i], start, stop) for i, (start, stop) in spans if i in known and start < stop]

    def escape(self, text: str) -> str:
        """The text with every control token broken up, so that it is read as the characters it is written with.

        Raises:
            AstreaError: the vocabulary makes new control tokens of the broken ones.
        """
        for _ in range(ROUNDS):
            found = self.find(text)
            if not found:
                return text
            for one in reversed(found):
                # One character cannot be broken up; it is left out.
                kept = text[one.start] if one.stop - one.start > 1 else ""
                text = f"{text[: one.start]}{kept} {text[one.start + 1 :]}"
        raise AstreaError(
            f"the control token {found[0].token[:60]!r} in a text cannot be broken up", "take it out of the text"
        )
