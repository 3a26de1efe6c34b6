"""The page that people see: a few files of the package, and nothing else of the disk."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Response

from astrea.common.paths import read_bytes

BUNDLED = Path(__file__).with_name("page")
MOST = 1 << 24
"""Bytes of a file of the page."""
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""What the page may do: its own files, and requests to this server."""


def add_pages(app: FastAPI, example: Path | None) -> None:
    """Let an application show the page.

    Args:
        example: a PNG that the page offers, or None.
    """
    for page in sorted(BUNDLED.iterdir()):
        if page.suffix in KINDS:
            route = "/" if page.name == "index.html" else f"/{page.name}"
            _add(app, route, read_bytes(page, MOST), f"{KINDS[page.suffix]}; charset=utf-8")
    if example is not None:
        _add(app, "/example.png", read_bytes(example, MOST), "image/png")


def _add(app: FastAPI, route: str, content: bytes, kind: str) -> None:
    """A route that gives what was read when the server started."""

    @app.get(route, include_in_schema=False)
    async def shown() -> Response:
        return Response(content, media_type=kind, headers={"Content-Security-Policy": POLICY})
