"""Making an index and keeping it true."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from albums import COUNT, NAMES, TEXT, Killed, draw, paths_of
from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.common.progress import Reporter
from astrea.retrieval import build
from astrea.retrieval.pictures import picture_vectors, read_picture
from astrea.retrieval.search import PictureIndex, index_of, search_by_text
from astrea.retrieval.store import FOLDER, MANIFEST, read_segment
from listening import Said


def test_every_picture_has_the_vector_that_the_model_gives_it(index, album, tiny_model):
    said = Said()
    done = index(album, report=said, batch=4)
    assert (done.total, done.embedded, done.known, done.skipped) == (COUNT, COUNT, 0, [])
    segment = read_segment(album / FOLDER)
    assert [entry.path for entry in segment.manifest.entries] == sorted(NAMES)
    assert segment.manifest.pictures == ".."
    assert segment.manifest.width == tiny_model.config.contrast_width
    for entry, vector in zip(segment.manifest.entries, segment.vectors_NP, strict=True):
        path = album / entry.path
        assert (entry.size, entry.sha256) == (path.stat().st_size, sha256_file(path))
        alone = picture_vectors(tiny_model, [read_picture(tiny_model, path)])
        np.testing.assert_allclose(vector, alone[0], atol=1e-5)
    assert said.notes[-1].endswith(" pictures/s")
    assert str(album) not in (album / FOLDER / MANIFEST).read_text()


def test_a_second_call_looks_at_nothing(index, album, looked):
    index(album)
    before = read_segment(album / FOLDER)
    looked.clear()
    done = index(album)
    assert looked == []
    assert (done.total, done.embedded, done.known, done.removed, done.moved) == (COUNT, 0, COUNT, 0, 0)
    assert read_segment(album / FOLDER).manifest == before.manifest


def test_only_what_is_new_or_changed_is_looked_at(index, album, looked):
    index(album)
    old = dict(zip(paths_of(album / FOLDER), read_segment(album / FOLDER).vectors_NP, strict=True))
    looked.clear()
    draw(album / "a.png", 20)
    draw(album / "new.png", 21)
    (album / "b.png").unlink()
    done = index(album)
    assert looked == [2]
    assert (done.total, done.embedded, done.known, done.removed) == (COUNT, 2, COUNT - 2, 1)
    new = dict(zip(paths_of(album / FOLDER), read_segment(album / FOLDER).vectors_NP, strict=True))
    assert set(new) == {*NAMES, "new.png"} - {"b.png"}
    assert not np.allclose(new["a.png"], old["a.png"])
    for name in set(old) & set(new) - {"a.png"}:
        np.testing.assert_array_equal(new[name], old[name])


def test_what_is_only_touched_or_moved_is_not_looked_at(index, album, looked):
    index(album)
    looked.clear()
    os.utime(album / "a.png", ns=(10**18, 10**18 + 500))
    (album / "b.png").rename(album / "moved.png")
    done = index(album)
    assert looked == []
    assert (done.known, done.moved, done.removed) == (COUNT, 1, 1)
    entries = {entry.path: entry for entry in read_segment(album / FOLDER).manifest.entries}
    assert entries["a.png"].mtime_ns == 10**18 + 500
    assert "moved.png" in entries


def test_a_change_that_size_and_time_do_not_tell_is_noticed_when_the_file_was_fresh(index, album, looked):
    path = album / "flat.bmp"
    Image.new("RGB", (64, 64), "red").save(path)
    index(album)
    status = path.stat()
    looked.clear()
    Image.new("RGB", (64, 64), "blue").save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert index(album).embedded == 1
    assert looked == [1]


def test_a_picture_that_cannot_be_read_is_told_and_the_rest_is_whole(index, album):
    (album / "c.jpg").write_bytes(b"\xff\xd8\xff")
    (album / "a.png").write_bytes(b"")
    said = Said()
    done = index(album, report=said)
    assert len(done.skipped) == len(said.lines) == 2
    assert "a.png" in said.lines[0]
    assert "c.jpg" in said.lines[1]
    assert set(paths_of(album / FOLDER)) == set(NAMES) - {"a.png"}
    draw(album / "a.png", 0)
    (album / "c.jpg").unlink()
    assert index(album).skipped == []
    assert set(paths_of(album / FOLDER)) == set(NAMES)


def test_a_picture_of_too_many_bytes_is_not_even_read(index, album, monkeypatch):
    monkeypatch.setattr(build, "MAX_FILE_BYTES", 10)
    read = []
    monkeypatch.setattr(build, "sha256_file", lambda path: read.append(path))
    done = index(album)
    assert len(done.skipped) == COUNT
    assert read == []
    assert done.total == 0


def test_a_vector_that_is_not_finite_is_left_out(index, album, monkeypatch, tiny_model):
    def spoilt(model, arrays):
        vectors = picture_vectors(model, arrays)
        vectors[1] = np.nan
        return vectors

    monkeypatch.setattr(build, "picture_vectors", spoilt)
    done = index(album)
    assert (done.total, len(done.skipped)) == (COUNT - 1, 1)
    assert "not finite" in done.skipped[0]


def test_a_folder_that_has_lost_its_pictures_gives_an_empty_index(index, album, tiny_model, tiny_processor):
    index(album)
    for name in NAMES:
        (album / name).unlink()
    assert index(album).removed == COUNT
    found = PictureIndex(album / FOLDER)
    for rerank in (0, 4):
        hits = search_by_text(tiny_model, tiny_processor, found, TEXT, top=3, rerank=rerank, report=Reporter())
        assert hits == []


@pytest.mark.parametrize("finished_before", [False, True])
def test_killed_in_the_middle_it_goes_on(index, album, monkeypatch, looked, finished_before):
    place = album / FOLDER
    if finished_before:
        for name in NAMES[2:]:
            (album / name).rename(album.parent / Path(name).name)
        index(album)
        for name in NAMES[2:]:
            (album.parent / Path(name).name).rename(album / name)
    counted = build.picture_vectors
    looked.clear()

    def killed(model, arrays):
        if len(looked) == 2:
            raise Killed
        return counted(model, arrays)

    monkeypatch.setattr(build, "picture_vectors", killed)
    with pytest.raises(Killed):
        index(album, batch=1, flush=1)
    assert looked == [1, 1]
    if finished_before:
        assert paths_of(place) == ["a.png", "b.png"]
    else:
        with pytest.raises(AstreaError, match="was not finished"):
            index_of(place)
    monkeypatch.setattr(build, "picture_vectors", counted)
    looked.clear()
    done = index(album, batch=1)
    already = 4 if finished_before else 2
    assert sum(looked) == done.embedded == COUNT - already
    assert done.known == already
    assert paths_of(place) == sorted(NAMES)
    assert sorted(path.name.split("-")[0] for path in place.iterdir()) == ["lock", "manifest.json", "vectors"]


def test_killed_between_vectors_and_manifest_the_old_index_stands(index, album, monkeypatch):
    index(album)
    before = read_segment(album / FOLDER)
    draw(album / "new.png", 21)

    def killed(path, manifest):
        raise Killed

    monkeypatch.setattr("astrea.retrieval.store.write_manifest", killed)
    with pytest.raises(Killed):
        index(album)
    after = read_segment(album / FOLDER)
    assert after.manifest == before.manifest
    np.testing.assert_array_equal(after.vectors_NP, before.vectors_NP)
    monkeypatch.undo()
    assert index(album).total == COUNT + 1
    assert len(list((album / FOLDER).glob("vectors-*"))) == 1


def test_a_damaged_part_is_told_and_not_used(index, album, monkeypatch, looked):
    with monkeypatch.context() as patch:
        patch.setattr(build, "_commit", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            index(album, batch=3, flush=3)
    parts = sorted((album / FOLDER).glob("part-*.json"))
    assert len(parts) == 2
    parts[0].write_text(parts[0].read_text()[:-40])
    looked.clear()
    said = Said()
    assert index(album, report=said).total == COUNT
    assert sum(looked) == 3
    assert any(parts[0].name in line for line in said.lines)


def test_only_one_process_at_a_time(index, album):
    index(album)
    with FileLock(album / FOLDER / "lock"), pytest.raises(AstreaError, match="another process"):
        index(album)
    assert index(album).known == COUNT
