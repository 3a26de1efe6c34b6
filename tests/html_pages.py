"""Reading a page that Astrea writes, for tests of reports."""

from __future__ import annotations

import base64
import csv
import io
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """Parses a page and holds it to being well formed: every tag closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def saved(page: Page, name: str) -> list[list[str]]:
    """The table behind the link that saves ``name``."""
    address = next(link["href"] for link in page.all("a") if link.get("download") == name)
    data = base64.b64decode(address.removeprefix("data:text/csv;charset=utf-8;base64,"))
    return list(csv.reader(io.StringIO(data.decode("utf-8"))))
