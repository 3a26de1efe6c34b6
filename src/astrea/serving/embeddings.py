"""Vectors of texts and pictures, comparable with each other by dot product: those of the model's contrastive heads.

Letters: P width of a vector.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from typing import Any

import numpy as np

from astrea.common.errors import AstreaError
from astrea.evaluation.generate import Predictor
from astrea.retrieval.pictures import text_vector
from astrea.retrieval.rerank import check_text
from astrea.serving.engine import Engine
from astrea.serving.errors import ApiError, refused
from astrea.serving.features import Picture
from astrea.serving.pictures import PictureReader, file_of
from astrea.serving.schema import EmbeddingRequest


@dataclass(frozen=True, slots=True)
class Embedder:
    """What makes vectors. A text that begins with ``data:`` is a picture."""

    engine: Engine
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
        found: np.ndarray = await self._done(lambda: self._of_picture(picture))
        return found

    async def vector_of_text(self, text: str) -> tuple[int, np.ndarray]:
        """How many tokens a text has, and its unit vector (P,).

        Raises:
            ApiError: it is empty or too long.
        """
        found: tuple[int, np.ndarray] = await self._done(lambda: self._of_text(text))
        return found

    async def _done(self, work: Any) -> Any:
        """What the engine makes of one input. One at a time, so that answers go on in between."""
        try:
            return await asyncio.wrap_future(self.engine.call(work))
        except AstreaError as error:
            raise refused(error, "input") from None

    def _of_text(self, text: str) -> tuple[int, np.ndarray]:
        model, processor = self.engine.model, self.engine.processor
        check_text(processor, text)
        predictor = Predictor(model, processor.tokenizer)
        return len(predictor.packer.ids(text)), text_vector(model, predictor, text)[0]

    def _of_picture(self, picture: Picture) -> np.ndarray:
        features = self.engine.features.of([picture], [()])
        row: np.ndarray = self.engine.model.embed_image(features=features)[0].float().cpu().numpy()
        return row


def written(row_P: np.ndarray, form: str) -> list[float] | str:
    """A vector in a response: numbers, or the base64 of float32 in little-endian order."""
    if form == "float":
        return [float(value) for value in row_P]
    return base64.b64encode(row_P.astype("<f4").tobytes()).decode()
