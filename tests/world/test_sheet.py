"""The contact sheet shows what it is given."""

import numpy as np
import pytest
from PIL import Image

from astrea.common.errors import AstreaError
from astrea.recipes.recipe import World
from astrea.world.gallery import drawn_tile, open_gallery
from astrea.world.scenes.draw import make_scene
from astrea.world.sheet import Tile, contact_sheet


def test_tiles_are_the_scenes_enlarged():
    scenes = [make_scene(seed) for seed in range(5)]
    tiles = [Tile(Image.fromarray(scene.image), (), "a line", ("red sun", "blue cow")) for scene in scenes]
    sheet = contact_sheet(tiles, columns=3, scale=2)
    assert sheet.mode == "RGB"
    pixels = np.asarray(sheet)
    tile = pixels[10 : 10 + 128 : 2, 10 : 10 + 128 : 2]
    assert np.array_equal(tile, scenes[0].image)
    second = pixels[10 : 10 + 128 : 2, 10 + 138 : 10 + 138 + 128 : 2]
    assert np.array_equal(second, scenes[1].image)


def test_frames_and_texts_are_drawn():
    scene = make_scene(1, canvas=96)
    tile = drawn_tile(scene)
    assert len(tile.frames) == len(scene.objects) + (scene.word is not None)
    framed = np.asarray(contact_sheet([tile]))
    plain = np.asarray(contact_sheet([Tile(tile.picture, (), tile.headline, tile.labels)]))
    beneath = 10 + 96 * 3
    assert np.any(framed[:beneath] != plain[:beneath])
    assert np.array_equal(framed[beneath:], plain[beneath:])
    other = np.asarray(contact_sheet([Tile(tile.picture, (), "another line", tile.labels)]))
    assert np.array_equal(other[:beneath], plain[:beneath])
    assert np.any(other[beneath:] != plain[beneath:])


def test_long_labels_are_wrapped_and_none_is_lost():
    picture = Image.new("RGB", (64, 64))
    short = contact_sheet([Tile(picture, (), "one", ["a sun"])], scale=1)
    long = contact_sheet([Tile(picture, (), "one", ["a yellow sun"] * 6)], scale=1)
    assert long.height == short.height + 5 * 14
    assert contact_sheet([Tile(picture, (), "one", [])], scale=1).height == short.height - 14


def test_no_scene_is_no_sheet():
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([])


def test_other_worlds_have_nothing_to_show():
    with pytest.raises(AstreaError, match="cannot be shown"):
        open_gallery(World(kind="my.package:World"))
