"""Searching an index."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from albums import COUNT, NAMES, TEXT, draw, entry
from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.common.progress import Reporter
from astrea.retrieval import folder, rank_folder
from astrea.retrieval.manifest import Manifest
from astrea.retrieval.search import PictureIndex, changed_since, search_by_picture, search_by_text
from astrea.retrieval.store import FOLDER, MANIFEST
from listening import Said


def test_results_are_those_of_brute_force(tmp_path, index, album):
    """On random vectors, ties and all, in the form of an index."""
    out = tmp_path / "index"
    index(album, out)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 64), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    manifest = json.loads((out / MANIFEST).read_text())
    path = out / manifest["vectors"]["file"]
    save_file({"vectors": vectors}, path)
    manifest |= {"count": 500, "width": 64, "entries": [entry(f"{i}.png") for i in range(500)]}
    manifest["vectors"]["sha256"] = sha256_file(path)
    (out / MANIFEST).write_text(json.dumps(manifest))
    found = PictureIndex(out)
    queries = rng.standard_normal((7, 64), dtype=np.float32)
    cosines, rows = found.nearest(queries, 20)
    truth = queries @ vectors.T
    np.testing.assert_array_equal(rows, np.argsort(-truth, axis=1)[:, :20])
    np.testing.assert_allclose(cosines, -np.sort(-truth, axis=1)[:, :20], atol=1e-4)
    assert found.nearest(queries, 1000)[1].shape == (7, 500)


@pytest.mark.parametrize("rerank", [0, 3, 32])
def test_with_an_index_the_answer_is_that_without(index, album, tiny_model, tiny_processor, rerank):
    index(album)
    hits = search_by_text(
        tiny_model, tiny_processor, PictureIndex(album / FOLDER), TEXT, top=2, rerank=rerank, report=Reporter()
    )
    plain = rank_folder(tiny_model, tiny_processor, album, TEXT, top=2, report=Reporter(), shortlist=rerank)
    assert [hit.path.resolve() for hit in hits] == [hit.path.resolve() for hit in plain]
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in plain], abs=1e-4)
    assert len(hits) == 2


def test_a_picture_finds_itself_first(index, album, tiny_model):
    index(album)
    for name in NAMES:
        hits = search_by_picture(tiny_model, PictureIndex(album / FOLDER), album / name, top=3)
        assert hits[0].path.samefile(album / name)
        assert hits[0].score == pytest.approx(1, abs=1e-4)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_pictures_that_are_gone_are_told(index, album, tiny_model, tiny_processor):
    index(album)
    found = PictureIndex(album / FOLDER)
    assert changed_since(found) == 0
    (album / "a.png").unlink()
    draw(album / "b.png", 30)
    draw(album / "g.png", 31)
    assert changed_since(found) == 3
    said = Said()
    hits = search_by_text(tiny_model, tiny_processor, found, TEXT, top=COUNT, report=said)
    assert len(hits) == COUNT - 1
    assert "a.png" in said.lines[0]
    for name in NAMES[1:]:
        (album / name).unlink()
    with pytest.raises(AstreaError, match="none of the pictures"):
        search_by_text(tiny_model, tiny_processor, found, TEXT, top=COUNT, report=said)


def test_pictures_and_index_can_be_moved_together(index, album, tmp_path):
    index(album, tmp_path / "index")
    (tmp_path / "elsewhere").mkdir()
    shutil.move(album, tmp_path / "elsewhere")
    shutil.move(tmp_path / "index", tmp_path / "elsewhere")
    found = PictureIndex(tmp_path / "elsewhere" / "index")
    assert changed_since(found) == 0
    assert all(found.path(row).is_file() for row in range(COUNT))


def test_a_large_folder_is_told_of_the_index(album, tiny_model, tiny_processor, monkeypatch):
    said = Said()
    rank_folder(tiny_model, tiny_processor, album, TEXT, top=1, report=said)
    assert said.lines == []
    monkeypatch.setattr(folder, "MANY", COUNT)
    rank_folder(tiny_model, tiny_processor, album, TEXT, top=1, report=said)
    assert "astrea index" in said.lines[0]


def test_the_manifest_is_json_that_says_what_it_is(index, album):
    index(album)
    said = json.loads((album / FOLDER / MANIFEST).read_text())
    assert Manifest.model_validate_json(json.dumps(said)).count == COUNT
    assert said["format"] == "astrea-index-1"
    assert said["model"]["name"] == "tiny"
