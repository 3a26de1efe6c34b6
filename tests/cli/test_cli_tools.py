"""`astrea retrieve`, `evaluate` and `scenes`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from astrea.common.terminal import counted
from astrea.data.feature_cache import FeatureCache
from astrea.world.scenes.draw import split_scene
from command_line import Astrea, refused
from cut_out_folder import write_cut_outs


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("album [of] " + "a long name " * 8)
    for index in range(4):
        Image.fromarray(split_scene("test", index, 0).image).save(folder / f"{index}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def test_retrieve(astrea: Astrea, tiny_folder: Path, album: Path):
    result = astrea("retrieve", tiny_folder, album, "a red sun.", "--top", 3, "--json")
    assert result.code == 0
    hits = json.loads(result.out)
    assert [hit.keys() for hit in hits] == [{"image", "score", "doubts"}] * 3
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert all(Path(hit["image"]).is_file() for hit in hits)
    assert "left out: image" in result.err
    plain = astrea("retrieve", tiny_folder, album, "a red sun.", "--top", 3)
    lines = [line.split(maxsplit=1) for line in plain.out.splitlines()]
    assert [words[1:] for words in lines] == [[hit["image"]] for hit in hits], repr(plain.out)


@pytest.mark.parametrize(
    ("text", "said"), [("", "text is empty"), ("a" * 100_000, "100,000 characters"), ("an <image>", "<image>")]
)
def test_retrieve_with_a_bad_text(astrea, tiny_folder, album, text, said):
    refused(astrea("retrieve", tiny_folder, album, text), said)


def test_retrieve_from_nowhere(astrea, tiny_folder, tmp_path):
    refused(astrea("retrieve", tiny_folder, tmp_path / "none", "a sun"), tmp_path / "none")
    result = astrea("retrieve", tiny_folder, tmp_path, "a sun")
    refused(result, tmp_path, "no readable picture")


# evaluate

FEW = ("data.test_questions=4", "data.test_captions=4", "data.test_retrieval_groups=2")


def test_evaluate_some_tasks(astrea, tiny_folder, few_scenes):
    result = astrea("evaluate", tiny_folder, "--tasks", "counting, retrieval_i2t", "--json", *FEW)
    assert result.code == 0, result.err
    results = json.loads(result.out)
    assert set(results["tasks"]) == {"counting", "retrieval_i2t"}
    assert results["masking"] == {}
    # Four questions do not come in all five conditions; what was not measured is null, which is JSON, unlike NaN.
    assert None in results["conditions"].values()
    plain = astrea("evaluate", tiny_folder, "--tasks", "counting", "--split", "validation", *FEW)
    assert plain.code == 0
    assert "counting" in plain.out
    assert "average" in plain.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "counting,sums"], "unknown task 'sums'"),
        (["--tasks", ""], "unknown task ''"),
        (["--split", "train"], "unknown split 'train'"),
        (["--recipe", "tyny"], "Did you mean 'tiny'?"),
        (["data.test_question=3"], "Did you mean 'data.test_questions'?"),
    ],
)
def test_evaluate_with_bad_options(astrea, tiny_folder, arguments, said):
    refused(astrea("evaluate", tiny_folder, *arguments), said)


# scenes


@pytest.mark.parametrize("split", ["train", "novel"])
def test_scenes(astrea, tmp_path, split):
    path = tmp_path / "sheet.png"
    result = astrea("scenes", "--show", path, "--count", 3, "--split", split)
    assert result.code == 0
    assert str(path) in result.out
    with Image.open(path) as sheet:
        assert min(sheet.size) >= 64


def test_scenes_of_photographs(astrea: Astrea, tmp_path: Path):
    cut_outs = write_cut_outs(tmp_path / "cut-outs")
    common = ("scenes", "--world", "photographs", "--cut-outs", cut_outs, "--canvas", 96, "--count", 3)
    result = astrea(*common, "--show", tmp_path / "sheet.png", "--out", tmp_path / "pictures", "--split", "new")
    assert result.code == 0, result.err
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 96
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "000.png", "001.png", "002.png", "questions.jsonl",
    ]  # fmt: skip
    assert astrea("validate", tmp_path / "pictures/questions.jsonl").code == 0
    refused(astrea(*common, "--split", "dev"), "unknown split 'dev'", "new")
    refused(astrea("scenes", "--world", "photographs", "--cut-outs", tmp_path / "none"), "none is no folder")
    refused(astrea(*common, "--difficulty", 0.2), "difficulty is of the drawn world")
    refused(astrea("scenes", "--cut-outs", cut_outs), "'folder' is no setting of the drawn world")


def test_scenes_that_cannot_be_drawn_or_written(astrea, tmp_path):
    refused(astrea("scenes", "--split", "dev", "--show", tmp_path / "a.png"), "unknown split 'dev'")
    refused(astrea("scenes", "--count", 1, "--show", tmp_path / "no" / "a.png"), tmp_path / "no" / "a.png")
    refused(astrea("scenes", "--count", 1, "--show", tmp_path / "a.xyz"), tmp_path / "a.xyz", ".png")


# What is said of a slip


def test_an_index_of_no_folder_and_without_its_library(astrea: Astrea, album: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    # The folder first: whoever installs the library for it would find it missing next.
    refused(astrea("index", tmp_path / "none"), "none is not a folder")
    monkeypatch.setattr(
        "astrea.cli.actions.retrieve.load_model", lambda *_, **__: pytest.fail("a model was loaded before")
    )
    refused(astrea("index", album), "an index needs the library faiss", "[index]")


def test_text_and_picture_at_once(astrea: Astrea, album: Path):
    result = astrea("retrieve", album, "red", "--image", album / "0.png")
    assert result.code == 2
    assert "Give TEXT or --image, not both" in result.err


def test_a_device_that_there_is_not(astrea: Astrea):
    result = astrea("ask", "example", "what is it?", "--device", "gpu")
    assert result.code == 2
    assert "'gpu' is none of auto, cpu, cuda" in result.err
    assert "Value error" not in result.err


def test_one_of_a_thing_is_no_plural():
    assert [counted(n, "picture") for n in (0, 1, 2, 1200)] == [
        "0 pictures",
        "1 picture",
        "2 pictures",
        "1,200 pictures",
    ]
    assert counted(1, "picture has", "pictures have") == "1 picture has"


def test_an_index_of_one_picture(astrea: Astrea, tiny_folder: Path, tmp_path: Path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    result = astrea("index", tiny_folder, tmp_path)
    assert result.code == 0, result.err
    assert result.out.startswith("1 picture: 1 encoded")


# The cache


def test_the_cache_is_listed_and_pruned(astrea: Astrea, tmp_path: Path):
    cache = FeatureCache(tmp_path / "cache")
    for number in range(3):
        cache.get_or_compute({"number": number}, lambda: {"tokens": torch.zeros(1000)})
    listed = json.loads(astrea("cache", "list", cache.folder, "--json").out)
    assert len(listed) == 3
    assert all(row["bytes"] > 4000 and row["used"] > 0 for row in listed)
    assert astrea("cache", "list", cache.folder).out.splitlines()[-1] == "3 entries, 0.0 MB"
    limit = (sum(row["bytes"] for row in listed) - 1) / 1e9
    assert "2 entries of 0.0 MB left" in astrea("cache", "prune", cache.folder, "--max-gb", limit).out
    assert {row["name"] for row in json.loads(astrea("cache", "list", cache.folder, "--json").out)} == {
        row["name"]
        for row in listed[:2]  # the one used longest ago is gone
    }
    assert "0 entries" in astrea("cache", "prune", cache.folder, "--max-gb", 0).out
    refused(astrea("cache", "list", tmp_path / "none"), "none is not a folder")
