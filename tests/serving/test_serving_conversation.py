"""From turns of a conversation to a prompt in tokens."""

from __future__ import annotations

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.model.image_processing import AstreaImageProcessor
from astrea.serving.conversation import prompt_of
from astrea.serving.features import Picture

PICTURES = [Picture(key, torch.zeros(3, 64, 64)) for key in ("first", "second")]


def turns(marks: int, text: str = "which of them?") -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": "image"}] * marks + [{"type": "text", "text": text}]}]


def test_a_prompt_is_what_the_processor_makes_and_no_picture_is_made_anew(loaded, monkeypatch):
    processor = loaded.processor
    text = processor.apply_chat_template(turns(2), add_generation_prompt=True)
    made = processor(images=[picture.pixels for picture in PICTURES], text=[text])
    monkeypatch.setattr(AstreaImageProcessor, "__call__", lambda *_, **__: pytest.fail("pictures were made"))
    prompt = prompt_of(processor, turns(2), PICTURES, frozenset({"detection"}))
    assert torch.equal(prompt.ids, made["input_ids"][0])
    assert torch.equal(prompt.asked, made["question_mask"][0].bool())
    assert prompt.ids.dtype == torch.long
    assert int((prompt.ids == processor.image_token_id).sum()) == 2 * processor.num_visual_tokens
    assert (prompt.pictures, prompt.without) == (tuple(PICTURES), {"detection"})
    assert not (prompt_of(processor, turns(0), []).ids == processor.image_token_id).any()


@pytest.mark.parametrize(
    ("asked", "shown", "said"),
    [
        (turns(1), 2, "1 <image> mark but 2 pictures"),
        (turns(1), 0, "1 <image> mark but 0 pictures"),
        (turns(0), 1, "0 <image> marks but 1 picture"),
        (turns(1, " "), 1, "the question is empty"),
        (turns(1, "cat " * 2000), 1, "the limit is"),
    ],
)
def test_what_the_model_cannot_be_asked(loaded, asked, shown, said):
    with pytest.raises(AstreaError, match=said):
        prompt_of(loaded.processor, asked, PICTURES[:shown])
