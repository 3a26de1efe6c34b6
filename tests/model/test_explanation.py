from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from PIL import Image

from astrea.common.errors import AstreaError
from astrea.confidence.estimator import ConfidenceEstimator
from astrea.confidence.familiarity import learn_familiar
from astrea.model.explanation import Explanation, explain
from astrea.model.loading import load_model

QUESTION = "how many suns are there?"
LONGEST = 5


@pytest.fixture(scope="module")
def why(tiny_model, tiny_processor, pictures) -> Explanation:
    return explain(tiny_model, tiny_processor, pictures[0], QUESTION, longest=LONGEST)


def prompt_of(processor, picture):
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return processor(images=[picture], text=[text])


def told_by(model, processor, picture, present) -> list[int]:
    """The answer's tokens, generated alone."""
    inputs = prompt_of(processor, picture)
    made = model.generate(**inputs, present=present, max_new_tokens=LONGEST, do_sample=False)
    return made[0, inputs["input_ids"].shape[1] :].tolist()


def log_likelihood(model, processor, picture, present, told: list[int]) -> float:
    """log p of given answer tokens, from the loss of one forward pass."""
    inputs = dict(prompt_of(processor, picture))
    prompt = inputs["input_ids"].shape[1]
    answer = torch.tensor([told])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], 1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], torch.ones_like(answer)], 1)
    inputs["question_mask"] = torch.cat([inputs["question_mask"], torch.zeros_like(answer, dtype=torch.bool)], 1)
    labels = inputs["input_ids"].clone()
    labels[:, :prompt] = -100
    with torch.no_grad():
        return -float(model(**inputs, present=present, labels=labels).loss) * len(told)


def without(model, name: str) -> torch.Tensor:
    return torch.tensor([[other != name for other in model.experts.names]])


def test_the_answer_is_the_one_the_model_gives(why, tiny_model, tiny_processor, pictures):
    everything = torch.ones(1, 4, dtype=torch.bool)
    told = told_by(tiny_model, tiny_processor, pictures[0], everything)
    assert why.answer == tiny_processor.tokenizer.decode(told, skip_special_tokens=True).strip()
    expected = log_likelihood(tiny_model, tiny_processor, pictures[0], everything, told)
    assert math.log(why.confidence) == pytest.approx(expected, abs=1e-3)


def test_without_a_word_on_doubt_confidence_is_the_probability(why):
    assert why.confidence == why.probability
    assert (why.calibrated, why.answerable, why.doubts) == (False, True, ())


def test_with_one_a_strange_picture_is_not_answered_about(tiny_model, tiny_processor, pictures, monkeypatch):
    """Familiar is what the four pictures look like; the stranger is nothing like them."""
    features = tiny_model.encode_images(tiny_processor(images=pictures)["pixel_values"])
    familiar = {name: learn_familiar(part) for name, part in features.items()}
    monkeypatch.setattr(tiny_model, "confidence_estimator", ConfidenceEstimator(familiar))
    page = Image.new("RGB", (64, 64), "white")
    strange = explain(tiny_model, tiny_processor, page, "is there a banjo?", longest=LONGEST, masking=False)
    assert not strange.answerable
    assert strange.doubts[0].startswith("this picture is unlike what I was trained on (")
    assert strange.doubts[1] == "I do not know the word 'banjo'"


def test_shares_leave_something_to_nobody(why, tiny_model):
    assert list(why.shares) == tiny_model.experts.names
    assert 0 < sum(why.shares.values()) < 1
    assert all(0 < share < 1 for share in why.shares.values())
    assert len({round(share, 4) for share in why.shares.values()}) > 1


def test_readings_are_the_experts_own(why, tiny_model, tiny_processor, pictures):
    pixels = tiny_processor(images=[pictures[0]])["pixel_values"]
    own = tiny_model.experts.readings(pixels)[0]
    assert {n: r.as_dict() for n, r in why.readings.items()} == {n: r.as_dict() for n, r in own.items()}


