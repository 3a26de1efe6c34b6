"""What is no index, or not the one for this."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from albums import COUNT, TEXT, entry, other_model
from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.common.progress import Reporter
from astrea.retrieval.search import PictureIndex, search_by_picture, search_by_text
from astrea.retrieval.store import FOLDER, MANIFEST, clean, read_segment


def test_another_models_index_is_refused_and_can_be_replaced(index, album, tiny_model, tiny_processor):
    other = other_model(tiny_model)
    index(album)
    before = read_segment(album / FOLDER)
    with pytest.raises(AstreaError, match="index of another model") as caught:
        index(album, model=other)
    assert "--rebuild" in caught.value.hint
    found = PictureIndex(album / FOLDER)
    with pytest.raises(AstreaError, match="index of another model"):
        search_by_text(other, tiny_processor, found, TEXT, top=1, report=Reporter())
    with pytest.raises(AstreaError, match="index of another model"):
        search_by_picture(other, found, album / "a.png", top=1)
    assert index(album, model=other, rebuild=True).embedded == COUNT
    after = read_segment(album / FOLDER)
    assert after.manifest.model != before.manifest.model
    assert not np.allclose(after.vectors_NP, before.vectors_NP)


def test_another_folders_index_is_refused(index, album, tmp_path):
    out = tmp_path / "index"
    index(album, out)
    other = shutil.copytree(album, tmp_path / "other")
    with pytest.raises(AstreaError, match="index of the pictures in"):
        index(other, out)
    assert index(other, out, rebuild=True).total == COUNT
    assert PictureIndex(out).pictures == other


def test_a_folder_of_other_things_is_not_written_into(index, album, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(AstreaError, match="holds other files"):
        index(album, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    with pytest.raises(AstreaError, match="is a file"):
        index(album, tmp_path / "mine" / "letter.txt")
    with pytest.raises(AstreaError, match="is not a folder"):
        index(tmp_path / "none", tmp_path / "index")


def test_cleaning_leaves_what_is_not_ours(tmp_path):
    for name in ("manifest.json", "lock", f"vectors-{'0' * 16}.safetensors", f"vectors-{'1' * 16}.safetensors",
                 "part-000001.json", "vectors-mine.safetensors", "part-x.json", "letter.txt"):  # fmt: skip
        (tmp_path / name).write_text("")
    (tmp_path / ".vectors-new.safetensors.x1.tmp").mkdir()
    (tmp_path / ".vectors-new.safetensors.x1.tmp" / "half").write_text("")
    clean(tmp_path, [f"vectors-{'1' * 16}.safetensors"])
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"manifest.json", "lock", f"vectors-{'1' * 16}.safetensors", "vectors-mine.safetensors",
                    "part-x.json", "letter.txt"}  # fmt: skip


@pytest.mark.parametrize(
    "spoil",
    [
        lambda said: said | {"format": "astrea-index-2"},
        lambda said: said | {"count": said["count"] + 1},
        lambda said: said | {"more": 1},
        lambda said: said | {"width": 0},
        lambda said: said | {"width": "64"},
        lambda said: said | {"vectors": said["vectors"] | {"file": "../../secret.safetensors"}},
        lambda said: said | {"vectors": None},
        lambda said: said | {"entries": [entry("../x.png"), *said["entries"][1:]]},
        lambda said: said | {"entries": [entry("/etc/x.png"), *said["entries"][1:]]},
        lambda said: said | {"entries": [entry("a\0.png"), *said["entries"][1:]]},
        lambda said: said | {"entries": [said["entries"][1], *said["entries"][1:]]},
        lambda said: {key: said[key] for key in said if key != "model"},
    ],
)
def test_a_damaged_manifest_is_refused(index, album, tmp_path, spoil):
    out = tmp_path / "index"
    index(album, out)
    path = out / MANIFEST
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    for work in (lambda: PictureIndex(out), lambda: index(album, out)):
        with pytest.raises(AstreaError, match="is damaged or of another version") as caught:
            work()
        assert "--rebuild" in caught.value.hint
    assert index(album, out, rebuild=True).total == COUNT
    assert PictureIndex(out).manifest.count == COUNT


def rewrite(out: Path, change) -> None:
    """Other vectors, with a manifest that fits them."""
    manifest = json.loads((out / MANIFEST).read_text())
    path = out / manifest["vectors"]["file"]
    save_file({"vectors": change(load_file(path)["vectors"])}, path)
    manifest["vectors"]["sha256"] = sha256_file(path)
    (out / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda out: next(out.glob("vectors-*")).unlink(), "is missing"),
        (lambda out: next(out.glob("vectors-*")).write_bytes(b"x" * 100), "is not the file"),
        (lambda out: (out / MANIFEST).write_text("{"), "is damaged"),
        (lambda out: (out / MANIFEST).write_bytes(b"\xff\xfe"), "is damaged"),
        (lambda out: rewrite(out, lambda v: v[:-1]), "holds no 6 float32"),
        (lambda out: rewrite(out, lambda v: v.astype(np.float64)), "holds no 6 float32"),
        (lambda out: rewrite(out, lambda v: v * np.inf), "not of length 1"),
        (lambda out: rewrite(out, lambda v: v * 3), "not of length 1"),
    ],
)
def test_damaged_files_are_named(index, album, tmp_path, spoil, said):
    out = tmp_path / "index"
    index(album, out)
    spoil(out)
    with pytest.raises(AstreaError, match=said) as caught:
        PictureIndex(out)
    assert str(out) in caught.value.message


def test_a_manifest_is_not_read_beyond_its_limit(index, album, monkeypatch):
    index(album)
    monkeypatch.setattr("astrea.retrieval.manifest.MAX_BYTES", 100)
    with pytest.raises(AstreaError, match="at most 100 are read"):
        PictureIndex(album / FOLDER)


def test_a_missing_library_is_told_before_any_work(index, album, monkeypatch, looked):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(AstreaError, match="faiss") as caught:
        index(album)
    assert '[index]"' in caught.value.hint
    assert looked == []
