"""The page: its own files only, no request to anywhere else, and a policy that would forbid one."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from astrea.serving.pages import BUNDLED, POLICY

FILES = sorted(path.name for path in BUNDLED.iterdir() if path.suffix in (".html", ".css", ".js"))


class Page(HTMLParser):
    """What a page refers to, and which of its controls have a label."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.controls: list[dict[str, str | None]] = []
        self.labels: list[str] = []
        self.within_label = 0
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.references += [given[key] for key in ("src", "href") if given.get(key)]
        self.ids += [given["id"]] if "id" in given else []
        self.inline += [key for key in given if key.startswith("on") or key == "style"]
        if tag == "label":
            self.within_label += 1
            self.labels.append(given.get("for") or "")
        if tag == "input":
            self.controls.append({**given, "within": "yes" if self.within_label else None})

    def handle_endtag(self, tag: str) -> None:
        self.within_label -= tag == "label"


@pytest.fixture(scope="module")
def page() -> Page:
    found = Page()
    found.feed((BUNDLED / "index.html").read_text(encoding="utf-8"))
    return found


def test_the_page_and_its_files_come_with_a_strict_policy(client):
    for name in FILES:
        answer = client.get("/" if name == "index.html" else f"/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.content == (BUNDLED / name).read_bytes()
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    assert client.get("/example.png").status_code == 404  # this server was given none


def test_nothing_of_the_page_is_anywhere_else(page):
    for name in FILES:
        text = (BUNDLED / name).read_text(encoding="utf-8")
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), name
    assert {reference for reference in page.references if not reference.startswith("data:")} <= set(FILES)
    assert page.inline == []  # which the policy would forbid


def test_every_control_has_a_label_and_every_name_in_the_script_an_element(page):
    assert len(page.ids) == len(set(page.ids))
    for control in page.controls:
        assert control["within"] or control["id"] in page.labels, control
    script = (BUNDLED / "page.js").read_text(encoding="utf-8")
    assert set(re.findall(r'at\("(\w+)"\)', script)) <= set(page.ids)
