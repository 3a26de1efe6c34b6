"""Many pictograms that keep their size in pixels on a larger canvas."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from astrea.recipes.recipe import World
from astrea.world.dataset import scene_at, these_scenes
from astrea.world.experts.truth import MAX_OBJECTS, collate_truth
from astrea.world.scenes.atlas import side_of
from astrea.world.scenes.draw import draw_scene, make_scene, plan_scene
from astrea.world.scenes.plan import MIN_VISIBLE, plate_size, swap_attribute
from astrea.world.scenes.textures import clutter, patterns

CROWDED = {"canvas": 256, "object_canvas": 64, "min_objects": 20, "max_objects": 40}


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(seed, **CROWDED) for seed in range(24)]


def test_as_many_as_asked_for_all_in_sight(scenes):
    counts = [len(scene.objects) for scene in scenes]
    assert min(counts) >= 20
    assert 35 <= max(counts) <= 40
    for scene in scenes:
        assert all(item.area > 0 and item.occlusion <= 1 - MIN_VISIBLE + 1e-9 for item in scene.objects)


def test_things_and_print_are_as_large_as_on_the_smaller_canvas(scenes):
    for scene in scenes:
        assert scene.image.shape == (256, 256, 3)
        for item in scene.objects:
            x0, y0, x1, y1 = item.box
            assert abs(max(x1 - x0, y1 - y0) - side_of(item.size, 64)) <= 2
        if scene.word_box is not None:
            x0, y0, x1, y1 = scene.word_box
            assert (x1 - x0, y1 - y0) == plate_size(scene.word, 64)


def test_things_are_all_over_the_picture(scenes):
    middles = np.array([item.centroid for scene in scenes for item in scene.objects]) / 256
    quarters = np.histogram2d(*middles.T, bins=2, range=[[0, 1], [0, 1]])[0] / len(middles)
    assert quarters.min() > 0.15


def test_a_fewest_number_alone_keeps_the_size():
    plans = [plan_scene(seed, min_objects=5) for seed in range(40)]
    assert all(4 <= len(plan.objects) <= 6 for plan in plans)  # one may find no place
    assert sum(len(plan.objects) >= 5 for plan in plans) > 30
    assert any(len(plan_scene(seed).objects) < 4 for seed in range(40))


def test_a_canvas_that_is_named_is_the_same_as_none():
    named = plan_scene(5, canvas=96, object_canvas=96)
    assert named == plan_scene(5, canvas=96)
    assert np.array_equal(draw_scene(named).image, make_scene(5, canvas=96).image)


def test_surfaces_have_more_figures_of_the_same_size():
    small, large = ((clutter(canvas, 64, dense=False)[1] > 0).mean() for canvas in (64, 128))
    assert large == pytest.approx(small, rel=0.1)
    # Stripes and checks turn twice as often.
    turns = {unit: np.abs(np.diff(patterns(128, unit)[2, 0, :, 0])).mean() for unit in (64, 128)}
    assert turns[64] > turns[128]


def test_swapped_attributes_stay_inside(scenes):
    rng, kinds = Random(0), set()
    for scene in scenes:
        spec, attribute = swap_attribute(scene.spec, rng)
        kinds.add(attribute)
        assert spec.object_canvas == 64
        swapped = draw_scene(spec)
        assert len(swapped.objects) == len(scene.objects)
        assert not np.array_equal(swapped.image, scene.image)
    assert {"colour", "kind", "place"} <= kinds


@pytest.mark.parametrize(
    "wrong", [{"min_objects": 7}, {"min_objects": 0}, {"object_canvas": 128}, {"object_canvas": 40}, {"canvas": 40}]
)
def test_a_plan_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="a scene needs canvas"):
        plan_scene(0, **wrong)


def test_the_truth_has_room_for_all(scenes):
    truth = collate_truth(scenes)
    assert truth.valid_BN.shape[1] == max(len(scene.objects) for scene in scenes) > MAX_OBJECTS
    assert truth.valid_BN.sum(1).tolist() == [len(scene.objects) for scene in scenes]


def test_a_world_is_drawn_as_it_says():
    scene = scene_at("test", 3, World(canvas=128, object_canvas=64, min_objects=10, max_objects=12))
    assert 8 <= len(scene.objects) <= 12
    assert scene.spec.sized_for == 64
    assert scene_at("test", 3, World(canvas=128)).spec.sized_for == 128


def test_scenes_of_other_sizes_are_known_apart():
    """The size is no part of a scene's description, which those from before there was one are known by."""
    one = make_scene(3)
    other = replace(one, spec=replace(one.spec, object_canvas=48))
    assert repr(one) == repr(other)
    assert these_scenes([one]) != these_scenes([other])
