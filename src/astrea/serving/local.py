"""The engine without a server: for commands that ask many questions, or one after another."""

from __future__ import annotations

import hashlib
import math
import queue
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from astrea.data.fitted import fit_picture
from astrea.data.image_sources import read_image
from astrea.model.loaded import LoadedModel
from astrea.serving.conversation import prompt_of
from astrea.serving.engine import Engine
from astrea.serving.features import Picture, picture_of
from astrea.serving.job import Finished, Job, Piece
from astrea.serving.limits import Limits
from astrea.serving.sampling import Sampling


class Asker:
    """A model that is asked from within this process; many questions may be on their way at once."""

    def __init__(self, loaded: LoadedModel, limits: Limits | None = None) -> None:
        self.loaded = loaded
        self.engine = Engine(loaded, limits or Limits(), _Silent())

    def __enter__(self) -> Asker:
        self.engine.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.stop()

    def picture(self, source: Any) -> Picture:
        """A picture of any kind that `astrea.data.image_sources.read_image` takes.

        Raises:
            AstreaError: it cannot be read.
        """
        model, processor = self.loaded
        side, wanted = processor.image_processor.image_size, model.experts.wants_originals
        fitted = fit_picture(read_image(source), side, original=wanted)
        key = hashlib.sha256(fitted.square.tobytes())
        if fitted.original is not None:
            key.update(repr(fitted.original.shape).encode() + fitted.original.tobytes())
        return picture_of(key.hexdigest(), fitted)

    def submit(
        self,
        turns: list[dict[str, Any]],
        pictures: Sequence[Picture],
        *,
        most: int,
        without: frozenset[str] = frozenset(),
    ) -> Pending:
        """Ask; what comes back is the answer on its way.

        Raises:
            AstreaError: the model cannot be asked this.
        """
        return Pending(self.engine, prompt_of(self.loaded.processor, turns, pictures, without), most)


class Pending:
    """An answer on its way."""

    def __init__(self, engine: Engine, prompt: Any, most: int) -> None:
        self._pieces: queue.SimpleQueue[Piece | Finished] = queue.SimpleQueue()
        tokenizer = engine.processor.tokenizer
        self.job = Job(
            prompt,
            Sampling(),
            choices=1,
            most=most,
            stops=(),
            deadline=math.inf,
            decode=lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)),
            emit=self._pieces.put,
        )
        engine.submit(self.job)

    def __iter__(self) -> Iterator[str]:
        """Its pieces as they come.

        Raises:
            ApiError: it failed.
        """
        try:
            while isinstance(piece := self._pieces.get(), Piece):
                yield piece.text
            if piece.error is not None:
                raise piece.error
        finally:
            self.job.cancel()

    def text(self) -> str:
        """The whole of it."""
        return "".join(self)


class _Silent:
    """Nobody watches: what fails is told by the answer."""

    def step(self, running: int, waiting: int) -> None:
        """A step was made."""

    def failed(self, error: Exception) -> None:
        """Something failed, which the answer that is waited for says."""
