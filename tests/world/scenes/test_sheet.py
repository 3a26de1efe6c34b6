"""The contact sheet shows what it is given."""

import numpy as np
import pytest

from astrea.world.scenes.draw import make_scene
from astrea.world.scenes.sheet import contact_sheet


def test_tiles_are_the_scenes_enlarged():
    scenes = [make_scene(seed) for seed in range(5)]
    sheet = contact_sheet(scenes, columns=3, scale=2, boxes=False)
    assert sheet.mode == "RGB"
    pixels = np.asarray(sheet)
    tile = pixels[10 : 10 + 128 : 2, 10 : 10 + 128 : 2]
    assert np.array_equal(tile, scenes[0].image)
    second = pixels[10 : 10 + 128 : 2, 10 + 138 : 10 + 138 + 128 : 2]
    assert np.array_equal(second, scenes[1].image)


def test_boxes_and_titles_are_drawn():
    scenes = [make_scene(seed, canvas=96) for seed in range(2)]
    plain = contact_sheet(scenes, boxes=False)
    assert np.any(np.asarray(plain) != np.asarray(contact_sheet(scenes)))
    assert plain.size[0] == 2 * (96 * 3 + 10) + 10
    titled = contact_sheet(scenes, boxes=False, titles=["first", "second"])
    beneath = 10 + 96 * 3
    assert np.array_equal(np.asarray(plain)[:beneath], np.asarray(titled)[:beneath])
    assert plain.tobytes() != titled.tobytes()


def test_wrong_calls_are_named():
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])
    with pytest.raises(ValueError, match="1 titles for 2 scenes"):
        contact_sheet([make_scene(0), make_scene(1)], titles=["only one"])
