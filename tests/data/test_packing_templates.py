"""Packed rows under the chat templates and tokenizers of many families: what the template writes, token for token."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from astrea.common.errors import AstreaError
from astrea.data.packing import Packer, Turn
from astrea.language import template
from astrea.language.chat_format import ChatFormat
from astrea.language.checkpoint import prepare_tokenizer
from astrea.world.language.tiny import tiny_tokenizer
from language_builders import FAMILIES, HEADERS, INSTRUCTIONS, small_tokenizer

PICTURE = 3
TURNS = [
    Turn("what colour is the cat?", "red"),
    Turn("Is it 12:30?\nAnswer in one word.", "no, it is not", 0.5),
    Turn("describe the picture.", "a red sun.", 0.3),
]


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


@pytest.fixture
def raw(family) -> Any:
    """The tokenizer as it comes, but for the image token and padding."""
    tokenizer = small_tokenizer(family)
    template = tokenizer.chat_template
    prepare_tokenizer(tokenizer)
    tokenizer.chat_template = template
    return tokenizer


def by_template(tokenizer: Any, messages: list[dict[str, Any]], prompt: bool = False) -> list[int]:
    """What transformers itself gives, for a text-only template: pictures are marks in the text."""
    return tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, add_generation_prompt=prompt, enable_thinking=False
    )["input_ids"]


def grown(ids: list[int], image: int) -> list[int]:
    return [i for one in ids for i in [one] * (PICTURE if one == image else 1)]


def talk(turn: Turn, mark: str = "<image>") -> list[dict[str, Any]]:
    return [{"role": "user", "content": mark + turn.question}, {"role": "assistant", "content": turn.answer}]


@pytest.mark.parametrize("pictures", [True, False])
def test_packed_rows_are_the_chat_template_token_for_token(raw, family, pictures):
    packer = Packer(raw, PICTURE)
    if raw.chat_template is None:
        raw.chat_template = packer.format.template
    batch = packer.pack([TURNS, TURNS[:1]], pictures=pictures)
    mark = "<image>" if pictures else ""
    for row, turns in enumerate([TURNS, TURNS[:1]]):
        segments = batch.segments[row]
        assert segments.max() == len(turns)
        for number, turn in enumerate(turns, 1):
            alone = batch.input_ids[row][(segments == 0) | (segments == number)].tolist()
            whole = grown(by_template(raw, talk(turn, mark)), packer.image)
            prompt = grown(by_template(raw, talk(turn, mark)[:1], prompt=True), packer.image)
            # A new line or a second end token behind the answer's end is left out.
            assert alone == whole[: len(alone)]
            assert alone[: len(prompt)] == prompt
            assert alone[-1] == packer.format.stop_id
            assert packer.format.stop_id not in whole[len(alone) :]
            mine = (segments == number) & (batch.labels[row] != -100)
            assert batch.labels[row][mine].tolist() == alone[len(prompt) :]
            assert batch.input_ids[row][mine].tolist() == alone[len(prompt) :]
            assert raw.decode(alone[len(prompt) : -1]).strip() == turn.answer
            assert batch.label_weights[row][mine].tolist() == pytest.approx([turn.weight] * int(mine.sum()))
            asked = (segments == number) & batch.question_mask[row]
            assert raw.decode(batch.input_ids[row][asked]).strip() == turn.question
        assert (batch.input_ids[row] == packer.image).sum() == PICTURE * pictures
        assert (batch.segments[row][batch.input_ids[row] == packer.image] == 0).all()


def test_prompts_are_the_beginning_of_packed_rows(raw):
    packer = Packer(raw, PICTURE)
    found = packer.prompts([turn.question for turn in TURNS])
    for row, turn in enumerate(TURNS):
        alone = packer.pack([[turn]])
        real = found["attention_mask"][row].bool()
        ids = found["input_ids"][row][real].tolist()
        told = int((alone.labels != -100).sum())
        assert ids == alone.input_ids[0, :-told].tolist()
        assert found["question_mask"][row][real].tolist() == alone.question_mask[0, :-told].tolist()
        assert real.long().diff().ge(0).all()


CONVERSATION = [
    {"role": "user", "content": "<image>what colour is the cat?"},
    {"role": "assistant", "content": "red"},
    {"role": "user", "content": "<image><image> and in the picture?"},
    {"role": "assistant", "content": "the cat is red."},
    {"role": "user", "content": "how many umbrellas?"},
    {"role": "assistant", "content": "two"},
]


def test_a_conversation_learns_every_answer_and_keeps_its_pictures(raw, family):
    packer = Packer(raw, PICTURE)
    if raw.chat_template is None:
        raw.chat_template = packer.format.template
    found = packer.conversation(CONVERSATION, weight=0.5)
    whole = grown(by_template(raw, CONVERSATION), packer.image)
    assert found.ids == whole[: len(found.ids)]
    assert found.pictures == 3
    assert found.ids.count(packer.image) == 3 * PICTURE
    assert found.ids[-1] == packer.format.stop_id
    for number, answer in enumerate(("red", "the cat is red.", "two"), 1):
        learned = [i for i, q in zip(found.labels, found.questions, strict=True) if q == number and i != -100]
        assert learned[-1] == packer.format.stop_id
        assert raw.decode(learned[:-1]).strip() == answer
        asked = [i for i, q, a in zip(found.ids, found.questions, found.asked, strict=True) if q == number and a]
        assert raw.decode(asked).strip() == CONVERSATION[2 * number - 2]["content"].replace("<image>", "").strip()
    assert {w for w, label in zip(found.weights, found.labels, strict=True) if label != -100} == {0.5}
    assert {w for w, label in zip(found.weights, found.labels, strict=True) if label == -100} == {0.0}
    assert all(i == label for i, label in zip(found.ids, found.labels, strict=True) if label != -100)


def test_a_conversation_of_one_turn_is_the_packed_question(raw):
    packer = Packer(raw, PICTURE)
    for turn in TURNS:
        one, row = packer.conversation(talk(turn)), packer.pack([[turn]])
        assert one.ids == row.input_ids[0].tolist()
        assert one.labels == row.labels[0].tolist()
        assert one.asked == row.question_mask[0].tolist()


def test_a_system_turn_is_said_before_the_question(raw):
    packer = Packer(raw, PICTURE)
    system = {"role": "system", "content": "Answer in one word."}
    found = packer.conversation([system, *CONVERSATION[:2]])
    text = raw.decode(found.ids)
    assert 0 <= text.find("Answer in one word.") < text.find("what colour")
    assert packer.conversation([system, {"role": "user", "content": "is it?"}, CONVERSATION[1]]).pictures == 0


def test_parts_and_marks_are_the_same(raw):
    packer = Packer(raw, PICTURE)
    parts = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what colour is the cat?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
    ]
    assert packer.conversation(parts) == packer.conversation(CONVERSATION[:2])


def test_conversations_share_a_row(raw):
    packer = Packer(raw, PICTURE)
    one, two = packer.conversation(CONVERSATION[:4]), packer.conversation(CONVERSATION[4:])
    batch = packer.pack_conversations([[one, two], [two]])
    assert batch.input_ids[0].tolist() == one.ids + two.ids
    assert batch.segments[0].tolist() == [1] * len(one.ids) + [2] * len(two.ids)
    assert batch.questions[0].tolist() == one.questions + [3] * len(two.ids)
    assert batch.attention_mask[1].sum() == len(two.ids)
    assert batch.labels[1][len(two.ids) :].eq(-100).all()
    assert set(batch.model_inputs()) >= {"segments", "questions", "question_mask"}


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "no messages"),
        (CONVERSATION[:1], "does not end with an answer"),
        ([CONVERSATION[0], {"role": "assistant", "content": "  "}], "turn 2, an answer, is empty"),
        ([CONVERSATION[0], {"role": "assistant", "content": "<image>"}], "turn 2, an answer, shows a picture"),
        ([{"role": "bird", "content": "a"}, CONVERSATION[1]], "turn 1 has no role"),
        ([{"role": "user", "content": 7}, CONVERSATION[1]], "turn 1 has content"),
        ([{"role": "user", "content": [{"type": "video"}]}, CONVERSATION[1]], "turn 1 has content"),
    ],
)
def test_a_bad_conversation_is_named(messages, said):
    tokenizer = small_tokenizer("llama")
    prepare_tokenizer(tokenizer)
    with pytest.raises(AstreaError, match=f"talks.json:7.*{said}"):
        Packer(tokenizer, PICTURE).conversation(messages, name="talks.json:7")


def test_what_a_template_refuses_is_named():
    tokenizer = small_tokenizer("gemma2")
    prepare_tokenizer(tokenizer)
    with pytest.raises(AstreaError, match=r"talks\.json:7.*Roles must alternate"):
        Packer(tokenizer, PICTURE).conversation([*CONVERSATION[:1] * 2, CONVERSATION[1]], name="talks.json:7")


def test_too_long_says_by_how_much_and_cuts_nothing():
    tokenizer = small_tokenizer("qwen3")
    prepare_tokenizer(tokenizer)
    free = Packer(tokenizer, PICTURE)
    length = len(free.conversation(CONVERSATION).ids)
    row = free.pack([TURNS[:1]]).input_ids.shape[1]
    assert len(Packer(tokenizer, PICTURE, max_length=length).conversation(CONVERSATION).ids) == length
    with pytest.raises(AstreaError, match=f"{length} tokens .3 pictures of 3 each.* 4 more than the limit"):
        Packer(tokenizer, PICTURE, max_length=length - 4).conversation(CONVERSATION)
    assert Packer(tokenizer, PICTURE, max_length=row).pack([TURNS[:1]]).input_ids.shape[1] == row
    with pytest.raises(AstreaError, match=f"{row} tokens.* 1 more"):
        Packer(tokenizer, PICTURE, max_length=row - 1).pack([TURNS[:1]])


def test_a_mark_in_a_question_is_an_error():
    tokenizer = small_tokenizer("llama")
    prepare_tokenizer(tokenizer)
    with pytest.raises(AstreaError, match="holds the mark <image>"):
        Packer(tokenizer, PICTURE).pack([[Turn("what <image> is it?", "red")]])


def test_an_answer_that_grows_together_with_the_prompt_is_an_error():
    tokenizer = small_tokenizer("mistral")
    tokenizer.chat_template = INSTRUCTIONS.replace("' [/INST]'", "' [/INST] '").replace("{{ ' ' + ", "{{ ")
    prepare_tokenizer(tokenizer)
    with pytest.raises(AstreaError, match=r"chat template of .* is not how the conversation"):
        ChatFormat(tokenizer)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (HEADERS.replace("assistant<|end_header_id|>", "model<|end_header_id|>"), "is not how the conversation"),
        (HEADERS.replace("'<|eot_id|>'", "'\n'"), "no special token"),
        ("{{ 'hello' }}", "does not write out"),
        ("{{ raise_exception('never') }}", "refuses a conversation: never"),
    ],
)
def test_templates_that_cannot_be_used_are_named(template, said):
    tokenizer = small_tokenizer("llama")
    tokenizer.name_or_path = "some/model"
    tokenizer.chat_template = template

    def use() -> None:
        prepare_tokenizer(tokenizer)
        Packer(tokenizer, PICTURE)

    with pytest.raises(AstreaError, match=f"chat template of some/model.*{said}"):
        use()


def test_a_date_in_the_template_may_change_between_two_rows(monkeypatch):
    tokenizer = small_tokenizer("llama")
    tokenizer.chat_template = "{{ strftime_now('%A') }}" + HEADERS
    today = SimpleNamespace(strftime=lambda how: day[0])
    monkeypatch.setattr(template, "datetime", SimpleNamespace(now=lambda: today))
    day = ["one"]
    prepare_tokenizer(tokenizer)
    packer = Packer(tokenizer, PICTURE)
    packer.pack([TURNS[:1]])
    day[0] = "two"
    batch = packer.pack([TURNS])
    assert tokenizer.decode(batch.input_ids[0][:3]).startswith("two")
    assert (batch.segments[0] == 3).any()


def test_texts_are_tokenised_one_by_one_only_between_special_tokens():
    assert Packer(tiny_tokenizer(), PICTURE).frame is not None
    for family in FAMILIES:
        tokenizer = small_tokenizer(family)
        prepare_tokenizer(tokenizer)
        assert Packer(tokenizer, PICTURE).frame is None