def test_boxes_are_told_of_the_picture_and_not_of_its_square(tiny_model, tiny_processor, pictures):
    wide = pictures[2]  # 90 x 60: a third of its square is filling
    square = tiny_model.experts.readings(tiny_processor(images=[wide])["pixel_values"])[0]["detection"]
    found = explain(tiny_model, tiny_processor, wide, QUESTION, longest=1, masking=False).readings["detection"]
    assert len(found.boxes) == len(square.boxes) > 0
    top, high = (64 - 43) // 2 / 64, 43 / 64
    for (x0, y0, x1, y1), (left, upper, right, lower) in zip(square.boxes, found.boxes, strict=True):
        assert (left, right) == pytest.approx((x0, x1))
        wanted = [min(1, max(0, (y - top) / high)) for y in (y0, y1)]
        assert (upper, lower) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("name", ["captioning", "classification", "segmentation", "detection"])
def test_masking_is_what_the_model_does_without_the_expert(why, tiny_model, tiny_processor, pictures, name):
    everything, rest = torch.ones(1, 4, dtype=torch.bool), without(tiny_model, name)
    told = told_by(tiny_model, tiny_processor, pictures[0], rest)
    assert why.masking[name].answer == tiny_processor.tokenizer.decode(told, skip_special_tokens=True).strip()
    own = told_by(tiny_model, tiny_processor, pictures[0], everything)
    lost = log_likelihood(tiny_model, tiny_processor, pictures[0], everything, own) - log_likelihood(
        tiny_model, tiny_processor, pictures[0], rest, own
    )
    assert why.masking[name].nats_lost == pytest.approx(lost, abs=1e-3)
    assert abs(lost) > 1e-6


def test_the_same_again_and_without_masking(why, tiny_model, tiny_processor, pictures):
    again = explain(tiny_model, tiny_processor, pictures[0], QUESTION, longest=LONGEST, masking=False)
    assert again.masking == {}
    assert again.answer == why.answer
    assert again.confidence == pytest.approx(why.confidence, rel=1e-4)
    assert list(again.shares.values()) == pytest.approx(list(why.shares.values()), abs=1e-6)


def test_another_picture_has_other_reasons(why, tiny_model, tiny_processor, pictures):
    other = explain(tiny_model, tiny_processor, pictures[1], QUESTION, longest=LONGEST, masking=False)
    assert other.shares != why.shares


def test_a_path_and_bytes_will_do(why, tiny_model, tiny_processor, pictures, tmp_path):
    path = tmp_path / "picture.png"
    pictures[0].save(path)
    for source in (path, str(path), path.read_bytes()):
        found = explain(tiny_model, tiny_processor, source, QUESTION, longest=LONGEST)
        assert dataclasses.asdict(found)["masking"] == dataclasses.asdict(why)["masking"]


def test_an_answer_ends_with_any_mark_that_the_model_ends_with(tiny_folder, pictures):
    """As the end of a turn, which many chat templates have beside the end of a text."""
    model, processor = load_model(tiny_folder)
    everything = torch.ones(1, 4, dtype=torch.bool)
    told = told_by(model, processor, pictures[0], everything)
    assert len(told) == LONGEST
    model.generation_config.eos_token_id = [processor.tokenizer.eos_token_id, told[0]]
    why = explain(model, processor, pictures[0], QUESTION, longest=LONGEST)
    # Other rows go on, so this one is padded; the padding is no part of the answer.
    assert any(effect.answer != why.answer for effect in why.masking.values())
    expected = log_likelihood(model, processor, pictures[0], everything, told[:1])
    assert math.log(why.confidence) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("question", ["", "  ", "a" * 100_000, "is it red? " * 10_000])
def test_bad_questions(tiny_model, tiny_processor, pictures, question):
    with pytest.raises(AstreaError) as caught:
        explain(tiny_model, tiny_processor, pictures[0], question)
    assert caught.value.hint


def test_a_bad_picture(tiny_model, tiny_processor, tmp_path):
    with pytest.raises(AstreaError, match=r"none\.png does not exist"):
        explain(tiny_model, tiny_processor, tmp_path / "none.png", QUESTION)
