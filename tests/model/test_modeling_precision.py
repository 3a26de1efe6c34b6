"""The whole model in half precision, and in double: it answers, and what is compared is computed in float32."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import pipeline

from astrea import AstreaForConditionalGeneration
from astrea.common.float32 import in_full, score_best_again
from astrea.data.packing import CAPTION_PROMPT
from astrea.evaluation.generate import Predictor
from astrea.model.loading import load_model
from astrea.recipes.recipe import World
from astrea.world.dataset import features_of, scenes_of

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
    for name, found in half.encode_images(batch["pixel_values"]).items():
        wanted = same.encode_images(batch["pixel_values"])[name]
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
    for name in (
        "model.alignment.adapters.captioning.mixture.weight",
        "model.fusion.word_match",
        "model.fusion.mixer.value.weight",
    ):
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


def near_tie(dtype: torch.dtype, *, bias: bool = False) -> tuple[torch.nn.Linear, Tensor]:
    """A head and a state (1, 1, D) whose best two of 40 words are one score in half precision, the second being better;
    all products are exact."""
    head = torch.nn.Linear(4, 40, bias=bias)
    with torch.no_grad():
        head.weight.zero_()
        head.weight[5, :2] = torch.tensor([16.0, 0.0])
        head.weight[9, :2] = torch.tensor([16.0, 2.0**-9])
        if bias:
            head.bias.copy_(torch.arange(40) / 64)
    return head.to(dtype).requires_grad_(False), torch.tensor([[[1.0, 1.0, 0, 0]]], dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_near_ties_of_the_best_words_are_decided_in_float32(dtype, bias):
    head, state = near_tie(dtype, bias=bias)
    wanted = torch.nn.functional.linear(state.float(), head.weight.float(), head.bias.float() if bias else None)
    with torch.no_grad():
        rounded = head(state)
        head.register_forward_hook(score_best_again)
        found = head(state)
    if not bias:
        assert rounded[0, 0, 5] == rounded[0, 0, 9]
    assert found.dtype == torch.float32
    assert found.argmax() == wanted.argmax() == 9
    best = wanted.topk(2).indices
    assert torch.equal(found.gather(-1, best), wanted.gather(-1, best))


def test_scores_stay_as_they_are_with_gradients_in_full_and_with_quantised_weights():
    head, state = near_tie(torch.bfloat16)
    assert score_best_again(head, (state,), head(state)) is None  # a gradient is wanted
    with torch.no_grad():
        assert score_best_again(copy.deepcopy(head).float(), (state.float(),), head(state).float()) is None
        scores = head(state)
        head.weight = torch.nn.Parameter(head.weight.to(torch.int8), requires_grad=False)
        assert score_best_again(head, (state,), scores) is None
        assert score_best_again(head.to("meta"), (state,), scores) is None


def test_scores_are_full_under_autocast_and_for_many_positions(monkeypatch):
    monkeypatch.setattr("astrea.common.float32.AT_ONCE", 16 * 8 * 3)  # three positions at a time
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(8, 50, bias=False)
    head.weight.data.copy_(torch.randn(50, 8, generator=generator))
    states = torch.randn(2, 5, 8, generator=generator)
    wanted = head(states)
    head.register_forward_hook(score_best_again)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(states)
    best = wanted.topk(8, -1).indices
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.gather(-1, best), wanted.gather(-1, best), rtol=1e-5, atol=1e-5)


def test_every_head_that_a_model_is_given_decides_in_full(tiny_model, batch):
    model = copy.deepcopy(tiny_model).to(torch.bfloat16)
    with torch.no_grad():
        assert model(**batch).logits.dtype == torch.float32
        model.resize_token_embeddings(model.config.text_config.vocab_size + 3)
        assert model(**batch).logits.dtype == torch.float32
        head = torch.nn.Linear(model.config.text_config.hidden_size, 500, bias=False).to(torch.bfloat16)
        model.set_output_embeddings(head)
        model.set_output_embeddings(head)
        assert model(**batch).logits.dtype == torch.float32
    assert list(head._forward_hooks.values()) == [score_best_again]


def test_the_shipped_model_in_half_says_what_it_says_in_full():
    """For 27 of these captions, and for 20 where words are told apart by rounded scores. (Another processor adds up in
    another order.)"""
    model, processor = load_model("shipped")
    scenes = list(scenes_of("test", 30, World()))
    said = []
    for dtype in (torch.float32, torch.bfloat16):
        one = model.to(dtype)
        asked, which = [CAPTION_PROMPT] * len(scenes), torch.arange(len(scenes))
        said.append(
            Predictor(one, processor.tokenizer).answer(asked, features_of(one.experts, scenes), which, longest=56)
        )
    assert sum(whole == half for whole, half in zip(said[0].texts, said[1].texts, strict=True)) >= 23
