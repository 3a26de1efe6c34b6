"""The page that people see: a few files of the package, and nothing else of the disk."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Response

FOLDER = Path(__file__).with_name("page")
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
    for path in sorted(FOLDER.iterdir()):
        if path.suffix in KINDS:
            route = "/" if path.name == "index.html" else f"/{path.name}"
            _add(app, route, path.read_bytes(), f"{KINDS[path.suffix]}; charset=utf-8")
    if example is not None:
        _add(app, "/example.png", example.read_bytes(), "image/png")


def _add(app: FastAPI, route: str, content: bytes, kind: str) -> None:
    """A route that gives what was read when the server started."""

    @app.get(route, include_in_schema=False)
    async def shown() -> Response:
        return Response(content, media_type=kind, headers={"Content-Security-Policy": POLICY})
