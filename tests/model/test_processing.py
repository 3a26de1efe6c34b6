"""From pictures and chat text to tensors."""

from __future__ import annotations

import io
import re
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor

from astrea import AstreaError, AstreaProcessor
from astrea.data.images import to_square_array
from astrea.data.packing import Packer, Turn
from astrea.model.processing import AstreaImageProcessor
from astrea.world.language.tiny import tiny_tokenizer

QUESTION = "what color is the cup?"


def prompt(question: str = QUESTION, pictures: int = 1) -> str:
    return f"<bos>{'<image>' * pictures}<user>{question}<assistant>"


def chat(text: str, *images: object) -> list[dict]:
    """One user message."""
    content = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]


def test_one_picture_and_one_question(tiny_processor, tiny_model, pictures):
    found = tiny_processor(images=pictures[0], text=prompt())
    count = tiny_model.num_visual_tokens
    assert set(found) == {"input_ids", "attention_mask", "pixel_values", "question_mask"}
    assert found["pixel_values"].shape == (1, 3, 64, 64)
    assert found["pixel_values"].dtype == torch.float32
    assert found["question_mask"].dtype == torch.bool
    ids = found["input_ids"][0].tolist()
    assert ids[0] == tiny_processor.tokenizer.bos_token_id
    assert ids[1 : 1 + count] == [tiny_model.config.image_token_id] * count
    asked = tiny_processor.decode(found["input_ids"][0][found["question_mask"][0]])
    assert asked == f"<user> {QUESTION} <assistant>"


def test_tokens_and_question_are_those_of_packed_training(tiny_processor, tiny_model, pictures):
    found = tiny_processor(images=pictures[0], text=prompt())
    packer = Packer(tiny_processor.tokenizer, tiny_model.num_visual_tokens)
    row = packer.pack([[Turn(QUESTION, "red")]])
    length = found["input_ids"].shape[1]
    assert torch.equal(row.input_ids[:, :length], found["input_ids"])
    trained = (row.segments == 1) & (row.labels == -100)
    assert torch.equal(trained[:, :length], found["question_mask"])
    assert not trained[:, length:].any()


def test_only_the_last_turn_is_the_question(tiny_processor):
    talk = [
        {"role": "user", "content": "is it red?"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "is it big?"},
    ]
    found = tiny_processor.apply_chat_template(talk, tokenize=True, return_dict=True, add_generation_prompt=True)
    asked = tiny_processor.decode(found["input_ids"][0][found["question_mask"][0]])
    assert asked == "<user> is it big? <assistant>"


def test_without_marks_all_text_is_the_question(tiny_processor):
    found = tiny_processor(text="<bos>a red cup")
    assert tiny_processor.decode(found["input_ids"][0][found["question_mask"][0]]) == "a red cup"


def test_rows_are_padded_on_the_left(tiny_processor, pictures):
    found = tiny_processor(images=pictures[:2], text=[prompt(), prompt("is it red?")])
    gap = int((found["attention_mask"][1] == 0).sum())
    assert gap > 0
    assert not found["attention_mask"][1, :gap].any()
    assert (found["input_ids"][1, :gap] == tiny_processor.tokenizer.pad_token_id).all()
    assert not found["question_mask"][1, :gap].any()
    right = tiny_processor(images=pictures[:2], text=[prompt(), prompt("is it red?")], padding_side="right")
    assert torch.equal(right["input_ids"][1, :-gap], found["input_ids"][1, gap:])
    wide = tiny_processor(text=prompt(pictures=0), padding="max_length", max_length=30)
    assert wide["input_ids"].shape == (1, 30)
    lists = tiny_processor(text=[prompt(pictures=0), prompt("red?", 0)], padding=False, return_tensors=None)
    assert [len(row) for row in lists["input_ids"]] == [len(row) for row in lists["question_mask"]]


