"""Vectors of texts and pictures, comparable with each other by dot product: those of the model's contrastive heads.

Letters: P width of a vector.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np

from astrea.common.errors import AstreaError
from astrea.serving.errands import Errand
from astrea.serving.errors import ApiError, refused
from astrea.serving.pictures import PictureReader, file_of
from astrea.serving.schema import EmbeddingRequest
from astrea.serving.within import Answering


@dataclass(frozen=True, slots=True)
class Embedder:
    """What makes vectors. A text that begins with ``data:`` is a picture."""

    engine: Answering
    reader: PictureReader

    async def answer(self, request: EmbeddingRequest, name: str) -> dict[str, Any]:
        """The response to a request for embeddings.

        Raises:
            ApiError: there is too much, a picture cannot be read, or a text is empty or too long.
        """
        inputs = [request.input] if isinstance(request.input, str) else request.input
        limits = self.engine.limits
        if len(inputs) > limits.inputs:
            raise ApiError(400, f"there are more than {limits.inputs} inputs", param="input")
        width = self.engine.model.config.contrast_width
        if request.dimensions not in (None, width):
            raise ApiError(400, f"vectors have {width} numbers", param="dimensions")
        rows, read = [], 0
        for one in inputs:
            if one[:5].lower() == "data:":
                rows.append(await self.vector_of_picture(file_of(one, limits.picture_bytes, "input")))
            else:
                tokens, row = await self.vector_of_text(one)
                rows.append(row)
                read += tokens
        data = [
            {"object": "embedding", "index": number, "embedding": written(row, request.encoding_format)}
            for number, row in enumerate(rows)
        ]
        usage = {"prompt_tokens": read, "total_tokens": read}
        return {"object": "list", "data": data, "model": name, "usage": usage}

    async def vector_of_picture(self, data: bytes) -> np.ndarray:
        """The unit vector (P,) of a picture's file.

        Raises:
            ApiError: it cannot be read.
        """
        picture = await self.reader.read(data)
        return np.array((await self._done(Errand("picture vectors", (picture,))))[0], np.float32)

    async def vector_of_text(self, text: str) -> tuple[int, np.ndarray]:
        """How many tokens a text has, and its unit vector (P,).

        Raises:
            ApiError: it is empty or too long.
        """
        tokens, row = await self._done(Errand("text vector", text=text))
        return tokens, np.array(row, np.float32)

    async def _done(self, errand: Errand) -> Any:
        """What the engine makes of one input. One at a time, so that answers go on in between."""
        try:
            return await self.engine.done(errand)
        except AstreaError as error:
            raise refused(error, "input") from None


def written(row_P: np.ndarray, form: str) -> list[float] | str:
    """A vector in a response: numbers, or the base64 of float32 in little-endian order."""
    if form == "float":
        return [float(value) for value in row_P]
    return base64.b64encode(row_P.astype("<f4").tobytes()).decode()
