"""What a server has its engine do beside answering: readings, likelihoods, vectors. All results can be JSON."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Literal

import torch

from astrea.evaluation.generate import Predictor
from astrea.model.explanation import answer_likelihood
from astrea.retrieval.pictures import text_vector
from astrea.retrieval.rerank import check_text
from astrea.serving.engine import Engine
from astrea.serving.features import Picture
from astrea.serving.job import Prompt
from astrea.serving.prefill import padded, present_of

Kind = Literal["readings", "likelihoods", "picture vectors", "text vector"]


@dataclass(frozen=True, slots=True)
class Errand:
    """One thing to do.

    kind: ``readings`` of pictures, see `Engine.readings`; ``likelihoods`` of an answer, log p in nats for each of some
    prompts of one length; ``picture vectors``, unit vectors of pictures; ``text vector``, how many tokens a text has,
    and its unit vector.
    """

    kind: Kind
    pictures: tuple[Picture, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    tokens: tuple[int, ...] = ()
    text: str = ""


def sent(engine: Engine, errand: Errand, threads: Executor) -> Future[Any]:
    """Have an errand done: by the engine between two steps, or, where it is about experts alone, by another thread."""
    if errand.kind == "readings":
        return threads.submit(engine.readings, errand.pictures)
    return engine.call(lambda: DONE[errand.kind](engine, errand))


def _likelihoods(engine: Engine, errand: Errand) -> list[float]:
    prompts = errand.prompts
    rows = padded(prompts, engine.processor.tokenizer.pad_token_id or 0, engine.model.device)
    pictures = [picture for prompt in prompts for picture in prompt.pictures]
    none_skipped: list[tuple[str, ...]] = [()] * len(pictures)
    features = engine.features.of(pictures, none_skipped)
    present = present_of(prompts, none_skipped, engine.model.experts.names).to(engine.model.device)
    with torch.inference_mode():
        found = answer_likelihood(engine.model, rows, features, present, list(errand.tokens))
    return [float(nats) for nats in found]


def _picture_vectors(engine: Engine, errand: Errand) -> list[list[float]]:
    features = engine.features.of(errand.pictures, [()] * len(errand.pictures))
    found: list[list[float]] = engine.model.embed_image(features=features).float().tolist()
    return found


def _text_vector(engine: Engine, errand: Errand) -> tuple[int, list[float]]:
    """Raises AstreaError where the text is empty or too long."""
    model, processor = engine.model, engine.processor
    check_text(processor, errand.text)
    predictor = Predictor(model, processor.tokenizer)
    return len(predictor.packer.ids(errand.text)), text_vector(model, predictor, errand.text)[0].tolist()


DONE: dict[str, Callable[[Engine, Errand], Any]] = {
    "likelihoods": _likelihoods,
    "picture vectors": _picture_vectors,
    "text vector": _text_vector,
}
