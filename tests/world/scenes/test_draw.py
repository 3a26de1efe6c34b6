"""Scenes are the same everywhere, and their truth is true."""

import hashlib
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import astrea
from astrea.world.scenes.atlas import sprite
from astrea.world.scenes.draw import (
    SPLITS,
    draw_scene,
    make_scene,
    plan_scene,
    split_scene,
    split_seed,
    swap_attribute,
)
from astrea.world.scenes.plan import MIN_VISIBLE, difficulty_of, novel_colour, plate_size
from astrea.world.scenes.scene import ObjectSpec, SceneSpec
from astrea.world.scenes.vocabulary import COLOUR_RGB, COLOURS, CONDITIONS, KINDS, SIZES, is_novel

SEEDS = st.integers(min_value=0, max_value=2**52 - 1)
CANVASES = st.sampled_from([48, 64, 96])

PINNED_CONDITIONS = (
    "a4c54d0458c7d57040c32fff8edcd5fb2dd9f5ffccd41999a425f511948a2696",
    "59c17b772d9ce57170474a0c9e2f9baf21416e7f29271deaf990053020794df1",
    "21c7bb2e0e067f6bf7df1cd78072799a13d267a3a8052f34dc0a84b45e8fafaf",
    "46aad472ffeda0a840fdb574a3ca6ae00ed9a5648e205ea683ef7a14db8b1f53",
    "734218e461105afea86d7a3dd58cad6f15583f4821bf75fe7fe638d8d2c88ef9",
)
PINNED_CANVAS_96 = "782d4bc82e7f55459ee5485b927a980c7089ac393562e336141605982b37e067"
PINNED_PLANS = "7bab8b6a35027b53446f655f083b41a8293917eb2a05636a2bb97ba10351bc2d"


def digest(*scenes):
    total = hashlib.sha256()
    for scene in scenes:
        total.update(scene.image.tobytes())
        total.update(scene.instances.tobytes())
    return total.hexdigest()


# --- determinism -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("condition", "expected"), list(zip(range(5), PINNED_CONDITIONS, strict=True)))
def test_pictures_are_pinned_in_every_condition(condition, expected):
    """Trained experts have seen these very pixels: a change here makes the shipped weights worse."""
    specs = (replace(plan_scene(seed), condition=condition) for seed in range(8))
    assert digest(*map(draw_scene, specs)) == expected


def test_a_larger_canvas_is_pinned():
    assert digest(*(make_scene(seed, canvas=96) for seed in range(8))) == PINNED_CANVAS_96


def test_plans_are_pinned():
    plans = repr([plan_scene(split_seed("train", index, 0)) for index in range(200)])
    assert hashlib.sha256(plans.encode()).hexdigest() == PINNED_PLANS


