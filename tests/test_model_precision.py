"""The whole model in half precision, and in double: it answers, and what is compared is computed in float32."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import pipeline

from astrea import AstreaForConditionalGeneration
from astrea.exact import in_full
from astrea.loading import load_model

NOISE = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float64: 1e-5}
GREEDY = {"do_sample": False, "max_new_tokens": 4, "suppress_tokens": [0, 1, 2, 3]}


@pytest.fixture(scope="module")
def batch(tiny_processor, pictures) -> dict[str, Any]:
    """Two rows with one and two pictures."""
    texts = ["<bos><image><user>why?<assistant>", "<bos><image><image><user>is it red?<assistant>"]
    return dict(tiny_processor(images=[pictures[:1], pictures[1:3]], text=texts))


def near(found: Tensor, wanted: Tensor, noise: float) -> None:
    assert found.isfinite().all()
    assert float((found.double() - wanted.double()).abs().max()) < noise * float(wanted.abs().max())


@pytest.mark.parametrize(
    ("dtype", "way"), [(torch.bfloat16, "from_pretrained"), (torch.float16, "to"), (torch.float64, "to")], ids=str
)
def test_the_whole_model_in_another_type(tiny_model, tiny_processor, tiny_folder, batch, dtype, way, tmp_path):
    if way == "to":
        model = copy.deepcopy(tiny_model).to(dtype)
    else:
        model = AstreaForConditionalGeneration.from_pretrained(tiny_folder, dtype=dtype).eval()
    assert {p.dtype for p in model.parameters()} == {model.dtype} == {dtype}
    whole, out = tiny_model(**batch), model(**batch)
    assert out.logits.dtype == dtype
    near(out.logits.detach(), whole.logits.detach(), NOISE[dtype])
    assert out.shares.dtype == torch.promote_types(dtype, torch.float32)
    near(out.shares.detach(), whole.shares.detach(), NOISE[dtype])
    told = model.generate(**batch, **GREEDY)
    assert torch.equal(told, model.generate(**batch, **GREEDY, use_cache=False))
    near(model.embed_image(batch["pixel_values"]), tiny_model.embed_image(batch["pixel_values"]), 2 * NOISE[dtype])
    words = {"input_ids": torch.tensor([[20, 30, 40]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    near(model.embed_text(**words), tiny_model.embed_text(**words), NOISE[dtype])
    if way == "to":
        model.save_pretrained(tmp_path)
        tiny_processor.save_pretrained(tmp_path)
        again, _ = load_model(tmp_path)
        assert {p.dtype for p in again.parameters()} == {dtype}
        assert torch.equal(again(**batch).logits, out.logits)


def test_experts_in_half_see_what_they_see_with_the_same_weights_in_full(tiny_model, batch):
    half = copy.deepcopy(tiny_model).to(torch.bfloat16)
    same = copy.deepcopy(half).to(torch.float32)
    for name, found in half.see(batch["pixel_values"]).items():
        wanted = same.see(batch["pixel_values"])[name]
        assert torch.equal(found.tokens, wanted.tokens)
        assert torch.equal(found.confidence, wanted.confidence)
    one, two = (model.experts.readings(batch["pixel_values"]) for model in (half, same))
    assert [{n: r.as_dict() for n, r in row.items()} for row in one] == [
        {n: r.as_dict() for n, r in row.items()} for row in two
    ]


def test_pictures_may_come_in_half_too(tiny_folder, pictures):
    talk = [{"role": "user", "content": [{"type": "image", "image": pictures[0]}, {"type": "text", "text": "why?"}]}]
    pipe = pipeline("image-text-to-text", model=str(tiny_folder), dtype=torch.bfloat16)
    said = pipe(text=talk, return_full_text=False, generate_kwargs=dict(GREEDY))
    assert isinstance(said[0]["generated_text"], str)
    assert {p.dtype for p in pipe.model.parameters()} == {torch.bfloat16}


def test_half_precision_learns(tiny_model, batch):
    dtype = torch.bfloat16
    model = copy.deepcopy(tiny_model).to(dtype)
    labels = batch["input_ids"].masked_fill(batch["input_ids"] < 5, -100)
    wanted, found = (m(**batch, labels=labels).loss for m in (tiny_model, model))
    assert float(found) == pytest.approx(float(wanted), rel=1e-2)
    found.backward()
    for name in ("alignment.adapters.captioning.mixture.weight", "fusion.word_match", "fusion.mixer.value.weight"):
        gradient = model.get_parameter(name).grad
        assert gradient.dtype == dtype
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_whoever_asks_for_a_type_gets_it_for_the_language_model_too(tiny_model, tmp_path):
    model = copy.deepcopy(tiny_model)
    model.config.language_dtype = "float32"
    model.save_pretrained(tmp_path)
    plain = AstreaForConditionalGeneration.from_pretrained(tmp_path, dtype="bfloat16")
    assert {p.dtype for p in plain.parameters()} == {torch.bfloat16}


def test_computing_in_full_changes_no_weight():
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).to(torch.bfloat16).eval()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    wanted = copy.deepcopy(layer).float()(x)
    assert torch.equal(in_full(layer, x), wanted)
    assert {t.dtype for t in layer.state_dict().values() if t.is_floating_point()} == {torch.bfloat16}
    assert in_full(layer, x.double(), dtype=torch.float64, method="forward").dtype == torch.float64
