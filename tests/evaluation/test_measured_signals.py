"""Doubt measured on the world and on records: what is looked at, and that one answer and many have the same signs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from astrea.confidence.estimator import ConfidenceEstimator
from astrea.confidence.familiarity import learn_familiar
from astrea.confidence.signals import unknown_words
from astrea.confidence.unfamiliar import unfamiliar_pictures
from astrea.data.packing import Turn
from astrea.evaluation.generate import Predictor
from astrea.evaluation.signals import measure, said
from astrea.model.explanation import explain
from astrea.recipes.recipe import World
from astrea.world.confidence import fit_estimator, validation_trial


@pytest.fixture(scope="module")
def trial(tiny_model):
    return validation_trial(tiny_model, World(), 24)


def test_unfamiliar_pictures_are_many_kinds_and_the_same_again():
    made = unfamiliar_pictures(12, 32, 0)
    assert made.shape == (12, 32, 32, 3)
    assert made.dtype == np.uint8
    assert np.array_equal(made, unfamiliar_pictures(12, 32, 0))
    assert len({picture.tobytes() for picture in made}) == 12
    assert not np.array_equal(made, unfamiliar_pictures(12, 32, 1))


def test_the_trial_holds_questions_with_and_without_an_answer(trial):
    assert len(trial.questions) == len(trial.pictures) == len(trial.answers) == len(trial.answerable)
    assert 0.5 < sum(trial.answerable) / len(trial.answerable) < 0.8
    assert max(trial.pictures) + 1 == len(next(iter(trial.features.values())).tokens)
    assert all(answer for answer, known in zip(trial.answers, trial.answerable, strict=True) if known)
    assert {"none", ""} & {answer for answer, known in zip(trial.answers, trial.answerable, strict=True) if not known}


def test_right_is_the_truth_or_a_refusal_where_there_is_none(trial):
    told = [answer if known else "cannot tell" for answer, known in zip(trial.answers, trial.answerable, strict=True)]
    assert trial.right(told).all()
    assert not trial.right(["cannot tell" if known else "blue" for known in trial.answerable]).any()


def test_one_answer_alone_has_the_signs_of_the_same_among_many(tiny_model, tiny_processor, monkeypatch):
    """So that what was calibrated on batches is what `explain` states."""
    pictures = unfamiliar_pictures(3, 64, 5)
    questions = ["how many suns are there?", "is there a banjo?", "what colour is the cat?"]
    pixels = tiny_processor(images=[Image.fromarray(picture) for picture in pictures])["pixel_values"]
    features = tiny_model.encode_images(pixels)
    others = tiny_model.encode_images(pixels.roll(3, 2).repeat(4, 1, 1, 1))
    familiar = {name: learn_familiar(part) for name, part in others.items()}
    predictor = Predictor(tiny_model, tiny_processor.tokenizer)
    many = measure(predictor, familiar, features, questions, [0, 1, 2])
    learned = fit_estimator(tiny_model, tiny_processor.tokenizer, World(), pictures=8, questions=12)
    doubt = ConfidenceEstimator(familiar, learned.calibration)
    assert doubt.calibration is not None
    monkeypatch.setattr(tiny_model, "confidence_estimator", doubt)
    unknown = [unknown_words(question, tiny_processor.tokenizer) for question in questions]
    together = doubt.judge(many.signs, unknown, tiny_model.experts.names)
    for row, (picture, question) in enumerate(zip(pictures, questions, strict=True)):
        alone = explain(tiny_model, tiny_processor, Image.fromarray(picture), question, longest=6, masking=False)
        assert alone.answer == many.answers[row]
        assert alone.calibrated
        assert set(alone.doubts) >= {why for why in together[row].doubts if "often wrong" not in why}
    assert "I do not know the word 'banjo'" in together[1].doubts
    assert many.signs.strange.shape == (3, 4)


def test_answers_are_as_likely_in_parts_as_together(tiny_model, tiny_processor, trial, monkeypatch):
    predictor = Predictor(tiny_model, tiny_processor.tokenizer)
    asked = (trial.questions[:7], ["yes", "blue", "two", "no", "cat", "left", "none"])
    which = torch.tensor(trial.pictures[:7])
    together = said(predictor, trial.features, *asked, which)
    monkeypatch.setattr("astrea.evaluation.signals.AT_ONCE", 3)
    assert torch.allclose(said(predictor, trial.features, *asked, which), together, atol=1e-4)
    # By hand, for the last one: the log-probabilities of its tokens.
    packed = predictor.packer.pack([[Turn(asked[0][-1], asked[1][-1])]])
    inputs = packed.model_inputs()
    labels = inputs.pop("labels")
    asking = (labels == -100) & (inputs["segments"] > 0)
    del inputs["label_weights"]
    with torch.no_grad():
        seen = predictor.rows(trial.features, which[-1:])
        logits = tiny_model(**{"question_mask": asking, **inputs}, features=seen, use_cache=False).logits
    log = logits[0, :-1].log_softmax(-1).gather(1, labels[0, 1:, None].clamp_min(0))[:, 0]
    assert float(log[labels[0, 1:] != -100].sum()) == pytest.approx(float(together[-1]), abs=1e-4)


def test_what_is_learned_of_the_world(tiny_model, tiny_processor):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    doubt = fit_estimator(tiny_model, tiny_processor.tokenizer, World(), pictures=8, questions=12)
    assert set(doubt.familiar) == set(tiny_model.experts.names)
    assert doubt.calibration is not None
    assert 0 <= float(doubt.calibration.threshold) < 1
    assert torch.equal(torch.get_rng_state(), before)
