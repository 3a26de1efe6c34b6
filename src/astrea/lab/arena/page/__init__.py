"""The arena as a page for people: arena.json -> arena.html, which needs no network, no scripts and no other file.

Nothing in arena.json is taken for granted: what is missing is told of, and text from it is escaped. The page depends on
nothing else, so the same arena gives the same bytes.
"""

from astrea.lab.arena.page.page import write_page

__all__ = ["write_page"]
