"""What a recipe trains on: the world or one's own files, and the mistakes that are told before anything is computed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from astrea.common.errors import AstreaError
from astrea.data.feature_cache import FeatureCache
from astrea.data.protocol import TrainingData
from astrea.data.streaming import FileDataset
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.context import TrainingContext
from astrea.training.distributed import SINGLE
from astrea.training.sources import open_cache, training_data
from astrea.training.trainer import train
from astrea.world.dataset import WorldData
from listening import Said
from own_contexts import SEEING, fresh
from own_files import drawn, llava_row, save_pictures, write_jsonl

ASKED = [("is there a cat?", "no")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    paths = save_pictures(drawn(4), folder)
    write_jsonl(folder / "train.jsonl", [llava_row(f"r-{n}", [path], ASKED) for n, path in enumerate(paths)])
    write_jsonl(folder / "text.jsonl", [llava_row(f"t-{n}", [], ASKED) for n in range(9)])
    odd = [llava_row(f"o-{n}", [path], [("qwertz?", "日本 no 語")]) for n, path in enumerate(paths)]
    write_jsonl(folder / "odd.jsonl", odd)
    return folder


@pytest.fixture
def opened(make_run: Callable[..., Recipe], tmp_path: Path) -> Callable[..., tuple[TrainingData, Said]]:
    """The data of a recipe with these changes, and what was said."""

    def open_data(data: dict[str, Any], **changes: Any) -> tuple[TrainingData, Said]:
        run = make_run(data={"train_scenes": 4, **data}, experts=SEEING, **changes)
        model, tokenizer = fresh(run)
        said = Said()
        return training_data(run, model, tokenizer, SINGLE, cache=FeatureCache(tmp_path), report=said), said

    return open_data


def test_without_files_it_is_the_world_and_with_them_the_files(folder, opened):
    assert isinstance(opened({})[0], WorldData)
    data, said = opened({"train": str(folder / "train.jsonl")})
    assert isinstance(data, FileDataset)
    assert len(data) == 4
    assert said.lines == ["training on 4 records of train.jsonl"]


def test_a_mixture_with_weights_and_another_root(folder, opened, tmp_path):
    moved = tmp_path / "moved.jsonl"
    moved.write_text((folder / "train.jsonl").read_text())
    data, _ = opened({"train": [{"path": str(moved), "weight": 3}, str(folder / "text.jsonl")], "images": str(folder)})
    assert len(data) == 12 + 9
    assert data.draw(0, 21, 0).pictures == 12
    assert [source.reader.path for source in data.pictured] == [moved]


def test_words_that_the_language_model_has_not_are_told(folder, opened):
    said = opened({"train": str(folder / "odd.jsonl")})[1]
    (line,) = [line for line in said.lines if "has no word for" in line]
    assert "llm.checkpoint=FOLDER" in line
    assert not [line for line in opened({"train": str(folder / "train.jsonl")})[1].lines if "no word" in line]


def test_pictures_are_needed_to_align_and_for_nothing_else(folder, opened, make_run):
    for kind in ({}, {"align__kind": "next_token", "align__losses": {}}):
        with pytest.raises(AstreaError, match=r"no record of text.jsonl shows a picture") as caught:
            opened({"train": str(folder / "text.jsonl")}, **kind)
        assert "align.steps=0" in caught.value.hint
    data, _ = opened({"train": str(folder / "text.jsonl")}, align__steps=0)
    assert data.pictured == []
    assert list(data.scanned(0)) == ["no"] * 9


def test_text_alone_tunes_the_language_model(folder, make_run, small_overrides, tmp_path):
    own = [f"data.train={folder / 'text.jsonl'}", "align.steps=0", "fuse.steps=1", "tune.steps=2"]
    train(load_recipe(Recipe, "tiny", [*small_overrides, *own]), tmp_path / "run", report=Said())
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_a_file_that_is_not_there_is_named(folder, opened):
    with pytest.raises(AstreaError, match=r"no\.jsonl does not exist"):
        opened({"train": str(folder / "no.jsonl")})
    with pytest.raises(AstreaError, match=r"no data file is called .*\*\.tar"):
        opened({"train": str(folder / "*.tar")})
    with pytest.raises(AstreaError, match="is not a folder"):
        opened({"train": str(folder / "train.jsonl"), "images": str(folder / "nowhere")})


@pytest.mark.parametrize(("gb", "full", "stored"), [(0, False, False), (1e-6, True, False), (1.0, False, True)])
@pytest.mark.parametrize("own_data", [False, True])
def test_the_recipe_says_how_much_a_run_may_cache(folder, make_run, tmp_path, gb, full, stored, own_data):
    data = {"train_scenes": 4} | ({"train": str(folder / "train.jsonl")} if own_data else {})
    run = make_run(data=data, experts=SEEING, runtime={"feature_cache_gb": gb}, model__pretrained_llm=False)
    said, cache = Said(), tmp_path / "cache"
    if own_data:
        model, tokenizer = fresh(run)
        opened = training_data(run, model, tokenizer, SINGLE, cache=open_cache(run, cache), report=said)
        TrainingContext(run, model, tokenizer, opened).encode(opened.draw(0, len(opened), 0))
        assert cache.exists() == (gb > 0)
        if gb:
            (rows,) = sqlite3.connect(cache / "pictures.sqlite").execute("SELECT count(*) FROM seen").fetchone()
            assert (rows > 0) == stored
    else:
        (tmp_path / "run" / "train.jsonl").mkdir(parents=True)  # the run fails as soon as its first step is logged
        with pytest.raises(AstreaError, match=r"train\.jsonl"):
            train(run, tmp_path / "run", cache=cache, report=said)
        assert (cache.exists() and any(cache.iterdir())) == stored
    assert ("runtime.feature_cache_gb" in said.text) == full


def test_a_student_is_not_distilled_on_files(folder, make_run, tmp_path):
    teachers = {"detection": {"kind": "detection"}}
    distill = {"student": "student", "teachers": teachers, "steps": 1, "batch": 2, "lr": 1e-3}
    run = make_run(
        data={"train": str(folder / "train.jsonl")}, experts={"student": {"kind": "student"}}, distill=distill
    )
    with pytest.raises(AstreaError, match="distilled on the embedded world"):
        training_data(run, *fresh(run), SINGLE, cache=FeatureCache(tmp_path), report=Said())


def test_conversations_longer_than_the_language_model_reads_are_left_out(folder, opened):
    with pytest.raises(AstreaError, match="holds no good record"):
        opened({"train": str(folder / "train.jsonl"), "max_tokens": 20})
    data, said = opened({"train": [str(folder / "train.jsonl"), str(folder / "text.jsonl")], "max_tokens": 200})
    assert len(data) == 13
    assert said.lines == ["training on 13 records of train.jsonl, text.jsonl"]
