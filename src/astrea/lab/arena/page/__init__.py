"""The arena as a page: arena.json -> arena.html, which needs no network, no scripts and no other file.

Nothing in arena.json is taken for granted: the page says what is missing, and text from the file is escaped. The page
depends on nothing else, so the same arena gives the same bytes.
"""
