"""Folders that are kept in a cache appear whole, and are checked when they are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from astrea.common.errors import AstreaError
from astrea.common.kept_folders import RECORD, entry_of, kept_folder
from astrea.data.feature_cache import FeatureCache

KEY = {"what": "a folder of the test", "number": 1}


class Maker:
    """Writes two files, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, folder: Path) -> None:
        self.times += 1
        folder.mkdir()
        (folder / "a.txt").write_text("first")
        (folder / "b.bin").write_bytes(bytes(1000))


def test_a_folder_is_made_once(tmp_path):
    make = Maker()
    first = kept_folder(tmp_path / "cache", KEY, make, on_event=pytest.fail)
    assert kept_folder(tmp_path / "cache", KEY, make, on_event=pytest.fail) == first
    assert make.times == 1
    assert {path.name for path in first.iterdir()} == {"a.txt", "b.bin", RECORD}
    other = kept_folder(tmp_path / "cache", {**KEY, "number": 2}, make, on_event=pytest.fail)
    assert other != first
    assert make.times == 2
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "a.txt").write_text("other"),
        lambda folder: (folder / "a.txt").unlink(),
        lambda folder: (folder / "more.py").write_text("print()"),
        lambda folder: (folder / RECORD).write_text("{}"),
        lambda folder: (folder / RECORD).unlink(),
    ],
    ids=["changed", "missing", "more", "record", "no_record"],
)
def test_what_is_damaged_is_made_again(tmp_path, damage):
    make, said = Maker(), []
    damage(kept_folder(tmp_path, KEY, make, on_event=pytest.fail))
    folder = kept_folder(tmp_path, KEY, make, on_event=said.append)
    assert make.times == 2
    assert len(said) == 1
    assert (folder / "a.txt").read_text() == "first"
    kept_folder(tmp_path, KEY, make, on_event=pytest.fail)


def test_a_folder_that_fails_half_way_leaves_nothing(tmp_path):
    def fails(folder: Path) -> None:
        folder.mkdir()
        (folder / "a.txt").write_text("half")
        raise AstreaError("half way", "try again")

    with pytest.raises(AstreaError, match="half way"):
        kept_folder(tmp_path, KEY, fails, on_event=pytest.fail)
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_made_meanwhile_is_replaced_by_the_same(tmp_path):
    def make(folder: Path) -> None:
        kept_folder(tmp_path, KEY, Maker(), on_event=pytest.fail)
        Maker()(folder)

    assert (kept_folder(tmp_path, KEY, make, on_event=pytest.fail) / "a.txt").read_text() == "first"


def test_folders_are_listed_and_pruned_with_the_features(tmp_path):
    kept_folder(tmp_path, KEY, Maker(), on_event=pytest.fail)
    cache = FeatureCache(tmp_path)
    (entry,) = cache.entries()
    assert entry.what == "a folder of the test"
    assert entry.size > 1005
    assert cache.prune(entry.size) == 0
    assert cache.prune(0) == entry.size
    assert not entry_of(tmp_path, KEY).exists()
    assert cache.entries() == []


def test_a_cache_that_is_a_file_is_told(tmp_path):
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(AstreaError, match="cache"):
        kept_folder(tmp_path / "cache", KEY, Maker(), on_event=pytest.fail)
