"""Compositions: the same whenever they are asked for, with a truth that their pixels bear out."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from astrea.common.errors import AstreaError
from astrea.experts.packaged.class_names import COLOURS
from astrea.recipes.recipe import World
from astrea.world.photographs.colours import PAINTS, dominant, name_pixels, painted
from astrea.world.photographs.compositions import CONDITIONS, Compositions, open_compositions
from astrea.world.photographs.draw import SIGN
from astrea.world.photographs.plan import SPLITS, apart
from astrea.world.photographs.scene import PhotoScene
from astrea.world.photographs.signs import WORDS
from cut_out_folder import cut_out, write_cut_outs


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = write_cut_outs(tmp_path_factory.mktemp("cut-outs"))
    return World(kind="photographs", canvas=96, options={"folder": str(folder), "held_out": 3})


@pytest.fixture(scope="module")
def made(world: World) -> Compositions:
    return open_compositions(world)


@pytest.fixture(scope="module")
def scenes(made: Compositions) -> list[PhotoScene]:
    return list(made.scenes("train", 60))


def test_a_scene_is_the_same_whenever_it_is_asked_for(world: World, made: Compositions) -> None:
    again = open_compositions(world)
    for split in SPLITS:
        scene = made.scene(split, 7)
        assert again.scene(split, 7) == scene
        assert np.array_equal(again.picture(scene), made.picture(scene))
    assert made.scene("train", 1) != made.scene("train", 2)
    assert made.scene("train", 1) != made.scene("test", 1)
    other = open_compositions(world.model_copy(update={"seed": 1}))
    assert other.scene("train", 1) != made.scene("train", 1)
    assert other.key != made.key == again.key


def test_pictures_have_the_canvas_size(made: Compositions, scenes: list[PhotoScene]) -> None:
    pixels = made.pixels(scenes[:3])
    assert pixels.shape == (3, 3, 96, 96)
    assert 0 <= float(pixels.min()) < float(pixels.max()) <= 1


def test_the_truth_is_what_the_masks_say(made: Compositions, scenes: list[PhotoScene]) -> None:
    for scene in scenes:
        instances = made.studio.instances(scene.spec)
        for number, thing in enumerate(scene.things, 1):
            rows, columns = np.nonzero(instances == number)
            assert len(rows) == thing.area > 0
            assert thing.centroid == pytest.approx((columns.mean(), rows.mean()))
            x0, y0, x1, y1 = thing.box
            assert 0 <= x0 <= columns.min() <= columns.max() < x1 <= 96
            assert 0 <= y0 <= rows.min() <= rows.max() < y1 <= 96
            assert 0 <= thing.occlusion <= 0.45
        if scene.sign_box is not None:
            x0, y0, x1, y1 = scene.sign_box
            assert (instances[y0:y1, x0:x1] == SIGN).all()
            assert scene.word in WORDS


def test_a_thing_stands_where_its_box_is(made: Compositions, scenes: list[PhotoScene]) -> None:
    """Painted without its things, a picture differs in their masks."""
    for scene in scenes[:20]:
        spec = scene.spec
        bare = made.studio.paint(type(spec)(spec.seed, spec.canvas, (), spec.sign, spec.blur))
        differs = np.abs(made.picture(scene).astype(int) - bare).max(2) > 0
        instances = made.studio.instances(spec)
        for number in range(1, len(scene.things) + 1):
            assert differs[instances == number].mean() > 0.8


def test_training_shows_no_new_thing_and_no_pair_that_is_kept_apart(made: Compositions) -> None:
    held_out = made.catalogue.held_out
    for split in ("train", "validation", "test"):
        for scene in made.scenes(split, 60):
            names = {thing.name for thing in scene.things}
            assert not names & held_out
            assert not any(apart(a, b) for a in names for b in names)
    assert all({thing.name for thing in scene.things} & held_out for scene in made.scenes("new", 40))


def test_novel_scenes_show_a_pair_that_training_never_does(made: Compositions) -> None:
    for scene in made.scenes("novel", 40):
        names = sorted({thing.name for thing in scene.things})
        if any(apart(names[0], other) for other in made.catalogue.trained):
            assert not set(names) & made.catalogue.held_out
    pairs = [
        any(apart(a.name, b.name) for a in scene.things for b in scene.things) for scene in made.scenes("novel", 40)
    ]
    assert np.mean(pairs) > 0.5  # a folder of nine things has some without such a partner


def test_scenes_vary(scenes: list[PhotoScene], made: Compositions) -> None:
    assert set(Counter(len(scene.things) for scene in scenes)) == {1, 2, 3, 4, 5, 6}
    assert 0.2 < np.mean([scene.word is not None for scene in scenes]) < 0.6
    assert {made.condition(scene) for scene in scenes} == set(CONDITIONS)
    assert any(max(Counter(thing.name for thing in scene.things).values()) > 1 for scene in scenes)
    paints = Counter(thing.colour for scene in scenes for thing in scene.things if thing.painted)
    assert set(paints) == set(PAINTS)


def test_options_are_kept_to(world: World) -> None:
    said = {**world.options, "max_things": 1, "signs": 0.0, "recoloured": 0.0, "overlap": 0.0}
    scenes = list(open_compositions(world.model_copy(update={"options": said})).scenes("train", 20))
    assert all(len(scene.things) == 1 and scene.word is None for scene in scenes)
    assert not any(thing.painted for scene in scenes for thing in scene.things)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folders": "x"}, r"world\.options\.folders"),
        ({"signs": 2}, r"world\.options\.signs"),
        ({"smallest": 0.5, "largest": 0.2}, "smallest"),
        ({"held_out": -1}, "held_out"),
    ],
)
def test_wrong_options_are_named_with_those_there_are(options: dict[str, object], message: str) -> None:
    with pytest.raises(AstreaError, match=message) as error:
        open_compositions(World(kind="photographs", options=options))
    assert "recoloured" in error.value.hint


def test_unknown_splits_are_refused(made: Compositions) -> None:
    with pytest.raises(AstreaError, match="unknown split 'dev'"):
        made.scene("dev", 0)


def test_a_swapped_scene_differs_in_one_attribute(made: Compositions, scenes: list[PhotoScene]) -> None:
    rng = random.Random(0)
    changed = 0
    for scene in scenes:
        other = made.swapped(scene, rng)
        assert other.spec.seed == scene.spec.seed
        assert len(other.things) == len(scene.things)
        if other.word != scene.word:
            assert other.things == scene.things
        changed += other != scene
    assert changed > 50


@pytest.mark.parametrize(
    ("rgb", "colour"),
    [
        ((220, 20, 25), "red"), ((150, 15, 20), "red"), ((240, 140, 20), "orange"), ((240, 220, 40), "yellow"),
        ((40, 140, 50), "green"), ((40, 80, 210), "blue"), ((120, 50, 170), "purple"), ((245, 140, 185), "pink"),
        ((110, 70, 40), "brown"), ((20, 20, 22), "black"), ((128, 130, 128), "gray"), ((245, 245, 245), "white"),
    ],
)  # fmt: skip
def test_colours_have_their_usual_names(rgb: tuple[int, int, int], colour: str) -> None:
    assert COLOURS[int(name_pixels(np.array([rgb], np.uint8))[0])] == colour
    assert dominant(cut_out(rgb, 1)) == colour


def test_what_has_two_colours_has_none() -> None:
    image = cut_out((220, 20, 25), 1)
    image.paste((40, 80, 210), (30, 4, 56, 44))
    assert dominant(image) is None
    assert dominant(image.resize((3, 2))) is None  # too few pixels to tell


@pytest.mark.parametrize("paint", PAINTS)
def test_paint_is_seen(paint: str) -> None:
    for number, rgb in enumerate([(120, 80, 45), (205, 20, 25), (235, 235, 235)]):
        changed = painted(cut_out(rgb, number), paint)
        assert dominant(changed) == paint
        assert np.array_equal(np.asarray(changed)[..., 3], np.asarray(cut_out(rgb, number))[..., 3])