def test_same_seed_same_scene_in_another_process():
    # Without the rest of the package, whose import takes ten times as long as the scene.
    package = (
        f"astrea = sys.modules['astrea'] = types.ModuleType('astrea'); astrea.__path__ = {list(astrea.__path__)!r}"
    )
    code = (
        f"import hashlib, sys, types; {package}; from astrea.world.scenes.draw import make_scene;"
        "print(hashlib.sha256(make_scene(11).image.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert hashlib.sha256(make_scene(11).image.tobytes()).hexdigest() == other


def test_drawing_leaves_no_trace_in_the_banks():
    first = digest(make_scene(5))
    for seed in range(40):
        make_scene(seed)
    assert digest(make_scene(5)) == first


# --- truth -----------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(SEEDS, CANVASES, st.integers(1, 8), st.sampled_from([0.0, 0.5, 1.0]))
def test_truth_holds(seed, canvas, max_objects, difficulty):
    scene = make_scene(seed, canvas=canvas, max_objects=max_objects, difficulty=difficulty)
    assert scene.image.shape == (canvas, canvas, 3)
    assert scene.image.dtype == np.uint8
    assert scene.instances.shape == (canvas, canvas)
    assert scene.instances.dtype == np.uint8
    assert 1 <= len(scene.objects) <= max_objects
    assert set(np.unique(scene.instances)) <= {0, 255, *range(1, len(scene.objects) + 1)}
    for index, (item, planned) in enumerate(zip(scene.objects, scene.spec.objects, strict=True)):
        assert (item.kind, item.colour, item.size) == (planned.kind, planned.colour, planned.size)
        x0, y0, x1, y1 = item.box
        assert (x0, y0) == (planned.x, planned.y)
        assert 0 <= x0 < x1 <= canvas
        assert 0 <= y0 < y1 <= canvas
        mask = scene.mask(index)
        assert item.area == mask.sum() > 0
        assert mask[y0:y1, x0:x1].sum() == item.area
        own = sprite(item.kind, item.size, canvas).area
        assert item.occlusion == pytest.approx(1 - item.area / own)
        assert 0 <= item.occlusion <= 1 - MIN_VISIBLE + 1e-9
        rows, columns = np.nonzero(mask)
        assert item.centroid == pytest.approx((columns.mean(), rows.mean()))


@settings(max_examples=60, deadline=None)
@given(SEEDS, CANVASES)
def test_the_plate_lies_on_top_and_inside(seed, canvas):
    scene = make_scene(seed, canvas=canvas)
    assert scene.word == scene.spec.word
    plate = scene.instances == 255
    if scene.word is None:
        assert scene.word_box is None
        assert not plate.any()
        return
    x0, y0, x1, y1 = scene.word_box
    assert (x1 - x0, y1 - y0) == plate_size(scene.word, canvas)
    assert 0 <= x0 < x1 <= canvas
    assert 0 <= y0 < y1 <= canvas
    assert plate[y0:y1, x0:x1].all()
    assert plate.sum() == (x1 - x0) * (y1 - y0)


def test_later_objects_cover_earlier_ones():
    heart = next(index for index, kind in enumerate(KINDS) if kind.name == "heart")
    large, small = ObjectSpec(heart, 0, 2, 20, 20), ObjectSpec(heart, 4, 0, 26, 24)
    below = draw_scene(SceneSpec(0, 64, (large, small), None, (0, 0), 0))
    above = draw_scene(SceneSpec(0, 64, (small, large), None, (0, 0), 0))
    assert below.objects[1].occlusion == 0
    assert below.objects[0].occlusion == pytest.approx(sprite(heart, 0, 64).area / sprite(heart, 2, 64).area)
    assert above.objects[1].occlusion == 0
    assert above.objects[0].area == 0
    assert above.objects[0].occlusion == 1


def test_sprites_have_their_size_and_are_tight():
    for kind in range(len(KINDS)):
        for size, side in zip(range(len(SIZES)), (14, 19, 26), strict=True):
            mask = sprite(kind, size, 64).mask
            assert side - 2 <= max(mask.shape) <= side
            assert all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))


@pytest.mark.parametrize("colour", range(len(COLOURS)))
def test_colours_stand_apart_on_clean_scenes(colour):
    """The middle pixel of a heart is nearest to its own colour whatever the brightness."""
    heart = next(index for index, kind in enumerate(KINDS) if kind.name == "heart")
    for seed in range(10):
        scene = draw_scene(SceneSpec(seed * 128, 64, (ObjectSpec(heart, colour, 2, 10, 10),), None, (0, 0), 0))
        pixel = scene.image[20, 22].astype(int)
        assert np.abs(np.array(COLOUR_RGB) - pixel).sum(axis=1).argmin() == colour


def test_objects_outside_the_canvas_are_refused():
    for x, y in ((-1, 0), (0, 63)):
        with pytest.raises(ValueError, match="outside the canvas"):
            draw_scene(SceneSpec(0, 64, (ObjectSpec(0, 0, 2, x, y),), None, (0, 0), 0))
    with pytest.raises(ValueError, match="plate"):
        draw_scene(SceneSpec(0, 64, (), "open", (50, 0), 0))


@pytest.mark.parametrize("wrong", [{"canvas": 20}, {"max_objects": 0}, {"difficulty": 1.5}])
def test_impossible_wishes_are_refused(wrong):
    with pytest.raises(ValueError, match="a scene needs"):
        plan_scene(0, **wrong)


# --- what scenes are made of -----------------------------------------------------------------------------------------


def test_the_mix_is_as_planned():
    plans = [plan_scene(split_seed("train", index, 3)) for index in range(3000)]
    conditions = Counter(plan.condition for plan in plans)
    assert conditions[0] / 3000 == pytest.approx(0.44, abs=0.03)
    for condition in range(1, len(CONDITIONS)):
        assert conditions[condition] / 3000 == pytest.approx(0.14, abs=0.02)
    assert sum(plan.word is not None for plan in plans) / 3000 == pytest.approx(0.45, abs=0.03)
    assert {len(plan.objects) for plan in plans} == {1, 2, 3, 4, 5, 6}
    for attribute in ("kind", "colour"):
        most = [max(Counter(getattr(item, attribute) for item in plan.objects).values()) for plan in plans]
        assert all(most.count(number) > 60 for number in (1, 2, 3, 4)), attribute
    assert {item.kind for plan in plans for item in plan.objects} == set(range(len(KINDS)))


