"""More slots than eight, and canvases larger than those of training: the weights in the package on crowded pictures.

Letters: B batch, T slots.
"""

from __future__ import annotations

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.experts.bank import ExpertBank, expert_specs
from astrea.experts.protocol import ORDINALS, ranks
from astrea.model.components import BUNDLED, load_component
from astrea.world.evaluation.experts import expert_scores
from astrea.world.experts import segmentation
from astrea.world.experts.detection import DetectionExpert, boxes_from_tokens
from astrea.world.experts.segmentation import SegmentationExpert
from astrea.world.experts.slots import named_ranks
from astrea.world.experts.truth import pixels_from_scenes
from astrea.world.scenes.draw import make_scene, split_scene
from astrea.world.scenes.vocabulary import CATEGORIES, COLOURS

KINDS_OF_SLOTS = ("segmentation", "detection")
MANY = {"slots": 64, "trained_at": 64}


def bank(**options) -> ExpertBank:
    """Both, with the weights that are in the package."""
    made = ExpertBank({kind: {"kind": kind, "options": options} for kind in KINDS_OF_SLOTS})
    for kind in KINDS_OF_SLOTS:
        load_component(made[kind], BUNDLED, kind)
    return made


@pytest.fixture(scope="module")
def crowded():
    return [make_scene(seed, canvas=256, object_canvas=64, min_objects=20, max_objects=40) for seed in range(6)]


@pytest.fixture(scope="module")
def seen(crowded):
    return bank(**MANY)(pixels_from_scenes(crowded))


def nearest(places_T2, sure_T, point, canvas=256):
    """The filled slot nearest to a place in pixels, and how far it is."""
    far_T = ((places_T2 * canvas) - torch.tensor(point)).norm(dim=1).masked_fill(sure_T <= 0, torch.inf)
    return int(far_T.argmin()), float(far_T.min())


@pytest.mark.parametrize("kind", KINDS_OF_SLOTS)
def test_nearly_all_things_of_a_crowded_picture_have_a_slot(kind, crowded, seen):
    hits, things = 0, 0
    for row, scene in enumerate(crowded):
        for item in scene.objects:
            x0, y0, x1, y1 = item.box
            middle = item.centroid if kind == "segmentation" else ((x0 + x1) / 2, (y0 + y1) / 2)
            hits += nearest(seen[kind].places[row], seen[kind].confidence[row], middle)[1] < 6
            things += 1
        found = int((seen[kind].confidence[row] > 0).sum())
        assert 0.9 * len(scene.objects) <= found <= 1.2 * len(scene.objects)
    assert hits / things > 0.97


def test_eight_slots_are_too_few_there(crowded):
    found = bank(trained_at=64)(pixels_from_scenes(crowded[:2]))
    assert all((part.confidence > 0).sum(1).tolist() == [8, 8] for part in found.values())


def test_boxes_fit_only_where_the_size_of_training_is_known(crowded):
    pixels = pixels_from_scenes(crowded[:3])

    def overlap(expert):
        boxes = [torch.tensor(reading.boxes) * 256 for reading in expert.readings(pixels)]
        told = []
        for scene, box_N4 in zip(crowded, boxes, strict=False):
            for item in scene.objects:
                true_4 = torch.tensor(item.box, dtype=torch.float)
                size_N2 = (
                    torch.minimum(box_N4[:, 2:], true_4[2:]) - torch.maximum(box_N4[:, :2], true_4[:2])
                ).clamp_min(0)
                both_N = size_N2.prod(1)
                all_N = (box_N4[:, 2:] - box_N4[:, :2]).prod(1) + (true_4[2:] - true_4[:2]).prod() - both_N
                told.append(float((both_N / all_N).max()))
        return sum(told) / len(told)

    assert overlap(bank(**MANY)["detection"]) > 0.85
    assert overlap(bank(slots=64)["detection"]) < 0.5


def test_areas_are_told_as_in_pictures_of_training(crowded, seen):
    """The tokens of a large thing are alike on either canvas, so that words for its size stay what they were."""
    labels = SegmentationExpert.labels
    start, stop = labels.index("area0"), labels.index("hidden")
    area_T = seen["segmentation"].tokens[0, :, start:stop] @ torch.linspace(0, 1, stop - start)
    for item in crowded[0].objects:
        slot, far = nearest(seen["segmentation"].places[0], seen["segmentation"].confidence[0], item.centroid)
        if far < 3:
            share = area_T[slot] ** 2 * segmentation.AREA_MAX
            assert float(share) == pytest.approx(item.area / 64**2, rel=0.5, abs=0.01)


