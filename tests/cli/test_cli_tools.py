"""`astrea retrieve`, `evaluate` and `scenes`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from astrea.scenes.draw import split_scene
from command_line import Astrea, refused


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
    assert [hit.keys() for hit in hits] == [{"image", "score"}] * 3
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert all(Path(hit["image"]).is_file() for hit in hits)
    assert "left out: image" in result.err
    plain = astrea("retrieve", tiny_folder, album, "a red sun.", "--top", 3)
    assert [line.split(maxsplit=1)[1] for line in plain.out.splitlines()] == [hit["image"] for hit in hits]


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


def test_scenes_that_cannot_be_drawn_or_written(astrea, tmp_path):
    refused(astrea("scenes", "--split", "dev", "--show", tmp_path / "a.png"), "unknown split 'dev'")
    refused(astrea("scenes", "--count", 1, "--show", tmp_path / "no" / "a.png"), tmp_path / "no" / "a.png")
    refused(astrea("scenes", "--count", 1, "--show", tmp_path / "a.xyz"), tmp_path / "a.xyz", ".png")
