"""The padded truth of a batch, from which experts make their targets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from astrea.world.experts.truth import MAX_OBJECTS, collate_truth, per_pixel, pixels_from_scenes
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.vocabulary import CATEGORIES, KINDS, WORDS


@pytest.fixture(scope="module")
def scenes():
    return [split_scene("train", index, 0) for index in range(24)]


def test_truth_says_what_the_scenes_say(scenes):
    truth = collate_truth(scenes)
    assert any(scene.word for scene in scenes)
    assert any(not scene.word for scene in scenes)
    for b, scene in enumerate(scenes):
        assert truth.condition_B[b] == scene.condition
        assert int(truth.word_B[b]) == (WORDS.index(scene.word) if scene.word else len(WORDS))
        box = scene.word_box or (0, 0, 0, 0)
        assert torch.allclose(truth.word_box_B4[b] * 64, torch.tensor(box).float(), atol=1e-4)
        assert not truth.valid_BN[b, len(scene.objects) :].any()
        for n, item in enumerate(scene.objects):
            assert bool(truth.valid_BN[b, n]) == (item.area > 0)
            assert int(truth.kind_BN[b, n]) == item.kind
            assert CATEGORIES[int(truth.category_BN[b, n])] == KINDS[item.kind].category
            assert int(truth.colour_BN[b, n]) == item.colour
            assert torch.allclose(truth.box_BN4[b, n] * 64, torch.tensor(item.box).float(), atol=1e-4)
            assert torch.allclose(truth.centroid_BN2[b, n] * 64, torch.tensor(item.centroid).float(), atol=1e-4)
            assert truth.area_BN[b, n].item() == pytest.approx(item.area / 64**2, abs=1e-6)
            assert truth.occlusion_BN[b, n].item() == pytest.approx(item.occlusion, abs=1e-6)
    assert truth.kind_BN.shape == (24, MAX_OBJECTS)


def test_a_hidden_object_is_not_valid(scenes):
    scene = next(s for s in scenes if len(s.objects) > 1)
    hidden = dataclasses.replace(scene.objects[0], area=0, occlusion=1.0)
    truth = collate_truth([dataclasses.replace(scene, objects=(hidden, *scene.objects[1:]))])
    assert not truth.valid_BN[0, 0]
    assert truth.valid_BN[0, 1]


def test_pixels(scenes):
    pixels = pixels_from_scenes(scenes)
    assert pixels.shape == (24, 3, 64, 64)
    assert 0 <= float(pixels.min()) < float(pixels.max()) <= 1
    back = (pixels[3].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.array_equal(back, scenes[3].image)


def test_painting_values_onto_visible_pixels(scenes):
    truth = collate_truth(scenes)
    painted = per_pixel(truth.kind_BN + 1, truth.instances_BHW, 0)
    for b, scene in enumerate(scenes):
        for n, item in enumerate(scene.objects):
            assert painted[b][torch.from_numpy(scene.mask(n))].eq(item.kind + 1).all()
        bare = torch.from_numpy((scene.instances == 0) | (scene.instances == 255))
        assert painted[b][bare].eq(0).all()
    plates = truth.instances_BHW == 255
    assert plates.any()
    shares = per_pixel(truth.area_BN, truth.instances_BHW, -1)
    assert shares[plates].eq(-1).all()
    assert shares.dtype == torch.float32