def test_regions_belong_to_their_own_things(crowded, seen):
    right = things = 0
    for row, scene in enumerate(crowded):
        for item in scene.objects:
            slot, far = nearest(seen["segmentation"].places[row], seen["segmentation"].confidence[row], item.centroid)
            colours = seen["segmentation"].tokens[row, slot, len(CATEGORIES) : len(CATEGORIES) + len(COLOURS)]
            right += far < 6 and int(colours.argmax()) == item.colour
            things += 1
    assert right / things > 0.95


def test_pictures_that_are_looked_at_in_parts_are_seen_the_same(crowded, seen, monkeypatch):
    expert, pixels = bank(**MANY)["segmentation"], pixels_from_scenes(crowded)
    assert expert.pictures_at_once(pixels) == 16
    monkeypatch.setattr(segmentation, "AT_ONCE", 2 * 64 * 128**2)
    assert expert.pictures_at_once(pixels) == 2
    torch.testing.assert_close(expert(pixels).confidence, seen["segmentation"].confidence)
    assert bank()["segmentation"].pictures_at_once(pixels) == len(pixels)  # eight slots: always all


def test_without_options_all_is_as_it_was():
    pixels = pixels_from_scenes([split_scene("train", index, 0) for index in range(6)])
    usual, said = bank()(pixels), bank(slots=8, trained_at=64)(pixels)
    for kind in KINDS_OF_SLOTS:
        assert usual[kind].tokens.shape[1] == 8
        assert torch.equal(usual[kind].tokens, said[kind].tokens)
        assert torch.equal(usual[kind].confidence, said[kind].confidence)


def test_more_slots_find_the_same_first():
    """On a small picture, slots beyond the things there are stay empty, and the others are what they were."""
    pixels = pixels_from_scenes([split_scene("train", index, 0) for index in range(6)])
    few, many = bank()(pixels), bank(slots=20)(pixels)
    for kind in KINDS_OF_SLOTS:
        assert many[kind].tokens.shape[1] == 20
        filled = few[kind].confidence > 0
        torch.testing.assert_close(many[kind].tokens[:, :8][filled], few[kind].tokens[filled])


def test_ranks_have_names_as_far_as_names_go():
    sure_BT = torch.tensor([[0.9] * 10 + [0.0] * 2])
    ranks_BT8 = named_ranks(sure_BT)
    assert ranks_BT8.shape == (1, 12, len(ORDINALS))
    assert torch.equal(ranks_BT8[0, :8], torch.eye(8))
    assert not ranks_BT8[0, 8:].any()
    eight = torch.tensor([[0.9, 0.5, 0.0, 0.1, 0.2, 0.0, 0.0, 0.3]])
    assert torch.equal(named_ranks(eight), ranks(eight))
    assert named_ranks(eight[:, :3]).shape == (1, 3, len(ORDINALS))


def test_declared_before_it_is_built():
    specs = expert_specs({kind: {"kind": kind, "options": MANY} for kind in KINDS_OF_SLOTS})
    assert [spec.num_tokens for spec in specs.values()] == [64, 64]
    assert DetectionExpert.num_tokens == SegmentationExpert.num_tokens == 8
    assert [spec.width for spec in specs.values()] == [SegmentationExpert.width, DetectionExpert.width]


@pytest.mark.parametrize("options", [{"slots": 0}, {"slots": 65}, {"trained_at": 32}])
@pytest.mark.parametrize("kind", KINDS_OF_SLOTS)
def test_an_option_out_of_range_names_it(kind, options):
    (name,) = options
    with pytest.raises(AstreaError, match=name) as told:
        ExpertBank({"mine": {"kind": kind, "options": options}})
    assert name in told.value.hint


def test_scores_know_how_large_boxes_are(crowded):
    pytest.importorskip("pycocotools")
    known, _ = expert_scores(bank(**MANY), crowded)
    unknown, _ = expert_scores(bank(slots=64), crowded)
    assert known["detection"]["AP50"] > 80 > unknown["detection"]["AP50"]
    assert boxes_from_tokens(torch.zeros(1, 1, DetectionExpert.width), zoom=4.0).shape == (1, 1, 4)
