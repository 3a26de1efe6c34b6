"""The model around language models of many families: small, random, of the true architectures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache, pipeline

from astrea import AstreaError, AstreaForConditionalGeneration, AstreaProcessor
from astrea.common.transformers_compat import cache_of
from astrea.data.packing import Packer, Turn
from astrea.model.loading import load_model
from language_builders import FAMILIES

TURNS = [
    [Turn("is it red?", "no"), Turn("what is to the left of the dog?", "a red cat"), Turn("why?", "yes")],
    [Turn("how many umbrellas are there?", "two")],
]
CONVERSATIONS = [
    [
        {"role": "user", "content": "<image>what colour is the cat?"},
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": "<image><image>and in the picture?"},
        {"role": "assistant", "content": "the cat is red."},
    ],
    [{"role": "user", "content": "hello!"}, {"role": "assistant", "content": "good day"}],
    [{"role": "user", "content": "<image>is it a dog?"}, {"role": "assistant", "content": "yes, it is."}],
]
IMPLEMENTATIONS = [(family, "eager") for family in FAMILIES] + [
    (family, "sdpa") for family in ("llama", "qwen3", "gemma3", "gpt2", "mistral", "phi3")
]


@pytest.fixture(params=IMPLEMENTATIONS, ids="-".join)
def built(request, build_around) -> tuple[AstreaForConditionalGeneration, AstreaProcessor]:
    family, attention = request.param
    return build_around(family, f"llm.attention={attention}")


@pytest.fixture(params=FAMILIES)
def eager(request, build_around) -> tuple[AstreaForConditionalGeneration, AstreaProcessor]:
    return build_around(request.param, "llm.attention=eager")


def rows(features: dict[str, Any], index: list[int]) -> dict[str, Any]:
    return {name: found.rows(torch.tensor(index)) for name, found in features.items()}


def features_of(model, processor, pictures) -> dict[str, Any]:
    return model.encode_images(processor(images=pictures)["pixel_values"])


@torch.no_grad()
def test_packed_questions_are_answered_as_if_alone(built, pictures):
    model, processor = built
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    features = features_of(model, processor, pictures[:2])
    packed = packer.pack(TURNS)
    together = model(**packed.model_inputs(), features=features)
    assert together.logits.std() > 0.05
    for row, turns in enumerate(TURNS):
        for number, turn in enumerate(turns, 1):
            alone = packer.pack([[turn]])
            one = model(**alone.model_inputs(), features=rows(features, [row]))
            mine = packed.segments[row] == number
            told = one.logits[0, alone.segments[0] == 1]
            torch.testing.assert_close(together.logits[row, mine], told, atol=2e-4, rtol=1e-4)
            torch.testing.assert_close(together.shares[row, number - 1], one.shares[0, 0], atol=1e-5, rtol=0)
    other = model(**packed.model_inputs(), features=rows(features, [1, 0])).logits
    assert (other - together.logits).abs().max() > 1e-3


@torch.no_grad()
def test_conversations_in_one_row_do_not_see_each_other(built, pictures):
    model, processor = built
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    features = features_of(model, processor, pictures)
    segments = [packer.conversation(messages) for messages in CONVERSATIONS]
    packed = packer.pack_conversations([segments])
    together = model(**packed.model_inputs(), features=features).logits[0]
    first = 0
    for number, segment in enumerate(segments, 1):
        shown = list(range(first, first + segment.pictures))
        first += segment.pictures
        alone = packer.pack_conversations([[segment]])
        one = model(**alone.model_inputs(), features=rows(features, shown) if shown else None).logits[0]
        mine = packed.segments[0] == number
        words = mine & (packed.input_ids[0] != model.config.image_token_id)
        torch.testing.assert_close(together[words], one[words[mine]], atol=2e-4, rtol=1e-4)
    # Only the last picture changes: only the last conversation does.
    other = model(**packed.model_inputs(), features=rows(features, [0, 1, 2, 0])).logits[0]
    early = packed.segments[0] < 3
    assert torch.equal(other[early], together[early])
    assert (other[~early] - together[~early]).abs().max() > 1e-4


@torch.no_grad()
def test_what_is_asked_later_is_not_known_before(eager, pictures):
    model, processor = eager
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    features = features_of(model, processor, pictures[:3])
    talk = CONVERSATIONS[0]
    other = [*talk[:2], {"role": "user", "content": "<image><image>how many dogs?"}, talk[3]]
    # The same length up to the end, so that only the words of the later question differ.
    one, two = (packer.conversation(messages) for messages in (talk, other))
    early = one.questions.count(1)
    logits = [
        model(**packer.pack_conversations([[s]]).model_inputs(), features=features).logits[0, :early]
        for s in (one, two)
    ]
    torch.testing.assert_close(logits[0], logits[1], atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_decoding_with_a_cache_is_one_pass(built, pictures):
    model, processor = built
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    prompts = packer.prompts([TURNS[0][1].question, "why?"])
    features = features_of(model, processor, pictures[:2])
    answer = torch.tensor([packer.ids("a red cat is there")[:5], packer.ids("the cat is red.")[:5]])
    step = model(**prompts, features=features, use_cache=True)
    logits = [step.logits[:, -1]]
    mask, asked = prompts["attention_mask"], prompts["question_mask"]
    for column in answer.T[:-1]:
        mask = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], 1)
        step = model(column.unsqueeze(1), attention_mask=mask, past_key_values=cache_of(step), use_cache=True)
        logits.append(step.logits[:, -1])
    whole = {
        "input_ids": torch.cat([prompts["input_ids"], answer[:, :-1]], 1),
        "attention_mask": mask,
        "question_mask": torch.cat([asked, torch.zeros(2, 4, dtype=torch.bool)], 1),
    }
    once = model(**whole, features=features, use_cache=False).logits[:, -5:]
    torch.testing.assert_close(torch.stack(logits, 1), once, atol=3e-4, rtol=1e-4)


@torch.no_grad()
def test_generating_with_or_without_cache_alone_or_together(built, pictures):
    model, processor = built
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    questions = [TURNS[0][1].question, "why?"]
    features = features_of(model, processor, pictures[:2])
    options = {"max_new_tokens": 8, "do_sample": False}
    prompts = packer.prompts(questions)
    together = model.generate(**prompts, features=features, **options)[:, prompts["input_ids"].shape[1] :]
    slow = model.generate(**prompts, features=features, use_cache=False, **options)[:, prompts["input_ids"].shape[1] :]
    assert torch.equal(together, slow)
    assert not (together == model.config.image_token_id).any()
    for row, question in enumerate(questions):
        alone = packer.prompts([question])
        made = model.generate(**alone, features=rows(features, [row]), **options)[0, alone["input_ids"].shape[1] :]
        assert together[row, : len(made)].tolist() == made.tolist()
    beams = model.generate(**prompts, features=features, num_beams=2, **options)
    assert beams.shape[0] == 2


def test_the_loss_reaches_adapters_fusion_and_language_model(eager, pictures, monkeypatch):
    model, processor = eager
    # Untrained, trust disbelieves at random, and a mixer that hears one expert alone has nothing to mix.
    monkeypatch.setattr(model.fusion.trust, "forward", lambda matrix: torch.ones(matrix.present.shape))
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    features = features_of(model, processor, pictures[:2])
    model.zero_grad()
    loss = model(**packer.pack(TURNS).model_inputs(), features=features).loss
    loss.backward()
    assert loss.isfinite()
    for name in ("alignment.adapters.captioning.mixture.weight", "fusion.mixer.value.weight", "fusion.word_match"):
        assert model.get_parameter(name).grad.abs().sum() > 0, name
    for name, parameter in model.language_model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    model.zero_grad()


@torch.no_grad()
def test_processor_and_packer_ask_the_same(eager, pictures):
    model, processor = eager
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    questions = [TURNS[0][1].question, "why?"]
    talks = [
        [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]}]
        for picture, question in zip(pictures, questions, strict=False)
    ]
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    found = processor.apply_chat_template(talks, **options)
    wanted = packer.prompts(questions)
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name
    text = processor.apply_chat_template(talks, add_generation_prompt=True)
    again = processor(images=pictures[:2], text=text)
    assert all(torch.equal(again[name], value) for name, value in wanted.items())
    asked = processor.decode(found["input_ids"][0][found["question_mask"][0]]).strip()
    assert asked == questions[0]


@torch.no_grad()
def test_only_the_last_turn_is_the_question(eager):
    _, processor = eager
    talk = [
        {"role": "user", "content": "is it red?"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "is it a dog?"},
    ]
    found = processor.apply_chat_template(talk, tokenize=True, return_dict=True, add_generation_prompt=True)
    assert processor.decode(found["input_ids"][0][found["question_mask"][0]]).strip() == "is it a dog?"
    system = {"role": "system", "content": "Answer in one word."}
    found = processor.apply_chat_template(
        [system, talk[0]], tokenize=True, return_dict=True, add_generation_prompt=True
    )
    assert processor.decode(found["input_ids"][0][found["question_mask"][0]]).strip().endswith("is it red?")
    empty = processor.apply_chat_template([{"role": "user", "content": " "}], add_generation_prompt=True)
    with pytest.raises(AstreaError, match="the question is empty"):
        processor(text=empty)


@torch.no_grad()
def test_a_saved_model_comes_back(eager, pictures, tmp_path):
    model, processor = eager
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, its = load_model(tmp_path)
    assert its.chat_template == processor.chat_template
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id
    talk = [{"role": "user", "content": [{"type": "image", "image": pictures[0]}, {"type": "text", "text": "is it?"}]}]
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    one, two = (p.apply_chat_template(talk, **options) for p in (processor, its))
    assert all(torch.equal(one[name], two[name]) for name in one)
    torch.testing.assert_close(again(**two).logits, model(**one).logits, atol=1e-5, rtol=1e-5)
    made = model.generate(**one, max_new_tokens=6, do_sample=False)
    ask = pipeline("image-text-to-text", model=again, processor=its)
    said = ask(text=talk, return_full_text=False, generate_kwargs={"max_new_tokens": 6, "do_sample": False})
    assert said[0]["generated_text"] == its.post_process_image_text_to_text(made)[0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", ["qwen3", "gemma3", "gpt2"])
def test_half_precision_meets_full(build_around, family, dtype, pictures, tmp_path):
    model, processor = build_around(family, f"llm.dtype={dtype}")
    half = getattr(torch, dtype)
    assert {p.dtype for p in model.language_model.parameters()} == {half}
    assert {p.dtype for p in model.alignment.parameters()} == {p.dtype for p in model.fusion.parameters()}
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    features = features_of(model, processor, pictures[:2])
    out = model(**packer.pack(TURNS).model_inputs(), features=features)
    assert out.logits.dtype == half
    assert out.loss.dtype == out.shares.dtype == torch.float32
    out.loss.backward()
    assert model.get_parameter("alignment.adapters.captioning.mixture.weight").grad.isfinite().all()
    model.zero_grad()
    words = model.embed_text(*packer_text(packer))
    assert words.dtype == torch.float32
    prompts = packer.prompts(["why?"])
    made = model.generate(**prompts, features=rows(features, [0]), max_new_tokens=4, do_sample=False)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, _ = load_model(tmp_path)
    assert {p.dtype for p in again.language_model.parameters()} == {half}
    assert {p.dtype for p in again.experts.parameters()} == {torch.float32}
    same = again.generate(**prompts, features=rows(features, [0]), max_new_tokens=4, do_sample=False)
    assert torch.equal(made, same)


def packer_text(packer: Packer) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([packer.ids("a red cat")])
    return ids, torch.ones_like(ids)


@torch.no_grad()
def test_windows_count_positions_and_not_tokens(build_around, pictures):
    model, processor = build_around("mistral")
    assert model.windows == 12
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    assert model.num_visual_tokens > 2 * model.windows
    features = features_of(model, processor, pictures[:2])
    # Two layers of twelve positions see 22 back; a picture is one of them, whatever its tokens.
    change = []
    for length in (2, 9, 30):
        prompts = packer.prompts(["a" * length])
        behind = int(prompts["input_ids"].shape[1]) - 1 - int((prompts["input_ids"][0] == packer.image).nonzero()[-1])
        one, two = (model(**prompts, features=rows(features, [i])).logits[0, -1] for i in (0, 1))
        change.append((behind, float((one - two).abs().max())))
    assert [behind <= 22 for behind, _ in change] == [True, True, False]
    assert [moved > 1e-4 for _, moved in change] == [True, True, False]


@torch.no_grad()
def test_a_text_beyond_the_last_position_is_an_error(build_around):
    model, _ = build_around("gpt2")
    ids = torch.full((1, 257), 7)
    with pytest.raises(AstreaError, match="257 positions; the language model knows 256: 1 too many"):
        model(ids)
    with pytest.raises(AstreaError, match="1 too many"):
        model.text_states(ids, torch.ones_like(ids))
    assert model(ids[:, :256]).logits.shape[1] == 256


@torch.no_grad()
def test_a_cache_for_windows_is_never_made(build_around, pictures):
    model, processor = build_around("gemma3")
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    out = model(**packer.prompts(["why?"]), features=features_of(model, processor, pictures[:1]), use_cache=True)
    assert isinstance(cache_of(out), DynamicCache)
    assert not any(cache_of(out).is_sliding)


def test_soft_caps_and_sdpa_do_not_go_together(build_around):
    with pytest.raises(AstreaError, match=r"softcap|scaled_dot_product|sdpa"):
        build_around("gemma2", "llm.attention=sdpa")


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_computes_twice_and_learns_the_same(build_around, family, pictures):
    kept, processor = build_around(family)
    twice, _ = build_around(family, "llm.gradient_checkpointing=true")
    packer = Packer(processor.tokenizer, kept.num_visual_tokens)
    features = features_of(kept, processor, pictures[:2])
    inputs = packer.pack(TURNS).model_inputs()
    gradients, calls = [], []
    for model in (kept, twice):
        count = []
        names = (".layers.0.mlp", ".h.0.mlp")
        inner = next(m for n, m in model.language_model.named_modules() if n.endswith(names))
        hook = inner.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        model.train()
        model.zero_grad()
        model(**inputs, features=features, use_cache=False).loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        calls.append(len(count))
        hook.remove()
        model.zero_grad()
        model.eval()
    assert calls == [1, 2]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3)
