"""An index of pictures that clients may search by a text or a picture, and see.

Letters: P width of a vector.
"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from astrea.common.errors import AstreaError
from astrea.data.images import load_image
from astrea.retrieval.search import PictureIndex, index_of
from astrea.serving.embeddings import Embedder
from astrea.serving.errors import ApiError
from astrea.serving.pictures import file_of
from astrea.serving.schema import Request

THUMBNAIL = 320


class SearchRequest(Request):
    """The body of ``POST /astrea/search``: a text, or a picture as a data URL."""

    text: str | None = Field(default=None, max_length=4000)
    image: str | None = None
    top: int = Field(default=12, ge=1, le=50)

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.text is None) == (self.image is None):
            raise ValueError("give text or image")
        return self


class Gallery:
    """The pictures of one index. Clients name them by their number in it, never by a path.

    Raises:
        AstreaError: there is no index, it is another model's, or the search library is not installed.
    """

    def __init__(self, embedder: Embedder, folder: Path) -> None:
        where = index_of(folder)
        if where is None:
            raise AstreaError(f"{folder} holds no index", f"make one: astrea index {folder}")
        self.embedder, self.index = embedder, PictureIndex(where)
        self.index.check_model(embedder.engine.model)

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        """The nearest pictures by the vectors alone, nearest first.

        Raises:
            ApiError: a text that is empty or too long, or a picture that cannot be read.
        """
        row_P: np.ndarray
        if request.image is not None:
            data = file_of(request.image, self.embedder.engine.limits.picture_bytes, "image")
            row_P = await self.embedder.vector_of_picture(data)
        else:
            _, row_P = await self.embedder.vector_of_text(request.text or "")
        scores, rows = self.index.nearest(row_P[None], request.top)
        hits = zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        return {
            "data": [
                {"picture": row, "name": self.index.path(row).name, "score": round(score, 4)} for row, score in hits
            ]
        }

    async def thumbnail(self, row: int) -> bytes:
        """A small PNG of a picture.

        Raises:
            ApiError: there is none of this number, or its file cannot be read any more.
        """
        if not 0 <= row < self.index.manifest.count:
            raise ApiError(404, "there is no picture of this number")
        return await asyncio.to_thread(_small, self.index.path(row))


def _small(path: Path) -> bytes:
    try:
        picture = load_image(path)
    except AstreaError:
        raise ApiError(404, "this picture cannot be read any more") from None
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
