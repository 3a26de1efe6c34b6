"""Rows that join and leave a cache go on as if they were alone, and experts run once per picture."""

from __future__ import annotations

import pytest
import torch

from astrea.common.transformers_compat import CACHE
from astrea.model.cache import AstreaCache
from astrea.serving.features import FeatureCache, Picture
from astrea.serving.growing import growing_cache
from astrea.serving.job import Prompt
from astrea.serving.prefill import padded
from astrea.serving.slots import merged, select_rows


@pytest.fixture(scope="module")
def rows(loaded, pictures):
    """Prompts with no, one and two pictures."""
    _, processor = loaded
    found = []
    for count, question in ((0, "what is this?"), (1, "where is the red cow, left or right?"), (2, "which?")):
        content = [*({"type": "image"} for _ in range(count)), {"type": "text", "text": question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        found.append(processor(images=pictures[:count] or None, text=[text]))
    return found


def read(model, inputs):
    with torch.inference_mode():
        out = model(**inputs, use_cache=True, **{CACHE: growing_cache()}, logits_to_keep=1)
    return out[CACHE], out.logits[:, -1]


def step(model, cache, tokens):
    ids = torch.tensor(tokens).unsqueeze(1)
    with torch.inference_mode():
        out = model(input_ids=ids, question_mask=torch.zeros_like(ids, dtype=torch.bool), **{CACHE: cache})
    return out.logits[:, -1]


@torch.inference_mode()
def test_rows_that_join_and_leave_score_as_they_do_alone(loaded, rows):
    model, _ = loaded
    alone = []
    for number, inputs in enumerate(rows):
        cache, _ = read(model, inputs)
        alone.append([step(model, cache, [9 + number + late])[0] for late in range(4)])
    caches = [read(model, inputs)[0] for inputs in rows]
    together = merged(caches[:2])  # the third comes a step later
    found = step(model, together, [9, 10])
    assert torch.allclose(found, torch.stack([alone[0][0], alone[1][0]]), atol=1e-4)
    step(model, caches[2], [11])
    together = merged([together, caches[2]])
    found = step(model, together, [10, 11, 12])
    assert torch.allclose(found, torch.stack([row[1] for row in alone]), atol=1e-4)
    together = select_rows(together, [2, 0])  # the second leaves, the others change places
    found = step(model, together, [13, 11])
    assert torch.allclose(found, torch.stack([alone[2][2], alone[0][2]]), atol=1e-4)
    length = AstreaCache(together).length
    together = select_rows(together, [1])
    assert AstreaCache(together).length < length  # no padding is carried on
    assert torch.allclose(step(model, together, [12])[0], alone[0][3], atol=1e-4)


def test_prompts_are_padded_in_front():
    long = Prompt(torch.tensor([5, 6]), torch.tensor([False, True]), ())
    short = Prompt(torch.tensor([7]), torch.tensor([True]), ())
    found = padded([long, short], 0, torch.device("cpu"))
    assert found["input_ids"].tolist() == [[5, 6], [0, 7]]
    assert found["attention_mask"].tolist() == [[1, 1], [0, 1]]
    assert found["question_mask"].tolist() == [[False, True], [False, True]]


@torch.inference_mode()
def test_an_expert_runs_once_for_each_picture_that_needs_it(loaded, pictures, monkeypatch):
    model, processor = loaded
    pixels = processor(images=pictures)["pixel_values"]
    seen = [Picture(str(number), pixels[number]) for number in range(4)]
    cache = FeatureCache(model.experts, 64, model.device, 1 << 20)
    ran: list[tuple[str, int]] = []
    calls: list[list[str]] = []
    real = type(model.experts).forward

    def watched(self, pixels_B3HW, names=None, **originals):
        ran.extend((name, len(pixels_B3HW)) for name in names or ())
        calls.append(list(names or ()))
        return real(self, pixels_B3HW, names, **originals)

    monkeypatch.setattr(type(model.experts), "forward", watched)
    skipped = [{"captioning"}, set(), {"captioning", "detection"}, set()]
    found = cache.of([seen[0], seen[1], seen[2], seen[1]], skipped)
    assert ran == [("captioning", 1), ("classification", 3), ("segmentation", 3), ("detection", 2)]
    # Those that look at the same pictures are called once, with all of them.
    assert calls == [["captioning"], ["classification", "segmentation"], ["detection"]]
    assert [cache.lacks(name, seen) for name in ("captioning", "detection")] == [{"0", "2", "3"}, {"2", "3"}]
    whole = model.encode_images(pixels)
    for name in model.experts.names:
        for row, (picture, left_out) in enumerate(zip((0, 1, 2, 1), skipped, strict=True)):
            wanted = torch.zeros_like(whole[name].tokens[0]) if name in left_out else whole[name].tokens[picture]
            assert torch.allclose(found[name].tokens[row], wanted, atol=1e-5)
    ran.clear()
    cache.of(seen[:2], [(), ()])
    assert ran == [("captioning", 1)]
    counts = cache.counts["captioning"]
    assert (counts.run, counts.skipped, counts.cached) == (2, 2, 1)


@torch.inference_mode()
def test_features_that_take_too_much_room_are_dropped_the_oldest_first(loaded, pictures):
    model, processor = loaded
    pixels = processor(images=pictures)["pixel_values"]
    seen = [Picture(str(number), pixels[number]) for number in range(4)]
    one = FeatureCache(model.experts, 64, model.device, 1 << 30)
    one.of(seen[:1], [()])
    small = FeatureCache(model.experts, 64, model.device, int(one.kept.currsize * 2.5))
    for picture in seen:
        small.of([picture], [()])
    assert small.kept.currsize <= small.kept.maxsize
    assert ("3", "detection") in small.kept
    assert ("0", "detection") not in small.kept
    # What is known when a batch begins is not run again, although what is new drops it meanwhile.
    tight = FeatureCache(model.experts, 64, model.device, one.kept.currsize)
    tight.of([seen[3]], [()])
    found = tight.each([seen[0], seen[3]], [(), ()])[1]["detection"]
    assert {name: count.run for name, count in tight.counts.items()} == dict.fromkeys(model.experts.names, 2)
    assert torch.allclose(found.tokens, model.encode_images(pixels[3:4])["detection"].tokens, atol=1e-5)
    nothing = FeatureCache(model.experts, 64, model.device, 0)
    found, wanted = nothing.of(seen[:1], [()])["detection"], model.encode_images(pixels[:1])["detection"]
    assert torch.allclose(found.tokens, wanted.tokens, atol=1e-5)
