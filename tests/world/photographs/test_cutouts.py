"""Cut-outs are found, named and held out as documented; hostile folders are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from astrea.common.errors import AstreaError
from astrea.world.photographs import cutouts
from astrea.world.photographs.cutouts import PACKAGE, open_catalogue
from astrea.world.photographs.naming import listed, plural, short_name, singular
from cut_out_folder import cut_out, write_cut_outs

NAMES = {
    "owl", "frog", "pink pig", "whale", "lemon", "tomato", "cherry", "hammer", "saw", "bus", "race car", "boat",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cut_outs(tmp_path_factory.mktemp("cut-outs"))


def test_names_come_from_captions_and_categories_from_first_folders(folder: Path) -> None:
    catalogue = open_catalogue(str(folder), 3)
    assert set(catalogue.of) == NAMES
    assert catalogue.categories["owl"] == "animal"  # of animals/birds/
    assert catalogue.categories["hammer"] == "tool"
    assert set(catalogue.trained) | set(catalogue.new) == NAMES
    assert len(catalogue.new) == 3
    assert not set(catalogue.trained) & set(catalogue.new)


def test_held_out_names_can_be_given(folder: Path) -> None:
    assert open_catalogue(str(folder), ("frog", "bus")).new == ("bus", "frog")
    with pytest.raises(AstreaError, match="no cut-out is called 'unicorn'") as error:
        open_catalogue(str(folder), ("unicorn",))
    assert "frog" in error.value.hint


def test_names_that_experts_know_are_held_out_first(folder: Path) -> None:
    assert set(open_catalogue(str(folder), 2).new) <= listed().known.keys()


def test_pictures_are_cropped_to_what_is_seen(folder: Path) -> None:
    catalogue = open_catalogue(str(folder), 0)
    picture = catalogue.picture(catalogue.of["lemon"][0])
    assert picture.mode == "RGBA"
    assert picture.size == (52, 40)  # of 60 x 48 with a surround of 4


def test_what_is_no_cut_out_is_left_out(folder: Path, tmp_path: Path) -> None:
    write_cut_outs(tmp_path)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "animals/flat.png")
    (tmp_path / "animals/flat.txt").write_text("A flat.")
    cut_out((9, 9, 9)).save(tmp_path / "animals/untold.png")
    cut_out((9, 9, 9)).save(tmp_path / "animals/joke.png")
    (tmp_path / "animals/joke.txt").write_text("Because a brain is a terrible thing to waste...")
    (tmp_path / "animals/empty.png").write_bytes(b"")
    assert set(open_catalogue(str(tmp_path), 0).of) == NAMES


def test_the_fingerprint_changes_with_pictures_and_names(tmp_path: Path) -> None:
    write_cut_outs(tmp_path)
    first = open_catalogue(str(tmp_path), 2).fingerprint
    assert open_catalogue(str(tmp_path), 2).fingerprint == first
    assert open_catalogue(str(tmp_path), 3).fingerprint != first
    cut_out((1, 2, 3), 4).save(tmp_path / "animals/frog.png")
    assert open_catalogue(str(tmp_path), 2).fingerprint != first


def test_a_damaged_cut_out_is_named(tmp_path: Path) -> None:
    write_cut_outs(tmp_path)
    path = tmp_path / "food/lemon.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(AstreaError, match=r"lemon\.png"):
        open_catalogue(str(tmp_path), 0)


def test_missing_folders_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AstreaError, match="is no folder"):
        open_catalogue(str(tmp_path / "none"), 0)
    with pytest.raises(AstreaError, match="fewer than four") as error:
        open_catalogue(str(tmp_path), 0)
    assert "caption" in error.value.hint
    monkeypatch.setattr(cutouts, "PACKAGE", tmp_path / "none")
    with pytest.raises(AstreaError, match="tuxpaint-stamps-default") as error:
        open_catalogue(None, 0)
    assert "apt-get install tuxpaint-stamps-default" in error.value.hint


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("A frog.", "frog"),
        ("A “Fuji” apple.", "fuji apple"),
        ("A chile pepper!", "chile pepper"),
        ("A peacock (a male peafowl).", "peacock"),
        ("A tomato, ripe and red.", "tomato"),
        ("Fire! Fire! Fire!", None),
        ("Two flowers.", None),
        ("A stethoscope lets your doctor listen to your heart and lungs.", None),
        ("", None),
    ],
)
def test_short_names(caption: str, name: str | None) -> None:
    assert short_name(caption) == name


def test_plurals_and_singulars() -> None:
    names = listed()
    assert [plural(name) for name in ("frog", "bus", "cherry", "toy", "tomato", "finch")] == [
        "frogs", "buses", "cherries", "toys", "tomatoes", "finches",
    ]  # fmt: skip
    assert [singular(name) for name in ("animals", "cherries", "glasses", "glass", "food")] == [
        "animal", "cherry", "glass", "glass", "food",
    ]  # fmt: skip
    assert (names.one("scissors"), names.many("scissors")) == ("a pair of scissors", "pairs of scissors")
    assert names.one("red scissors") == "a red pair of scissors"
    assert (names.one("owl"), names.many("mouse")) == ("an owl", "mice")


def test_the_list_is_consistent() -> None:
    names = listed()
    called = set(names.photographs.values())
    assert len(called) > 220
    assert names.known.keys() <= called
    assert set().union(*names.alike) <= called
    assert names.phrases.keys() <= called
    assert all(names.category(path) != "thing" for path in names.photographs)
    assert names.clash("car", "race car")
    assert not names.clash("car", "frog")


@pytest.mark.skipif(not PACKAGE.is_dir(), reason="the Debian package tuxpaint-stamps-default is not installed")
def test_the_debian_package_holds_what_the_list_says() -> None:
    catalogue = open_catalogue(None, 20)
    assert len(catalogue.cutouts) == len(listed().photographs)
    assert len(catalogue.of) > 220
    assert len(catalogue.new) == 20
    assert set(catalogue.new) <= listed().known.keys()
    assert all(min(catalogue.picture(cutout).size) > 8 for cutout in catalogue.cutouts)
