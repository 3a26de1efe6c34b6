"""The language model that has read plain sentences alone."""

from __future__ import annotations

import random

import pytest
import torch

from astrea.language.tokenizer import ASSISTANT, IMAGE, USER
from astrea.recipes.recipe import LanguageModel, Pretraining
from astrea.world.language.sentences import SentenceObjective, sentence_perplexity, sentences
from astrea.world.language.tiny import tiny_language_model, tiny_tokenizer
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.questions import Balancer


@pytest.fixture(scope="module")
def objective() -> SentenceObjective:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    size = LanguageModel(width=32, layers=1, heads=2, feed_forward=64)
    return SentenceObjective(tiny_language_model(size, tokenizer), tokenizer, 0)


def test_a_scene_gives_captions_facts_and_questions_that_nobody_answers():
    balancer, rng = Balancer(), random.Random(0)
    said = [text for n in range(20) for text in sentences(split_scene("train", n, 0), balancer, rng)]
    assert len(said) > 100
    assert {text[-1] for text in said} == {".", "?"}  # whole sentences: nothing follows a question
    facts = [text for text in said if text.startswith(("a ", "an ")) and "," not in text]
    assert any("is an animal" in text or "is a tool" in text for text in facts)


def test_rows_are_sentences_and_hold_no_picture_and_no_turn_of_a_chat(objective):
    batch = objective.batch(0, 0, 4)
    tokenizer = objective.tokenizer
    ids, real = batch.input_ids, batch.attention_mask.bool()
    assert not torch.isin(ids, torch.tensor(tokenizer.convert_tokens_to_ids([IMAGE, USER, ASSISTANT]))).any()
    assert tokenizer.unk_token_id not in ids
    assert torch.equal(batch.labels, ids.masked_fill(~real, -100))
    begins, ends = ((ids == each) & real for each in (tokenizer.bos_token_id, tokenizer.eos_token_id))
    assert torch.equal(begins.sum(1), ends.sum(1))
    assert torch.equal(begins[:, 1:], ends[:, :-1] & real[:, 1:])  # one sentence follows another


def test_batches_are_a_function_of_the_seed(objective):
    other = SentenceObjective(objective.model, objective.tokenizer, 1)
    again = SentenceObjective(objective.model, objective.tokenizer, 0)
    first = SentenceObjective(objective.model, objective.tokenizer, 0).batch(3, 0, 2).input_ids
    assert torch.equal(again.batch(3, 0, 2).input_ids, first)
    assert other.batch(3, 0, 2).input_ids.shape != first.shape or not torch.equal(
        SentenceObjective(objective.model, objective.tokenizer, 1).batch(3, 0, 2).input_ids, first
    )


def test_it_learns_to_read_them(objective):
    before = sentence_perplexity(objective, scenes=10)
    optimizer = torch.optim.AdamW(objective.model.parameters(), lr=1e-2)
    for step in range(12):
        loss, _ = objective.loss(objective.batch(step, 0, 8), step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert sentence_perplexity(objective, scenes=10) < before / 3


def test_parts_from_before_there_was_a_choice_are_known_by_the_same_settings():
    assert "text" not in Pretraining().model_dump()["llm"]
    chosen = Pretraining.model_validate({"llm": {"text": "sentences"}})
    assert chosen.model_dump()["llm"]["text"] == "sentences"
