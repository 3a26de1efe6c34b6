from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.numpy import load_file, save_file

from astrea import AstreaForConditionalGeneration, cli
from astrea.errors import AstreaError
from astrea.files import sha256_file
from astrea.progress import Reporter
from astrea.retrieval import build, extra, folder, rank_folder
from astrea.retrieval.build import build_index
from astrea.retrieval.manifest import Manifest
from astrea.retrieval.pictures import picture_vectors, square_picture
from astrea.retrieval.search import PictureIndex, changed_since, index_of, search_by_picture, search_by_text
from astrea.retrieval.store import FOLDER, MANIFEST, clean, read_segment
from astrea.scenes.draw import split_scene
from benchmark_scripts import benchmark_script

COUNT = 6
TEXT = "a red sun and a blue cow."
NAMES = ["a.png", "b.png", "below/c.png", "below/d.PNG", "é.png", "f.webp"]


class Said(Reporter):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def track(self, label: str, done: int, total: int, note: str = "") -> None:
        self.notes.append(note)


class Killed(BaseException):
    """Like a kill: nothing of ours catches it."""


def draw(path: Path, number: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(split_scene("test", number, 0).image).save(path, lossless=True)
    # A time that is long past, so that size and time alone tell whether the file has changed.
    os.utime(path, ns=(10**18, 10**18 + number))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    album = tmp_path_factory.mktemp("drawn")
    for number, name in enumerate(NAMES):
        draw(album / name, number)
    (album / "notes.txt").write_text("no picture")
    return album


@pytest.fixture
def album(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "album"))


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the model looked at, batch by batch."""
    batches: list[int] = []

    def counting(model, arrays):
        batches.append(len(arrays))
        return picture_vectors(model, arrays)

    monkeypatch.setattr(build, "picture_vectors", counting)
    return batches


@pytest.fixture
def index(tiny_model):
    def index(album: Path, out: Path | None = None, *, model=tiny_model, report: Reporter | None = None, **options):
        return build_index(model, "tiny", album, out or album / FOLDER, report=report or Reporter(), **options)

    return index


def other_model(model: AstreaForConditionalGeneration) -> AstreaForConditionalGeneration:
    other = AstreaForConditionalGeneration(model.config).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        next(other.alignment.picture_head.parameters()).add_(0.1)
    return other


def paths_of(place: Path) -> list[str]:
    return [entry.path for entry in read_segment(place).manifest.entries]


# Making and keeping


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
        alone = picture_vectors(tiny_model, [square_picture(path, tiny_model.config.image_size)])
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


# What is refused


def test_another_models_index_is_refused_and_can_be_replaced(index, album, tiny_model, tiny_processor):
    other = other_model(tiny_model)
    index(album)
    before = read_segment(album / FOLDER)
    with pytest.raises(AstreaError, match="index of another model") as caught:
        index(album, model=other)
    assert "--rebuild" in caught.value.mend
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


def entry(path: str) -> dict:
    return {"path": path, "size": 1, "mtime_ns": 1, "sha256": "0" * 64}


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
        assert "--rebuild" in caught.value.mend
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


@pytest.mark.parametrize("library", ["faiss", "filelock"])
def test_a_missing_library_is_told_before_any_work(index, album, monkeypatch, looked, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(AstreaError, match=library) as caught:
        index(album)
    assert 'pip install "astrea[index]"' in caught.value.mend
    assert looked == []
    assert extra.index_library("json") is json


# Searching


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


# The command line


@pytest.fixture
def astrea(capfd, monkeypatch):
    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["astrea", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return int(ended.value.code or 0), out, err

    return run


def test_index_and_retrieve(astrea, album, tiny_folder, tmp_path):
    out = tmp_path / "index [of] pictures"
    code, said, _ = astrea("index", tiny_folder, album, "--out", out)
    assert code == 0
    assert "6 pictures: 6 looked at, 0 known already" in said
    assert str(out) in said
    assert "0 looked at, 6 known" in astrea("index", tiny_folder, album, "--out", out)[1]
    code, said, _ = astrea("retrieve", tiny_folder, out, TEXT, "--top", 3, "--json")
    assert code == 0
    hits = json.loads(said)
    assert len(hits) == 3
    assert all(Path(hit["image"]).is_file() for hit in hits)
    plain = json.loads(astrea("retrieve", tiny_folder, album, TEXT, "--top", 3, "--json")[1])
    assert [Path(hit["image"]).name for hit in plain] == [Path(hit["image"]).name for hit in hits]
    code, said, _ = astrea("retrieve", tiny_folder, out, "--image", album / "a.png", "--top", 1)
    assert code == 0
    score, path = said.split(maxsplit=1)
    assert (float(score), Path(path.strip()).name) == (1.0, "a.png")
    cosines = json.loads(astrea("retrieve", tiny_folder, out, TEXT, "--rerank", 0, "--json")[1])
    assert all(-1 <= hit["score"] <= 1 for hit in cosines)


def test_an_index_within_the_folder_is_found(astrea, album, tiny_folder):
    assert astrea("index", tiny_folder, album)[0] == 0
    code, _, err = astrea("retrieve", tiny_folder, album, TEXT, "--json")
    assert code == 0
    assert "looking again" in err
    assert "changed" not in err
    (album / "a.png").unlink()
    assert "1 pictures have changed" in astrea("retrieve", tiny_folder, album, TEXT, "--rerank", 0, "--json")[2]


def test_left_out_pictures_give_status_1(astrea, album, tiny_folder):
    (album / "c.jpg").write_bytes(b"\xff\xd8\xff")
    code, said, err = astrea("index", tiny_folder, album)
    assert code == 1
    assert "6 pictures" in said
    assert "1 left out" in said
    assert "left out: image" in err
    assert len(paths_of(album / FOLDER)) == COUNT


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["retrieve"], 2, "Missing argument 'FOLDER'"),
        (["retrieve", "MODEL", "ALBUM"], 2, "TEXT"),
        (["retrieve", "--image", "ALBUM/a.png"], 2, "Missing argument 'FOLDER'"),
        (["retrieve", "MODEL", "ALBUM", "a sun", "--image", "ALBUM/a.png"], 2, "not both"),
        (["retrieve", "MODEL", "ALBUM", "--image", "ALBUM/a.png"], 1, "astrea index"),
        (["retrieve", "MODEL", "ALBUM", "a sun", "--rerank", "-1"], 2, "--rerank"),
        (["index"], 2, "Missing argument"),
        (["index", "MODEL"], 2, "Missing argument 'FOLDER'"),
        (["index", "MODEL", "ALBUM/none"], 1, "is not a folder"),
        (["index", "MODEL", "ALBUM", "--out", "ALBUM/a.png"], 1, "is a file"),
    ],
)
def test_misuse(astrea, album, tiny_folder, words, code, said):
    words = [word.replace("ALBUM", str(album)).replace("MODEL", str(tiny_folder)) for word in words]
    found = astrea(*words)
    assert found[0] == code
    assert said in found[1] + found[2]


# The benchmark


def test_the_benchmark_measures_everything_and_writes_it(tmp_path, capsys):
    benchmark = benchmark_script("retrieval_index")
    out = tmp_path / "results" / "index.json"
    options = ["--vectors", "600", "--widths", "8", "16", "--queries", "20", "--batch", "5", "--top", "4"]
    returned = benchmark.main([*options, "--repeats", "6", "--out", str(out)])
    assert json.loads(out.read_text()) == returned
    assert [part["width"] for part in returned["widths"]] == [8, 16]
    for part in returned["widths"]:
        assert part["exact"]["serialized_bytes"] > 600 * part["width"] * 4
        for row in (part["exact"], *part["hnsw"]):
            assert 0 < row["one_query_ms"]["p50"] <= row["one_query_ms"]["p99"] <= row["one_query_ms"]["max"]
            assert row["batch_of_5_ms"]["p50"] > 0
        # Among so few vectors a graph finds nearly all.
        assert all(row["recall"]["near"]["nearest"] > 0.9 for row in part["hnsw"])
    assert "recall" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        benchmark.main(["--vectors", "0"])
