"""Without a mask the model finds the question where the processor has it, in every family of chat templates."""

from __future__ import annotations

import pytest
import torch

from astrea import AstreaConfig, AstreaError, AstreaProcessor
from astrea.language.chat import assistant, user
from astrea.language.checkpoint import prepare_tokenizer
from astrea.language.question_span import check_span, find_questions
from astrea.model.image_processing import AstreaImageProcessor
from astrea.world.language.tiny import tiny_tokenizer
from language_builders import FAMILIES, small_tokenizer

TALKS = (
    [user("is the cat red?", 0)],
    [user("what colour is the dog?"), assistant("it is blue")],
    [user("how many cats?"), assistant("two"), user("and dogs in the picture?", 0)],
    [user("how many cats?", 2), assistant("two"), user("is it so?", 0), assistant("yes, it is")],
)


def processor_of(family: str) -> AstreaProcessor:
    if family == "tiny":
        return AstreaProcessor(AstreaImageProcessor(16), tiny_tokenizer(), num_visual_tokens=2)
    tokenizer = small_tokenizer(family)
    prepare_tokenizer(tokenizer)
    return AstreaProcessor(AstreaImageProcessor(16), tokenizer, num_visual_tokens=2)


@pytest.mark.parametrize("family", ["tiny", *FAMILIES])
def test_found_where_the_processor_has_it(family, pictures):
    processor = processor_of(family)
    span = check_span(processor.chat.question_span)
    assert span is not None
    shown = [[pictures[0]] * sum(str(m["content"]).count("'image'") for m in talk) for talk in TALKS]
    for prompt in (True, False):
        texts = [processor.apply_chat_template(talk, add_generation_prompt=prompt) for talk in TALKS]
        found = processor(images=shown, text=texts, add_special_tokens=False)
        asked = find_questions(found["input_ids"], span)
        asked &= (found["input_ids"] != processor.image_token_id) & found["attention_mask"].bool()
        # An answered conversation of these few has no generation prompt behind an open question.
        rows = [row for row, talk in enumerate(TALKS) if prompt or talk[-1]["role"] == "assistant"]
        for row in rows:
            wanted = found["question_mask"][row]
            words = [i for i in found["input_ids"][row][asked[row]].tolist() if processor.decode([i]).strip()]
            assert words == [i for i in found["input_ids"][row][wanted].tolist() if processor.decode([i]).strip()]


def test_rows_by_hand():
    span = {"start": [7, 8], "stop": [9], "included": False}
    ids = torch.tensor([[1, 7, 8, 3, 4, 9, 5], [7, 8, 2, 9, 7, 8, 6], [1, 2, 3, 4, 5, 6, 0], [7, 8, 9, 2, 2, 2, 7]])
    found = [row.nonzero().flatten().tolist() for row in find_questions(ids, span)]
    assert found == [[3, 4], [6], [0, 1, 2, 3, 4, 5, 6], []]
    span["included"] = True
    found = [row.nonzero().flatten().tolist() for row in find_questions(ids[:2], span)]
    assert found == [[1, 2, 3, 4, 5], [4, 5, 6]]


def test_the_model_reads_prompts_moved_and_answered_by_a_collator(tiny_model, tiny_processor, pictures):
    """What a collator does that pads prompts on the left, appends the answers and moves rows to the left."""
    texts = [f"<bos><image><user>{words}<assistant>" for words in ("what color is the cup?", "is it red?")]
    prompts = tiny_processor(images=pictures[:2], text=texts)
    answers = tiny_processor.tokenizer(["red cup<eos>", "no it is<eos>"], add_special_tokens=False).input_ids
    rows = [
        torch.tensor(ids[mask.bool()].tolist() + answer)
        for ids, mask, answer in zip(prompts["input_ids"], prompts["attention_mask"], answers, strict=True)
    ]
    moved = {
        "input_ids": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        "attention_mask": torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        "pixel_values": prompts["pixel_values"],
    }
    tiny_model.config.question_span = tiny_processor.chat.question_span
    try:
        short = tiny_model(**moved, question_mask=prompts["question_mask"], use_cache=False).logits
        without = tiny_model(**moved, use_cache=False).logits
    finally:
        tiny_model.config.question_span = None
    for row, text in enumerate(texts):
        alone = tiny_processor(images=pictures[row], text=text)
        mask = torch.zeros_like(rows[row], dtype=torch.bool)
        mask[: alone["question_mask"].shape[1]] = alone["question_mask"][0]
        wanted = tiny_model(
            input_ids=rows[row][None],
            pixel_values=alone["pixel_values"],
            question_mask=mask[None],
            use_cache=False,
        ).logits
        for found in (short, without):
            torch.testing.assert_close(found[row : row + 1, : len(rows[row])], wanted, rtol=1e-4, atol=1e-4)


def test_answers_are_the_same_with_and_without_a_mask(tiny_model, tiny_processor, pictures):
    inputs = tiny_processor(images=pictures[0], text="<bos><image><user>what color is the cup?<assistant>")
    with_mask = tiny_model.generate(**inputs, max_new_tokens=5)
    del inputs["question_mask"]
    tiny_model.config.question_span = tiny_processor.chat.question_span
    try:
        assert torch.equal(tiny_model.generate(**inputs, max_new_tokens=5), with_mask)
    finally:
        tiny_model.config.question_span = None


@pytest.mark.parametrize(
    "span",
    [
        3,
        {},
        {"start": [1], "stop": []},
        {"start": [1], "stop": [2], "included": 1},
        {"start": [-1], "stop": [2], "included": True},
        {"start": [True], "stop": [2], "included": True},
        {"start": ["<user>"], "stop": [2], "included": True},
        {"start": [1] * 65, "stop": [2], "included": True},
    ],
)
def test_a_span_that_is_none_is_refused(span):
    with pytest.raises(AstreaError, match="question_span"):
        AstreaConfig(question_span=span)


def test_an_astrea_model_is_no_language_model():
    with pytest.raises(AstreaError, match="itself an Astrea model"):
        AstreaConfig(text_config={"model_type": "astrea"})