def test_difficulty_changes_strength_alone():
    easy, hard = plan_scene(9, difficulty=0.0), plan_scene(9, difficulty=1.0)
    assert replace(easy, seed=0) == replace(hard, seed=0)
    assert (difficulty_of(easy), difficulty_of(plan_scene(9)), difficulty_of(hard)) == (0, 50, 100)
    night = CONDITIONS.index("night")
    light = [draw_scene(replace(spec, condition=night)).image.mean() for spec in (easy, hard)]
    assert light[0] > light[1]


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_novel_rules(seed):
    def novel(plan):
        return [is_novel(item.kind, item.colour) for item in plan.objects]

    assert not any(novel(plan_scene(seed)))
    assert any(novel(plan_scene(seed, require_novel=True)))
    assert any(novel(plan_scene(seed, allow_novel=None, require_novel=True, max_objects=1)))


def test_allowing_novel_pairs_lets_some_in():
    pairs = [is_novel(o.kind, o.colour) for seed in range(200) for o in plan_scene(seed, allow_novel=None).objects]
    assert 0 < sum(pairs) < len(pairs) / 2
    assert all(is_novel(kind, novel_colour(kind)) for kind in range(len(KINDS)))


# --- splits ----------------------------------------------------------------------------------------------------------


def test_splits_and_run_seeds_are_disjoint():
    seeds = [split_seed(split, index, seed) for split in SPLITS for index in range(2000) for seed in range(3)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**52 for seed in seeds)
    assert {split: {split_seed(split, index, 0) % 4 for index in range(50)} for split in SPLITS} == {
        split: {number} for number, split in enumerate(SPLITS)
    }


def test_only_the_novel_split_has_novel_pairs():
    for split in SPLITS:
        for index in range(40):
            scene = split_scene(split, index, 0)
            assert any(is_novel(item.kind, item.colour) for item in scene.objects) == (split == "novel")


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        split_seed("dev", 0, 0)


# --- near-duplicates -------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(SEEDS, st.integers(0, 1000), CANVASES)
def test_a_swap_changes_exactly_one_attribute(seed, choice, canvas):
    spec = plan_scene(seed, canvas=canvas)
    other, attribute = swap_attribute(spec, random.Random(choice))
    assert other != spec
    assert (other.seed, other.canvas, other.word_xy, other.condition) == (
        spec.seed,
        spec.canvas,
        spec.word_xy,
        spec.condition,
    )
    assert not any(is_novel(item.kind, item.colour) for item in other.objects)
    pairs = [(old, new) for old, new in zip(spec.objects, other.objects, strict=True) if old != new]
    assert (spec.word != other.word) == (attribute == "word")
    for old, new in pairs:
        assert (old.kind != new.kind) == (attribute == "kind")
        assert (old.colour != new.colour) == (attribute == "colour")
        assert old.size == new.size
    assert len(pairs) in {"word": (0,), "kind": (1,), "colour": (1,), "place": (1, 2)}[attribute]
    before, after = draw_scene(spec), draw_scene(other)
    assert not np.array_equal(before.image, after.image)
    assert all(item.occlusion <= 1 - MIN_VISIBLE + 1e-9 for item in after.objects)
    if attribute == "place":
        assert _relations(before) != _relations(after)


def _relations(scene):
    """For all ordered pairs of objects, the signs of the distances between their boxes' middles where it is clear."""
    middles = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in (item.box for item in scene.objects)]
    clear = scene.spec.canvas / 8
    return [
        tuple(int(np.sign(a - b)) if abs(a - b) >= clear else 0 for a, b in zip(one, two, strict=True))
        for one in middles
        for two in middles
    ]


def test_a_swap_keeps_everything_else_pixel_for_pixel():
    """Also noise and clutter stay, so that nothing but the attribute tells the two pictures apart."""
    checked = 0
    for seed in range(60):
        spec = plan_scene(seed)
        other, attribute = swap_attribute(spec, random.Random(seed))
        if attribute not in ("colour", "word") or CONDITIONS[spec.condition] == "blur":
            continue
        before, after = draw_scene(spec), draw_scene(other)
        changed = (before.image != after.image).any(axis=2)
        if attribute == "word":
            x0, y0, x1, y1 = before.word_box
        else:
            index = next(i for i, (old, new) in enumerate(zip(spec.objects, other.objects, strict=True)) if old != new)
            x0, y0, x1, y1 = before.objects[index].box
            x0, y0, x1, y1 = max(x0 - 1, 0), max(y0 - 1, 0), x1 + 1, y1 + 1
        changed[y0:y1, x0:x1] = False
        assert not changed.any()
        checked += 1
    assert checked > 10


def test_all_four_attributes_are_swapped():
    rng = random.Random(0)
    kinds = Counter(swap_attribute(plan_scene(seed), rng)[1] for seed in range(400))
    assert set(kinds) == {"colour", "kind", "place", "word"}
    assert min(kinds.values()) > 30
