"""Every cache of transformers and every way to use one gives what no cache gives."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from astrea import AstreaError
from astrea.common.transformers_compat import CACHE, cache_of
from astrea.data.packing import Packer

QUESTIONS = ["what colour is the cat?", "why?", "how many things are to the left of the big blue ball?"]
# An untrained model would end at once, and repeat itself.
GREEDY = {"do_sample": False, "max_new_tokens": 8, "suppress_tokens": [0, 1, 2, 3], "repetition_penalty": 1.5}


def told(model, inputs: dict[str, Any], **options: Any) -> list[list[int]]:
    """What is generated, without the prompt."""
    made = model.generate(**inputs, **(GREEDY | options))
    return made[:, inputs["input_ids"].shape[1] :].tolist()


def scores(model, inputs: dict[str, Any], **options: Any) -> Tensor:
    """The scores of every generated token: (B, T, V)."""
    made = model.generate(**inputs, **(GREEDY | options), output_logits=True, return_dict_in_generate=True)
    return torch.stack(made.logits, 1)


@pytest.fixture(scope="module")
def asked(tiny_processor, pictures) -> list[dict[str, Any]]:
    """Rows of one, two and no picture, each by itself."""
    texts = [f"<bos>{'<image>' * n}<user>{q}<assistant>" for n, q in zip((1, 2, 0), QUESTIONS, strict=True)]
    shown = [pictures[:1], pictures[1:3], None]
    return [
        dict(tiny_processor(images=None if i is None else [i], text=[t])) for i, t in zip(shown, texts, strict=True)
    ]


@pytest.fixture(scope="module")
def batch(tiny_processor, pictures) -> dict[str, Any]:
    """Two rows of different length, with one and two pictures."""
    texts = [f"<bos>{'<image>' * n}<user>{q}<assistant>" for n, q in zip((1, 2), QUESTIONS[1:], strict=True)]
    return dict(tiny_processor(images=[pictures[:1], pictures[1:3]], text=texts))


# Speculative decoding


@pytest.mark.parametrize("row", [0, 1, 2])
def test_prompt_lookup_says_what_greedy_decoding_says(tiny_model, asked, row):
    (wanted,) = told(tiny_model, asked[row], max_new_tokens=20)
    assert len(set(wanted)) > 3
    for drafts, matching in ((2, 1), (5, 2), (10, 1)):
        options = {"prompt_lookup_num_tokens": drafts, "max_matching_ngram_size": matching}
        (found,) = told(tiny_model, asked[row], max_new_tokens=20, **options)
        # Older releases may say a few words more than they were to.
        assert found[:20] == wanted


@pytest.fixture(scope="module")
def other_model(tiny_model):
    """Nearly the same model: it drafts some words that the first one says, and some that it does not."""
    model = copy.deepcopy(tiny_model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.language_model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


@pytest.mark.parametrize("row", [0, 1, 2])
def test_an_assistant_model_changes_nothing(tiny_model, other_model, asked, row):
    (plain,) = told(tiny_model, asked[row])
    for assistant in (other_model, tiny_model):
        (found,) = told(tiny_model, asked[row], assistant_model=assistant)
        assert found[: len(plain)] == plain
    assert told(other_model, asked[row]) != [plain]


# Kinds of caches


@pytest.mark.parametrize("family", ["llama", "gemma3", "mistral", "gpt2"])
def test_every_kind_of_cache_gives_what_none_gives(build_around, family, pictures):
    model, processor = build_around(family)
    packer = Packer(processor.tokenizer, model.num_visual_tokens)
    inputs = packer.prompts(QUESTIONS[1:]) | {
        "features": model.encode_images(processor(images=pictures[:2])["pixel_values"])
    }
    with torch.no_grad():
        wanted = scores(model, inputs, use_cache=False)
        config = model.config.text_config
        kinds = {
            "usual": {},
            "dynamic": {CACHE: DynamicCache(config=config)},
            "static": {"cache_implementation": "static"},
            "static, handed in": {CACHE: StaticCache(config=config, max_cache_len=200)},
        }
        for kind, options in kinds.items():
            torch.testing.assert_close(scores(model, inputs, **options), wanted, atol=1e-5, rtol=1e-5, msg=kind)


def test_a_cache_without_room_is_an_error(tiny_model, asked):
    cache = StaticCache(config=tiny_model.config, max_cache_len=20)
    with pytest.raises(AstreaError, match="room for 20 tokens"):
        tiny_model(**asked[0], **{CACHE: cache})


def test_beams_give_what_they_give_without_a_cache(tiny_model, batch):
    options = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 5}
    assert told(tiny_model, batch, **options) == told(tiny_model, batch, use_cache=False, **options)


# Going on with a cache


@torch.no_grad()
def test_a_loop_by_hand_gives_what_one_pass_gives(tiny_model, batch):
    generator = torch.Generator().manual_seed(0)
    answer = torch.randint(10, 400, (2, 7), generator=generator)
    whole = torch.cat([batch["input_ids"], answer], 1)
    mask = torch.cat([batch["attention_mask"], torch.ones_like(answer)], 1)
    once = tiny_model(**batch | {"input_ids": whole, "attention_mask": mask}, use_cache=False).logits
    for static in (False, True):
        cache = StaticCache(config=tiny_model.config, max_cache_len=150) if static else DynamicCache()
        step = tiny_model(**batch, **{CACHE: cache})
        logits, start = [step.logits[:, -1:]], batch["input_ids"].shape[1]
        for end in (1, 2, 5, 7):  # some of them several at once
            upto = mask[:, : start + end]
            given = whole[:, start + logits_so_far(logits) - 1 : start + end]
            step = tiny_model(given, attention_mask=upto, **{CACHE: cache_of(step)})
            logits.append(step.logits)
        torch.testing.assert_close(torch.cat(logits, 1), once[:, start - 1 :], atol=1e-5, rtol=1e-5)


def logits_so_far(parts: list[Tensor]) -> int:
    return sum(part.shape[1] for part in parts)


@torch.no_grad()
def test_a_cache_that_was_rolled_back_has_forgotten(tiny_model, asked):
    cache = DynamicCache()
    tiny_model(**asked[1], **{CACHE: cache})
    one, two = torch.tensor([[20, 30, 40]]), torch.tensor([[50, 60]])
    wanted = tiny_model(two, **{CACHE: copy.deepcopy(cache)}).logits
    tiny_model(one, **{CACHE: cache})
    cache.crop(-3)
    torch.testing.assert_close(tiny_model(two, **{CACHE: cache}).logits, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("again", [True, False])
def test_generating_goes_on_from_a_returned_cache(tiny_model, asked, row, again):
    inputs = asked[row]
    whole = told(tiny_model, inputs)[0]
    half = GREEDY | {"max_new_tokens": 5}
    first = tiny_model.generate(**inputs, **half, return_dict_in_generate=True)
    cache = cache_of(first)
    rest = {"input_ids": first.sequences, "question_mask": inputs["question_mask"], CACHE: cache}
    if again and "pixel_values" in inputs:
        rest["pixel_values"] = inputs["pixel_values"]
    early = first.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    assert early + told(tiny_model, rest, max_new_tokens=3)[0] == whole


@pytest.mark.parametrize(("row", "more"), [(0, 0), (1, 1)])
@pytest.mark.parametrize("masked", [True, False])
def test_a_second_turn_gives_what_it_gives_without_a_cache(
    tiny_model, tiny_processor, asked, pictures, row, more, masked
):
    inputs = asked[row]
    first = tiny_model.generate(**inputs, **GREEDY, return_dict_in_generate=True)
    shown = [*pictures[:1], *pictures[1:3]][row : row * 2 + 1] + pictures[3:] * more
    later = tiny_processor(
        images=[pictures[3:]] if more else None, text=[f"{'<image>' * more}<user>is it red?<assistant>"]
    )
    second = {
        "input_ids": torch.cat([first.sequences, later["input_ids"]], 1),
        "pixel_values": tiny_processor(images=shown)["pixel_values"],
    }
    if masked:
        before = torch.zeros_like(first.sequences, dtype=torch.bool)
        second["question_mask"] = torch.cat([before, later["question_mask"]], 1)
    wanted = scores(tiny_model, second, use_cache=False)
    found = scores(tiny_model, second, **{CACHE: cache_of(first)})
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_new_picture_may_come_with_a_later_turn(tiny_model, tiny_processor, asked, pictures):
    first, cache = asked[0], DynamicCache()
    later = dict(tiny_processor(images=[pictures[3:]], text=["<image><user>is it red?<assistant>"]))
    tiny_model(**first, **{CACHE: cache})
    later["attention_mask"] = None
    found = tiny_model(**later, **{CACHE: cache})
    assert found.shares.shape[0] == 1
    cache.crop(-later["input_ids"].shape[1])
    other = tiny_model(**later | {"pixel_values": first["pixel_values"]}, **{CACHE: cache})
    assert (other.logits - found.logits).abs().max() > 1e-3


@torch.no_grad()
def test_a_cache_that_others_have_filled_is_text(tiny_model, asked):
    ids = asked[2]["input_ids"]
    wanted = tiny_model(ids, use_cache=False).logits[:, 5:]
    cache = DynamicCache()
    tiny_model.language_model(ids[:, :5], **{CACHE: cache}, use_cache=True)
    torch.testing.assert_close(tiny_model(ids[:, 5:], **{CACHE: cache}).logits, wanted, atol=1e-5, rtol=1e-5)
