"""Confidence as the embedded world teaches it: what is familiar from its pictures, how sure to be from its
validation split.

Nothing of the test split, no held-out wording and no photograph is looked at.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.confidence.calibration import learn_calibration
from astrea.confidence.estimator import ConfidenceEstimator
from astrea.confidence.familiarity import learn_familiar
from astrea.confidence.signals import refuses
from astrea.confidence.unfamiliar import unfamiliar_pictures
from astrea.evaluation.generate import Features, Predictor
from astrea.evaluation.metrics.vqa import vqa_accuracy
from astrea.evaluation.signals import measure
from astrea.experts.protocol import concat_features
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.recipe import World
from astrea.world.dataset import features_of, scenes_of
from astrea.world.scenes.paraphrases import reworded
from astrea.world.scenes.questions import Balancer
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.unanswerable import unanswerable

PICTURES = 400
"""Of the training split, from which is learned what is familiar."""
QUESTIONS = 900
"""Of the validation split: half in the templates' words, a sixth in others, a third that cannot be answered."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Questions with their truth. features: of all pictures. pictures: (B) which one each is about. answers: the
    truth. answerable: (B) bool."""

    features: Features
    questions: list[str]
    pictures: list[int]
    answers: list[str]
    answerable: list[bool]

    def right(self, given: list[str]) -> Tensor:
        """(B,) bool, of the answers ``given``: where nothing can be answered, any refusal is right."""
        rows = zip(given, self.answers, self.answerable, strict=True)
        return torch.tensor([vqa_accuracy(t, [a]) > 0.5 if known else refuses(t) for t, a, known in rows])


def fit_estimator(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    world: World,
    *,
    pictures: int = PICTURES,
    questions: int = QUESTIONS,
) -> ConfidenceEstimator:
    """What a model of the world should doubt.

    Args:
        pictures: how many training pictures are looked at, at least 8. questions: how many validation questions are
            answered, about as many.
    """
    seen = features_of(model.experts, list(scenes_of("train", pictures, world)))
    familiar = {name: learn_familiar(part) for name, part in seen.items()}
    trial = validation_trial(model, world, questions)
    found = measure(Predictor(model, tokenizer), familiar, trial.features, trial.questions, trial.pictures)
    right, answerable = trial.right(found.answers), torch.tensor(trial.answerable)
    return ConfidenceEstimator(familiar, learn_calibration(found.signs, right, answerable))


def validation_trial(model: AstreaForConditionalGeneration, world: World, questions: int) -> Trial:
    """Questions about validation pictures and about unfamiliar ones."""
    rng = random.Random(f"doubt/{world.seed}")
    balancer = Balancer()
    scenes: list[Scene] = []
    asked: list[tuple[str, int, str, bool]] = []
    for scene in scenes_of("validation", max(1, questions // 5), world):
        number = len(scenes)
        scenes.append(scene)
        fair = balancer.choose(scene, rng)
        fair = rng.sample(fair, min(4, len(fair)))
        fair[3:] = [reworded(question, rng) for question in fair[3:]]
        asked += [(question.text, number, question.answer, True) for question in fair]
        question = unanswerable(scene, rng)
        asked.append((question.text, number, question.answer, False))
    features = features_of(model.experts, scenes)
    strange = unfamiliar_pictures(max(1, questions // 12), world.canvas, world.seed)
    for place in range(len(strange)):
        for question in rng.sample(balancer.choose(rng.choice(scenes), rng), 2):
            asked.append((question.text, len(scenes) + place, "", False))
    features = concat_features([features, features_of_pictures(model, strange)])
    columns = zip(*asked, strict=True)
    texts, places, answers, answerable = (list(column) for column in columns)
    return Trial(features, texts, places, answers, answerable)


@torch.no_grad()
def features_of_pictures(model: AstreaForConditionalGeneration, pictures_NHWC: np.ndarray) -> Features:
    """What the experts see in square pictures of the model's size."""
    pixels = torch.from_numpy(pictures_NHWC.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    return model.encode_images(pixels.to(model.device))
