"""Requests as clients of the server write them."""

from __future__ import annotations

import base64
import io

from PIL import Image


def data_url(picture: Image.Image, form: str = "PNG") -> str:
    """A picture as requests hold it."""
    file = io.BytesIO()
    picture.save(file, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def asking(question: str, *urls: str) -> list[dict[str, object]]:
    """The messages of one question about pictures."""
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": question}]}]
