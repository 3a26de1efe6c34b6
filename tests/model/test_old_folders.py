"""Model folders of an earlier version (``tests/fixtures/old_models``, see ``make.py`` there) load and answer the same
tokens, and so does the model that comes with the package."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from astrea.model.loading import load_model
from repository import FIXTURES

OLD = FIXTURES / "old_models"
SAID = json.loads((OLD / "answers.json").read_text())


@pytest.fixture(scope="module", params=SAID["answers"])
def old(request) -> tuple[str, Any, Any]:
    """Name, model and processor."""
    name = request.param
    return name, *load_model("shipped" if name == "shipped" else OLD / name)


def asked(processor: Any) -> list[Any]:
    prompts = []
    for index, question in enumerate(SAID["questions"]):
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        prompts.append(processor(images=[Image.open(OLD / f"picture-{index % 3}.png")], text=[text]))
    return prompts


def test_every_answer_has_the_same_tokens(old):
    name, model, processor = old
    options = {"max_new_tokens": SAID["longest"], "do_sample": False} | SAID["options"][name]
    for question, inputs, wanted in zip(SAID["questions"], asked(processor), SAID["answers"][name], strict=True):
        made = model.generate(**inputs, **options)
        assert made[0, inputs["input_ids"].shape[1] :].tolist() == wanted, question


@torch.no_grad()
def test_logits_are_the_same(old):
    name, model, processor = old
    found = model(**asked(processor)[0]).logits[:, -1]
    torch.testing.assert_close(found, load_file(OLD / "logits.safetensors")[name], atol=1e-5, rtol=1e-5)