def test_chat_template_takes_pictures_and_paths(tiny_processor, pictures, tmp_path):
    path = tmp_path / "picture.png"
    pictures[0].save(path)
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    plain = tiny_processor(images=pictures[0], text=prompt())
    for picture in (pictures[0], str(path), path):
        found = tiny_processor.apply_chat_template(chat(QUESTION, picture), **options)
        assert all(torch.equal(found[name], plain[name]) for name in plain)
    batch = tiny_processor.apply_chat_template([chat(QUESTION, pictures[0]), chat("is it red?")], **options)
    assert batch["pixel_values"].shape[0] == 1
    assert torch.equal(batch["input_ids"][:1], plain["input_ids"])


def test_answers_are_what_follows_the_prompt(tiny_processor):
    ids = tiny_processor.tokenizer(prompt() + "red cup<eos><pad>", add_special_tokens=False).input_ids
    assert tiny_processor.post_process_image_text_to_text(torch.tensor([ids])) == ["red cup"]
    assert tiny_processor.post_process_image_text_to_text([ids[-4:]]) == ["red cup"]
    assert tiny_processor.batch_decode([ids[-4:]], skip_special_tokens=True) == ["red cup"]


def test_round_trip(tiny_processor, tmp_path, pictures):
    odd = AstreaProcessor(AstreaImageProcessor(48), tiny_tokenizer(), num_visual_tokens=5, max_length=77)
    odd.save_pretrained(tmp_path)
    for again in (AstreaProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(again) is AstreaProcessor
        assert again.to_dict() == odd.to_dict()
        assert (again.num_visual_tokens, again.max_length, again.image_processor.image_size) == (5, 77, 48)
        assert again.chat_template == odd.chat_template
        assert again.tokenizer.get_vocab() == odd.tokenizer.get_vocab()
        one, two = (p(images=pictures[1], text=prompt()) for p in (odd, again))
        assert all(torch.equal(one[name], two[name]) for name in one)
    again.save_pretrained(tmp_path / "twice")
    # In tokenizer_config.json transformers notes where a tokenizer was loaded from.
    for name in ("processor_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / name).read_bytes()
    odd.image_processor.save_pretrained(tmp_path / "eye")
    assert AutoImageProcessor.from_pretrained(tmp_path / "eye").image_size == 48


def test_every_kind_of_picture_gives_the_same_pixels(pictures, tmp_path):
    eye = AstreaImageProcessor(64)
    path = tmp_path / "picture.png"
    pictures[2].save(path)
    file = io.BytesIO()
    pictures[2].save(file, "PNG")
    array = np.asarray(pictures[2])
    wanted = to_square_array(pictures[2], 64).transpose(2, 0, 1).astype(np.float32) / 255
    for source in (pictures[2], path, str(path), file.getvalue(), array, [array], [[path]], array[None]):
        pixels = eye(source)["pixel_values"]
        assert np.array_equal(pixels[0].numpy(), wanted)
    nested = eye([[pictures[0]], [], [pictures[1], [pictures[2]]]], return_tensors="np")["pixel_values"]
    assert nested.shape == (3, 3, 64, 64)
    assert np.array_equal(nested[2], wanted)


def test_grey_and_transparent_arrays(pictures):
    eye = AstreaImageProcessor(64)
    grey = np.asarray(pictures[0].convert("L"))
    one = eye([grey, grey[..., None], np.repeat(grey[..., None], 3, 2)])["pixel_values"]
    assert torch.equal(one[0], one[1])
    assert torch.equal(one[0], one[2])
    clear = np.zeros((8, 8, 4), np.uint8)
    assert (eye(clear)["pixel_values"] == 1).all()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ([], "empty"),
        (np.zeros((5, 8, 8), np.uint8), r"\(5, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        ("https://example.org/cup.png", "URL"),
        ("no/such/file.png", "no/such/file.png"),
        ([Image.new("RGB", (4, 4)), b"no picture"], "image 2 of 2"),
        (3, "int"),
    ],
)
def test_bad_pictures(images, said):
    with pytest.raises(AstreaError, match=said):
        AstreaImageProcessor(64)(images)


@pytest.mark.parametrize(
    ("marks", "given", "said"),
    [
        ([1], 0, "the text has 1 <image> mark but 0 pictures$"),
        ([0], 1, "the text has 0 <image> marks but 1 picture$"),
        ([1, 2], 2, r"row 1 has 2 <image> marks but 1 picture left for it \(3 marks and 2 pictures in all"),
        ([1, 1], 3, "row 1 has 1 <image> mark but 2 pictures"),
        ([1, 1], [[0], []], "row 1 has 1 <image> mark but 0 pictures"),
        ([1, 1], [[0]], "2 texts but pictures for 1"),
    ],
)
def test_marks_and_pictures_must_match(tiny_processor, pictures, marks, given, said):
    images = pictures[:given] if isinstance(given, int) else [[pictures[i] for i in row] for row in given]
    with pytest.raises(AstreaError) as caught:
        tiny_processor(images=images or None, text=[prompt(pictures=m) for m in marks])
    assert re.search(said, caught.value.message)


@pytest.mark.parametrize("text", ["", "   ", "<bos><user><assistant>", "<bos><user>  <assistant>", "<bos><image>"])
def test_an_empty_question_is_an_error(tiny_processor, pictures, text):
    with pytest.raises(AstreaError, match="the question is empty"):
        tiny_processor(images=pictures[0] if "<image>" in text else None, text=text)


def test_a_long_text_is_an_error_that_says_both_lengths(tiny_processor, pictures):
    with pytest.raises(AstreaError, match=r"row 1 has 41 tokens \(1 picture of 28 each.*limit is 40"):
        tiny_processor(
            images=pictures[:2], text=[prompt("red?"), prompt("is the cup red or is it blue?")], max_length=40
        )
    with pytest.raises(AstreaError, match="1024"):
        tiny_processor(text=prompt("red " * 1100, 0))


@pytest.mark.parametrize("question", ["a" * 100_000, "is it red? " * 10_000, "是" * 100_000])
def test_a_huge_question_is_refused_at_once(tiny_processor, question):
    start = time.perf_counter()
    with pytest.raises(AstreaError, match="characters"):
        tiny_processor(text=prompt(question, 0))
    assert time.perf_counter() - start < 0.5


def test_unknown_words_warn(tiny_processor):
    with pytest.warns(UserWarning, match="row 1 is known"):
        tiny_processor(text=[prompt(pictures=0), prompt("这是什么颜色", 0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny_processor(text=prompt("zebra 颜色", 0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text": prompt(pictures=0), "text_kwargs": {"colour": 3}}, "colour"),
        ({"text": prompt(pictures=0), "max_length": 0}, "max_length=0"),
        ({"text": prompt(pictures=0), "pad_to_multiple_of": 0}, "pad_to_multiple_of=0"),
        ({"text": prompt(pictures=0), "return_tensors": "tf"}, "return_tensors='tf'"),
        ({"text": [prompt(pictures=0), "red?"], "padding": False}, "rows of different lengths"),
        ({"text": prompt(pictures=0), "videos": []}, "videos"),
        ({"text": prompt(pictures=0), "colour": 3}, "colour"),
        ({"text": prompt(pictures=0), "padding": "twice"}, "twice"),
        ({"text": 3}, "row 0 is a int"),
        ({"text": {"red?": 1}}, "row 0 is a dict"),
        ({"text": b"red?"}, "row 0 is a bytes"),
        ({"text": ["red?", None]}, "row 1 is a NoneType"),
        ({"text": []}, "empty"),
        ({}, "neither text nor images"),
    ],
)
def test_bad_options(tiny_processor, options, said):
    with pytest.raises(AstreaError, match=said):
        tiny_processor(**options)


def test_pictures_alone(tiny_processor, pictures):
    assert set(tiny_processor(images=pictures)) == {"pixel_values"}


def test_a_tokenizer_without_the_image_token(tmp_path: Path):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"<unk>": 0, "red": 1}, unk_token="<unk>"))
    with pytest.raises(AstreaError, match="<image>"):
        AstreaProcessor(AstreaImageProcessor(), PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>"))
