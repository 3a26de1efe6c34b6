"""The four compact experts: what leaves them, what they learn from, and that nothing moves them once frozen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import from_bins, in_order, left_to_right
from astrea.recipes.pretraining import ExpertPretraining
from astrea.recipes.recipe import Schedule
from astrea.world.experts.captioning import ORDINALS, STEPS, VOCABULARY, CaptioningExpert
from astrea.world.experts.classification import GROUPS, KIND_NAMES, ClassificationExpert
from astrea.world.experts.compact import COMPACT
from astrea.world.experts.detection import NAMED, DetectionExpert, boxes_from_tokens
from astrea.world.experts.pretrain import ExpertObjective
from astrea.world.experts.segmentation import AREA_BINS, AREA_MAX, PLACE_BINS, SegmentationExpert
from astrea.world.experts.truth import collate_truth, pixels_from_scenes
from astrea.world.language.pretraining import ideal_features
from astrea.world.scenes.captions import short_caption
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.vocabulary import CATEGORIES, COLOURS, CONDITIONS, KINDS
from learning import learn

LOOSE = {"detection": {"threshold": 0.02}, "segmentation": {"threshold": 0.05}}


@pytest.fixture(scope="module")
def scenes():
    return [split_scene("train", index, 0) for index in range(16)]


@pytest.fixture(scope="module")
def bank() -> ExpertBank:
    """Untrained experts whose convolutions let some of the picture through, with low thresholds."""
    torch.manual_seed(0)
    made = ExpertBank({kind: {"kind": kind, "options": LOOSE.get(kind, {})} for kind in COMPACT})
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(2.5 if parameter.ndim == 4 else 1.0)
    return made


@pytest.fixture(scope="module")
def seen(bank, scenes):
    return bank(pixels_from_scenes(scenes))


def argmax_label(expert, token: torch.Tensor, start: int, stop: int) -> str:
    return expert.labels[start + int(token[start:stop].argmax())]


def channel(expert, name: str) -> int:
    return expert.labels.index(name)


@pytest.mark.parametrize("kind", COMPACT)
def test_what_it_declares_is_what_it_gives(bank, seen, kind):
    expert, found = bank[kind], seen[kind]
    assert expert.kind == kind
    assert found.tokens.shape == (16, expert.num_tokens, expert.width)
    assert found.confidence.shape == (16, expert.num_tokens)
    assert len(expert.labels) == expert.width
    assert found.tokens.isfinite().all()
    assert found.confidence.ge(0).all()
    assert 0 < float(found.confidence.max()) <= 1
    named = [label for label in expert.labels if label]
    assert len(named) == len(set(named))
    assert set(expert.weak_conditions) < set(CONDITIONS)
    # Where a token looks, if it looks anywhere.
    assert (found.places is None) == (kind in ("captioning", "classification"))
    if found.places is not None:
        assert found.places.shape == (16, expert.num_tokens, 2)
        assert 0 <= float(found.places.min()) <= float(found.places.max()) <= 1
    # The name of the expert itself is said by every token.
    assert found.tokens[..., channel(expert, kind)].eq(1).all()


@pytest.mark.parametrize("kind", ["captioning", "segmentation", "detection"])
def test_how_sure_it_is_is_said_in_the_token_too(bank, seen, kind):
    assert torch.equal(seen[kind].tokens[..., channel(bank[kind], "sure")], seen[kind].confidence)


@pytest.mark.parametrize("kind", ["segmentation", "detection"])
def test_empty_slots_have_no_confidence(bank, scenes, seen, kind, monkeypatch):
    sure = seen[kind].confidence
    assert (sure[sure > 0] > LOOSE[kind]["threshold"]).all()
    middle = sure[sure > 0].median().item()
    monkeypatch.setattr(bank[kind], "threshold", middle)
    halved = bank[kind](pixels_from_scenes(scenes)).confidence
    assert (halved == 0).any()
    assert (halved[halved > 0] > middle).all()
    assert 0.3 < (halved > 0).sum() / (sure > 0).sum() < 0.7
    strict = ExpertBank({kind: {"kind": kind, "options": {"threshold": 1.0}}})
    strict.load_state_dict({k: v for k, v in bank.state_dict().items() if kind in k})
    assert strict(pixels_from_scenes(scenes))[kind].confidence.eq(0).all()
    assert all(not r[kind].boxes and not r[kind].labels for r in strict.readings(pixels_from_scenes(scenes)))


def test_after_its_end_a_caption_is_empty(bank, scenes):
    expert = CaptioningExpert.ideal([[], ["red", "cat"], list(VOCABULARY[1:9])])
    assert (expert.confidence > 0).sum(1).tolist() == [0, 2, 8]
    spoken = bank["captioning"](pixels_from_scenes(scenes))
    ended = spoken.tokens[..., : len(VOCABULARY)].argmax(-1).eq(0).long().cumsum(1) > 0
    assert torch.equal(spoken.confidence == 0, ended)


@pytest.mark.parametrize("kind", COMPACT)
def test_a_batch_is_its_pictures_one_by_one(bank, scenes, seen, kind):
    for row in (0, 5, 11):
        alone = bank[kind](pixels_from_scenes(scenes[row : row + 1]))
        assert torch.allclose(alone.confidence[0], seen[kind].confidence[row], atol=1e-5)
        filled = seen[kind].confidence[row] > 0
        assert torch.allclose(alone.tokens[0, filled], seen[kind].tokens[row, filled], atol=1e-4)


def test_a_bank_is_frozen_and_stays_in_evaluation_mode(bank, scenes):
    before = {name: value.clone() for name, value in bank.state_dict().items()}
    assert not any(p.requires_grad for p in bank.parameters())
    holder = torch.nn.ModuleList([bank])
    holder.train()
    assert not any(module.training for module in bank.modules())
    found = bank(pixels_from_scenes(scenes) * 0.3 + 0.5)
    assert not any(part.tokens.requires_grad for part in found.values())
    assert all(torch.equal(value, before[name]) for name, value in bank.state_dict().items())


@pytest.mark.parametrize("canvas", [48, 96])
@pytest.mark.parametrize("kind", COMPACT)
def test_other_canvases(bank, kind, canvas):
    scene = split_scene("train", 3, 0, canvas=canvas)
    found = bank[kind](pixels_from_scenes([scene, scene]))
    assert found.tokens.shape == (2, bank[kind].num_tokens, bank[kind].width)
    assert found.tokens.isfinite().all()
    truth = collate_truth([scene, scene])
    expert = bank[kind]
    loss = expert.loss(truth, [short_caption(scene)] * 2) if kind == "captioning" else expert.loss(truth)
    assert loss.isfinite()


def test_places_are_stretched_to_the_picture():
    expert = CaptioningExpert()
    assert expert.places(16, 16) is expert.place
    with torch.no_grad():
        expert.place.copy_(torch.arange(256.0).unsqueeze(1).expand(-1, expert.place.shape[1]))
    larger = expert.places(32, 32).view(32, 32, -1)[..., 0]
    # 16 cells a row: going down one old cell adds 16, going right adds 1, in steps of half a cell.
    assert torch.allclose(larger[9, 8] - larger[8, 8], torch.tensor(8.0), atol=1e-4)
    assert torch.allclose(larger[8, 9] - larger[8, 8], torch.tensor(0.5), atol=1e-4)


# What faultless experts would say


def from_left(truth, x_BN):
    """Which object each slot tells of: slots come from left to right."""
    return left_to_right(truth.valid_BN.float(), x_BN)


def test_ideal_detection_boxes_are_the_true_ones(scenes):
    truth = collate_truth(scenes)
    order = from_left(truth, (truth.box_BN4[..., 0] + truth.box_BN4[..., 2]) / 2)
    truth = replace(truth, box_BN4=in_order(truth.box_BN4, order), valid_BN=in_order(truth.valid_BN, order))
    ideal = DetectionExpert.ideal(truth)
    boxes = boxes_from_tokens(ideal.tokens)
    # In float32, far under the 1/64 of a pixel.
    assert (boxes - truth.box_BN4)[truth.valid_BN].abs().max() < 1e-4
    assert torch.equal(ideal.confidence > 0, truth.valid_BN)
    assert torch.allclose(ideal.places, (truth.box_BN4[..., :2] + truth.box_BN4[..., 2:]) / 2)


def test_ideal_detection_names_every_second_kind(scenes):
    truth = collate_truth(scenes)
    order = from_left(truth, (truth.box_BN4[..., 0] + truth.box_BN4[..., 2]) / 2)
    ideal = DetectionExpert.ideal(truth)
    truth = replace(truth, kind_BN=in_order(truth.kind_BN, order), valid_BN=in_order(truth.valid_BN, order))
    names = len(DetectionExpert.class_names)
    said = set()
    for b, n in truth.valid_BN.nonzero().tolist():
        kind = int(truth.kind_BN[b, n])
        name = argmax_label(DetectionExpert, ideal.tokens[b, n], 0, names)
        assert name == (KINDS[kind].name if kind in NAMED else "object")
        said.add(name)
    assert len(said) > 5
    assert "object" in said


def test_ideal_segmentation_says_category_colour_place_and_area(scenes):
    truth = collate_truth(scenes)
    ideal = SegmentationExpert.ideal(truth)
    order = from_left(truth, truth.centroid_BN2[..., 0])
    truth = replace(truth, centroid_BN2=in_order(truth.centroid_BN2, order), valid_BN=in_order(truth.valid_BN, order))
    c, k = len(CATEGORIES), len(COLOURS)
    x, y, area = c + k, c + k + PLACE_BINS, c + k + 2 * PLACE_BINS
    expert = SegmentationExpert
    for b, n in truth.valid_BN.nonzero().tolist():
        token, item = ideal.tokens[b, n], scenes[b].objects[int(order[b, n])]
        assert argmax_label(expert, token, channel(expert, "first"), channel(expert, "eighth") + 1) == ORDINALS[n]
        sides = token[channel(expert, "left") :].tolist()
        along = (2 * item.centroid[0] / 64 - 1, 2 * item.centroid[1] / 64 - 1)
        assert sides == pytest.approx([max(0, s * v) for v in along for s in (-1, 1)], abs=1e-4)
        # The category "thing" is said by its everyday noun.
        assert argmax_label(expert, token, 0, c) == KINDS[item.kind].category.replace("thing", "gadget")
        assert argmax_label(expert, token, c, c + k) == COLOURS[item.colour]
        for part, axis, at in ((token[x:y], "x", item.centroid[0]), (token[y:area], "y", item.centroid[1])):
            nearest = expert.labels[(x if axis == "x" else y) + int(part.argmax())]
            assert nearest[0] == axis
            assert abs(int(nearest[1:]) - at / 64 * 15) < 0.501
        told = float(from_bins(token[area : area + AREA_BINS])) ** 2 * AREA_MAX
        assert told == pytest.approx(min(item.area / 64**2, AREA_MAX), abs=1e-4)
        assert float(token[channel(expert, "hidden")]) == pytest.approx(item.occlusion, abs=1e-5)
    assert ideal.confidence[~truth.valid_BN].eq(0).all()
    assert torch.equal(ideal.places, truth.centroid_BN2)


def test_ideal_classification_names_all_kinds_in_their_groups(scenes):
    truth = collate_truth(scenes)
    ideal = ClassificationExpert.ideal(truth)
    expert = ClassificationExpert
    for b, scene in enumerate(scenes):
        present = {KINDS[item.kind].name for item in scene.objects if item.area > 0}
        said = ideal.tokens[b, :GROUPS, : len(KINDS)]
        assert {KIND_NAMES[i] for i in said.sum(0).nonzero().flatten().tolist()} == present
        assert ((said > 0).sum(0) <= 1).all()
        last = ideal.tokens[b, GROUPS]
        assert last[: len(KINDS)].eq(0).all()
        start = len(KINDS)
        assert argmax_label(expert, last, start, start + len(CONDITIONS)) == CONDITIONS[scene.condition]
        start += len(CONDITIONS)
        assert argmax_label(expert, last, start, start + 6) == str(sum(item.area > 0 for item in scene.objects))
        assert bool(last[channel(expert, "sign")]) == bool(scene.word)
    assert ideal.confidence.eq(1).all()


def test_ideal_captioning_spells_the_short_caption(scenes):
    told = [short_caption(scene) for scene in scenes]
    ideal = CaptioningExpert.ideal(told)
    for b, words in enumerate(told):
        filled = int((ideal.confidence[b] > 0).sum())
        assert filled == len(words)
        tokens = ideal.tokens[b, :filled]
        assert [VOCABULARY[int(i)] for i in tokens[:, : len(VOCABULARY)].argmax(-1)] == words
        places = tokens[:, len(VOCABULARY) : len(VOCABULARY) + STEPS].argmax(-1)
        assert [ORDINALS[int(i)] for i in places] == list(ORDINALS[:filled])


@pytest.mark.parametrize("kind", COMPACT)
def test_ideal_tokens_have_the_layout_of_real_ones(bank, seen, scenes, kind):
    ideal = ideal_features(scenes)[kind]
    assert ideal.tokens.shape == seen[kind].tokens.shape
    assert ideal.confidence.shape == seen[kind].confidence.shape
    assert ideal.tokens.dtype == seen[kind].tokens.dtype
    # Every block of channels that sums to one in a real token does so in an ideal one.
    blocks = {
        "captioning": [(0, len(VOCABULARY)), (len(VOCABULARY), len(VOCABULARY) + STEPS)],
        "classification": [],
        "segmentation": [(0, 7), (7, 15), (15, 31), (31, 47), (47, 59)],
        "detection": [(0, 17), (17, 33), (33, 49), (49, 57), (57, 65)],
    }[kind]
    for found in (ideal, seen[kind]):
        filled = found.confidence > 0
        for start, stop in blocks:
            total = found.tokens[filled][:, start:stop].sum(-1)
            assert torch.allclose(total, torch.ones_like(total), atol=1e-4)


# Readings


def test_readings_are_what_the_tokens_say(bank, scenes, seen):
    found = bank.readings(pixels_from_scenes(scenes))
    assert len(found) == 16
    for row, by_name in enumerate(found):
        assert list(by_name) == bank.names
        sure = {name: part.confidence[row] for name, part in seen.items()}
        boxes = by_name["detection"].boxes
        assert len(boxes) == len(by_name["detection"].labels) == int((sure["detection"] > 0).sum())
        wanted = boxes_from_tokens(seen["detection"].tokens)[row, sure["detection"] > 0]
        assert torch.allclose(torch.tensor(boxes).reshape(-1, 4), wanted, atol=1e-4)
        words = by_name["captioning"].labels
        assert by_name["captioning"].caption == " ".join(words)
        assert len(words) == int((sure["captioning"] > 0).sum())
        tags = by_name["classification"]
        assert tags.labels[-1] in CONDITIONS
        assert all(score > 0.5 for score in tags.scores[:-1])
        regions = by_name["segmentation"]
        assert regions.mask.shape == (32, 32)
        assert int(regions.mask.max()) == len(regions.boxes) == len(regions.labels) == len(regions.scores)
        for i, (x0, y0, x1, y1) in enumerate(regions.boxes, 1):
            y, x = (regions.mask == i).nonzero(as_tuple=True)
            assert (x.min() / 32, y.min() / 32, (x.max() + 1) / 32, (y.max() + 1) / 32) == (x0, y0, x1, y1)
    assert any(by_name["segmentation"].boxes for by_name in found)
    assert any(by_name["detection"].boxes for by_name in found)


# Learning


@pytest.mark.parametrize("kind", COMPACT)
def test_its_loss_falls_and_every_weight_learns(kind):
    torch.manual_seed(0)
    objective = ExpertObjective(COMPACT[kind](), seed=0)
    fixed = objective.batch(0, 0, 16)
    objective.batch = lambda step, micro, size: fixed
    schedule = Schedule(steps=15, batch=16, lr=3e-3, warmup=3)
    losses, reached = learn(objective, schedule)
    assert losses[-1] < 0.85 * losses[0]
    assert reached == {name for name, _, _ in objective.trainable()}


@pytest.mark.parametrize("kind", COMPACT)
def test_its_diet_is_a_function_of_seed_and_step_and_spares_its_weak_conditions(kind):
    objective = ExpertObjective(COMPACT[kind](), seed=1)
    (first, truth), (again, same) = objective.batch(3, 0, 64), objective.batch(3, 0, 64)
    assert [s.spec for s in first] == [s.spec for s in again]
    assert torch.equal(truth.pixels_B3HW, same.pixels_B3HW)
    other, _ = objective.batch(3, 1, 64)
    assert [s.spec for s in other] != [s.spec for s in first]
    weak = sum(CONDITIONS[s.condition] in objective.expert.weak_conditions for s in first + other)
    fair = sum(CONDITIONS[split_scene("train", i, 0).condition] in objective.expert.weak_conditions for i in range(128))
    assert weak < 0.5 * fair
    assert str(first[0].spec.seed) in objective.describe((first, truth))
    # Light is jittered: the pictures are not just the drawn pixels.
    assert not torch.equal(truth.pixels_B3HW, pixels_from_scenes(first))
    assert float(truth.pixels_B3HW.min()) >= 0
    assert float(truth.pixels_B3HW.max()) <= 1


def conditions_seen(expert, **changes):
    part = ExpertPretraining(**changes)
    batches = [ExpertObjective(expert, seed=1, part=part).batch(step, 0, 64)[0] for step in range(2)]
    return [CONDITIONS[scene.spec.condition] in expert.weak_conditions for batch in batches for scene in batch]


@pytest.mark.parametrize("kind", COMPACT)
def test_its_weak_conditions_are_left_out_or_as_frequent_as_others(kind):
    expert = COMPACT[kind]()
    never, rarely, fairly = (conditions_seen(expert, weak_share=share) for share in (0, 0.15, 1))
    assert sum(never) == 0
    assert 0 < sum(rarely) < sum(fairly)


def test_few_scenes_come_again_each_in_its_one_condition():
    objective = ExpertObjective(COMPACT["detection"](), seed=1, part=ExpertPretraining(scenes=5))
    scenes = [scene for step in range(2) for scene in objective.batch(step, 0, 32)[0]]
    assert len({scene.spec for scene in scenes}) == len({scene.spec.seed for scene in scenes}) == 5
    fresh = ExpertObjective(COMPACT["detection"](), seed=1).batch(0, 0, 32)[0]
    assert len({scene.spec.seed for scene in fresh}) == 32


@torch.inference_mode()
def test_a_caption_said_word_by_word_is_the_one_that_reading_it_as_a_whole_gives(bank, scenes):
    expert = bank["captioning"]
    memory, _ = expert.encode_pixels(pixels_from_scenes(scenes[:4]))
    logits, states = expert.say(memory)
    read = expert.decode(logits.argmax(-1), memory)
    assert states.shape == (4, STEPS, states.shape[-1])
    torch.testing.assert_close(states, read, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits, expert.head(read), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "slot", "names"),
    [
        ("detection", "thing", DetectionExpert.class_names),
        ("detection", "horizontal", ("left", "right")),
        ("detection", "vertical", ("above", "below")),
        ("segmentation", "colour", COLOURS),
        ("segmentation", "horizontal", ("left", "right")),
        ("segmentation", "vertical", ("above", "below")),
        ("classification", "tag", ClassificationExpert.labels[:-1]),
        ("captioning", "word", VOCABULARY),
    ],
)
def test_slots_of_phrases_hold_the_words_that_they_are_called_by(kind, slot, names):
    expert = COMPACT[kind]
    assert expert.labels[slice(*expert.slots[slot])] == tuple(names)
    assert f"{{{slot}}}" in expert.phrases[0]
