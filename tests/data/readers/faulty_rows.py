"""Rows with one of each issue, what is said of each, and the checks that say it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astrea.data.readers import ImageRoot, Record, open_reader
from astrea.data.readers.check import Checks, Layout, examine
from astrea.data.readers.issues import Issue
from astrea.data.readers.record import IMAGE_MARK


def turns(*texts: str, roles: tuple[str, ...] = ("human", "gpt")) -> list[dict[str, str]]:
    return [{"from": roles[n % len(roles)], "value": text} for n, text in enumerate(texts)]


QA = turns("<image>\nq", "a")

# (id, the rest of the row, what is told after "FILE:LINE ID: "), one per line, in this order.
ROWS: list[tuple[Any, Any, str | None]] = [
    ("good", {"image": "a.png", "conversations": QA}, None),
    (
        "two-marks",
        {"image": "a.png", "conversations": turns("<image><image> q", "a")},
        "1 picture but 2 <image> marks; write one <image> per picture where it is shown",
    ),
    (
        "no-mark",
        {"image": "a.png", "conversations": turns("q", "a")},
        "1 picture but 0 <image> marks; write one <image> per picture where it is shown",
    ),
    (
        "missing",
        {"image": "none.png", "conversations": QA},
        "picture 'none.png' does not exist under ROOT; correct the path, or give the right root with images",
    ),
    (
        "corrupt",
        {"image": "text.png", "conversations": QA},
        "picture 'text.png' is not a JPEG, PNG, WEBP, GIF, BMP or TIFF file, or its beginning is damaged; check what "
        "the file really is (its ending does not count) and convert it, or copy it again",
    ),
    (
        "cut",
        {"image": "cut.png", "conversations": QA},
        "picture 'cut.png' is damaged or cut short: image file is truncated; copy or download "
        "the file again, or leave it out of the data",
    ),
    (
        "absolute",
        {"image": "/etc/a.png", "conversations": QA},
        "picture '/etc/a.png' is an absolute path; write it relative to the image root, and give the root with "
        "images",
    ),
    (
        "dots",
        {"image": "../a.png", "conversations": QA},
        "picture '../a.png' has '..' in its path; write it relative to the image root",
    ),
    (
        "link",
        {"image": "link.png", "conversations": QA},
        "picture 'link.png' leads out of the image root through a link; copy it into the root, or give a root that "
        "holds what the link points to",
    ),
    (
        "remote",
        {"image": "https://example.org/a.png", "conversations": QA},
        "picture 'https://example.org/a.png' is not on this machine; download it and write its path",
    ),
    (
        "spaces",
        {"image": " a.png", "conversations": QA},
        "picture ' a.png' has whitespace around its path; take the whitespace away",
    ),
    (
        "text-only",
        {"conversations": turns("q", "a")},
        "the row has no picture; leave the row out, or do not ask for pictures",
    ),
    (
        "silent",
        {"image": "a.png", "conversations": turns("<image>\nq", " \n")},
        "turn 2, the assistant's, is empty; write the answer, or leave it out",
    ),
    (
        "order",
        {"image": "a.png", "conversations": turns("<image>\nq", "q", "a", roles=("human", "human", "gpt"))},
        "turn 2 is the user's where the assistant's should be; let user and assistant take turns, the user first and "
        "the assistant last",
    ),
    (
        "open",
        {"image": "a.png", "conversations": turns("<image>\nq", "a", "q")},
        "turn 3, the last, is the user's; let user and assistant take turns, the user first and the assistant last",
    ),
    (
        "nobody",
        {"image": "a.png", "conversations": turns("<image>\nq")},
        "no turn is the assistant's; add the answer, or leave the record out",
    ),
    (
        "role",
        {"image": "a.png", "conversations": turns("q", "a", roles=("human", "bing"))},
        "unknown role 'bing'; known roles: system, user, assistant, human, gpt, developer",
    ),
    (
        "role-space",
        {"image": "a.png", "conversations": turns("<image>\nq", "a", roles=("human ", "gpt"))},
        "the role 'human ' has whitespace around it; take the whitespace away",
    ),
    (
        "good",
        {"image": "a.png", "conversations": QA},
        "an earlier record has the same id; give every record an id of its own",
    ),
    (
        "type",
        {"image": 3, "conversations": QA},
        "'image' is a number, not text; write 'image' as text",
    ),
    (
        "nothing",
        {"image": "a.png", "conversations": []},
        "the record has neither a conversation nor a caption; write one, or leave it out",
    ),
    (
        "long-picture",
        {"image": ["a.png"] * 4, "conversations": turns("<image><image><image><image>\nq", "a")},
        "of 46 tokens the limit of 30 would cut a picture; shorten the row, show fewer pictures, or raise the limit|"
        "of 46 tokens the limit of 30 would leave no answer to learn from; shorten the row, show fewer pictures, or "
        "raise the limit",
    ),
    (
        "long-question",
        {"image": "a.png", "conversations": turns("<image>\n" + "q " * 20, "a")},
        "of 35 tokens the limit of 30 would leave no answer to learn from; shorten the row, show fewer pictures, or "
        "raise the limit",
    ),
    (
        "long-answer",
        {"image": "a.png", "conversations": turns("<image>\nq", "a " * 20)},
        "of 35 tokens the limit of 30 would cut an answer; shorten the row, show fewer pictures, or raise the limit",
    ),
    (None, b"{", "not valid JSON: Expecting property name enclosed in double quotes at character 2 of the row; correct "
                 "the syntax there, or leave the row out"),
    (None, b"[]", 'the row is a list, not an object; write one {"key": value, ...} per row'),
    (None, b'{"id": "\xe9"}', "byte 9 of the row (0xe9) is not UTF-8; save the file as UTF-8"),
    (None, b'{"id": 3}', "'conversations' is missing, not a list; write \"conversations\" as a list of "
                         '{"from": "human" or "gpt", "value": "..."}'),
    (" edge", {"image": "a.png", "conversations": QA}, "the id ' edge' has whitespace around it; take the whitespace "
                                                       "away"),
]  # fmt: skip


class Words:
    """Counts a token per word and ten per picture: one to begin with, one before each turn, one behind each answer."""

    limit = 30

    def layout(self, record: Record) -> Layout:
        place, images_end, first_label = 1, 0, None
        for message in record.messages:
            pictures = message.text.count(IMAGE_MARK)
            place += 10 * pictures
            images_end = place if pictures else images_end
            place += 1
            if message.role == "assistant" and first_label is None:
                first_label = place
            place += len(message.text.replace(IMAGE_MARK, " ").split()) + (message.role == "assistant")
        return Layout(place, images_end, place if first_label is None else first_label)


CHECKS = Checks(decode=True, need_images=True, tokens=Words())


def told(path: Path, root: Path, checks: Checks = CHECKS) -> list[Issue]:
    return [issue for _, issues in examine(open_reader(path), ImageRoot(root), checks) for issue in issues]
