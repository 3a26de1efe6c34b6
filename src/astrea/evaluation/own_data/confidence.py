"""The confidence of a model that learned from data files of one's own: familiar is what its experts saw in their
pictures; how sure to be takes questions that it did not learn from, those of ``data.validation``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image

from astrea.common.progress import Reporter
from astrea.confidence.calibration import learn_calibration
from astrea.confidence.estimator import ConfidenceEstimator
from astrea.confidence.familiarity import learn_familiar
from astrea.confidence.signals import refuses
from astrea.confidence.unfamiliar import unfamiliar_pictures
from astrea.data.streaming import FileDataset
from astrea.evaluation.generate import Predictor, encode
from astrea.evaluation.own_data.items import LONG, Item
from astrea.evaluation.own_data.score import is_right
from astrea.evaluation.signals import measure
from astrea.experts.protocol import concat_features
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor

if TYPE_CHECKING:
    from astrea.training.context import TrainingContext

PICTURES, FEWEST = 256, 48
"""How many pictures are looked at, and how many there have to be: of fewer nothing can be said about others."""
BATCH = 16
QUESTIONS = 300
"""The most held-out questions that a calibration is fitted on."""


def estimator_of_records(ctx: TrainingContext, report: Reporter) -> ConfidenceEstimator | None:
    """What is familiar from the pictures of ``data.train``; None where it names none, or too few. Where several
    processes share the work, each has to ask."""
    data = ctx.data
    if not isinstance(data, FileDataset) or not data.pictured:
        return None
    count = min(PICTURES, len(data.pairs)) // BATCH * BATCH
    if count < FEWEST:
        return None
    parts = []
    for start in range(0, count, BATCH):
        samples = data.draw(start, BATCH, ctx.recipe.seed, pairs=True)
        parts.append(ctx.encode_trainable(samples, learning=False))
        report.track("what is familiar", start + BATCH, count)
    features = concat_features(parts)
    return ConfidenceEstimator({name: learn_familiar(part) for name, part in features.items()})


def calibrated_on(
    estimator: ConfidenceEstimator,
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    items: Sequence[Item],
) -> ConfidenceEstimator:
    """The same estimator with a calibration fitted on held-out items: questions about one picture with a short answer,
    and the same about pictures that nobody's data holds (`astrea.confidence.unfamiliar`). Too few items change nothing.

    Raises:
        AstreaError: a picture cannot be read.
    """
    asked = [item for item in items if item.kind not in LONG and len(item.turns) == 1 and pictures_of(item) == 1]
    asked = asked[:QUESTIONS]
    if len(asked) < FEWEST:
        return estimator
    parts = [encode(model, processor, item.sample.pictures()) for item in asked]
    size = model.config.image_size
    strange = [Image.fromarray(one) for one in unfamiliar_pictures(len(asked) // 3, size, len(asked))]
    parts += [encode(model, processor, [picture]) for picture in strange]
    questions = [item.question for item in (*asked, *asked[: len(strange)])]
    predictor = Predictor(model, processor.tokenizer)
    found = measure(
        predictor, dict(estimator.familiar), concat_features(parts), questions, range(len(questions)), longest=16
    )
    pairs = zip(found.answers, asked, strict=False)
    right = [is_right(item.kind, answer, item.truths) > 0.5 for answer, item in pairs]
    right += [refuses(answer) for answer in found.answers[len(asked) :]]
    answerable = torch.arange(len(questions)) < len(asked)
    return ConfidenceEstimator(estimator.familiar, learn_calibration(found.signs, torch.tensor(right), answerable))


def pictures_of(item: Item) -> int:
    """How many pictures an item shows."""
    return len(item.sample.record.images)
