"""Control tokens in texts of the data: noted, because they may be intended; training reads them as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from astrea.data.readers.issues import BadRow, quoted
from astrea.data.readers.record import IMAGE_MARK, Record

Find = Callable[[str], list[str]]
"""The control tokens in a text, by name."""

_USUAL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>"  # <|im_start|>, <|endoftext|>, <|eot_id|>
    r"|</?(?:s|bos|eos|pad|unk|sep|cls|mask|user|assistant|system|start_of_turn|end_of_turn)>"
    r"|\[/?INST\]|<</?SYS>>"
)


def usual_control_tokens(text: str) -> list[str]:
    """What looks like a control token of a common language model, where no tokenizer is at hand."""
    return _USUAL.findall(text)


def control_notes(record: Record, find: Find) -> Iterator[BadRow]:
    """One note per text of a record that holds control tokens; the marks of pictures are none."""
    texts = [(f"turn {number}", message.text) for number, message in enumerate(record.messages, 1)]
    texts += [(f"caption {number}", caption) for number, caption in enumerate(record.captions, 1)]
    for place, text in texts:
        found = dict.fromkeys(token for piece in text.split(IMAGE_MARK) for token in find(piece))
        if found:
            what = f"{place} holds the control token {', '.join(map(quoted, found))}"
            yield BadRow("control_token", what, "it is read as plain text; take it out if it was not meant so")
