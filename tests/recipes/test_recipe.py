"""The configuration tree and the shipped recipe."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from astrea.common.errors import AstreaError
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import Contrast, ExpertEntry, LanguageModel, Losses, PretrainPart, Recipe, Schedule, World
from astrea.world.experts.compact import COMPACT
from astrea.world.scenes.draw import split_scene

SMALL = """
name: small
experts:
  detection: {kind: detection}
align: {train: [adapters], losses: {word: 1.0}, steps: 3, lr: 1e-3}
fuse: {train: [fusion], losses: {lm: 1.0}, steps: 3, lr: 1e-3}
tune: {train: [language_model], losses: {lm: 1.0}, steps: 3, lr: 1e-3}
"""


def test_the_tiny_recipe():
    recipe = load_recipe(Recipe, "tiny")
    assert recipe.name == "tiny"
    assert list(recipe.experts) == list(COMPACT) == [entry.kind for entry in recipe.experts.values()]
    assert recipe.llm == LanguageModel()
    assert recipe.tune.train == ("adapters", "heads", "fusion", "language_model")
    assert recipe.pretrain == "shipped"
    assert recipe.align.progressive


def test_a_recipe_written_out_is_the_same(tmp_path):
    recipe = load_recipe(Recipe, "tiny", ["fuse.steps=7"])
    path = tmp_path / "again.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(Recipe, str(path)) == recipe


def test_overrides():
    recipe = load_recipe(Recipe, "tiny", ["seed=3", "model.mixer=false", "contrast.queue=0", "data.train_scenes=50"])
    assert (recipe.seed, recipe.model.mixer, recipe.contrast.queue, recipe.data.train_scenes) == (3, False, 0, 50)


@pytest.mark.parametrize(
    ("wrong", "right", "line"),
    [
        ("contrast: {momentun: 0.9}", "momentum", 8),
        ("regularisation:\n  expert_dropuot: 0.1", "expert_dropout", 9),
        ("modle: {mixer: false}", "model", 8),
        ("pretraining:\n  expert: {steps: 1, batch: 1, lr: 1, warmpu: 2}", "warmup", 9),
    ],
)
def test_an_unknown_key_names_file_line_and_the_nearest_key(tmp_path, wrong, right, line):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL + wrong + "\n")
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, str(path))
    assert f"{path}, line {line}:" in caught.value.message
    assert f"'{right}'" in caught.value.hint or right in caught.value.hint
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, "tiny", ["fuse.stepz=3"])
    assert "fuse.stepz" in caught.value.message
    assert "steps" in caught.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        "contrast.momentum=1.0", "contrast.temperature=0", "regularisation.expert_dropout=1.0", "model.strategy=moe",
        "world.canvas=40", "world.canvas=65", "world.max_objects=9", "data.questions_per_scene=0", "fuse.lr=0",
        "fuse.steps=-1", "fuse.batch=0", "model.residual_end=1.5", "model.gate_tau=0", "align.losses.word=-1",
        "fuse.train=[eyes]", "experts.detection.colour=red", "seed=1.5", "threads=0",
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, "tiny", [wrong])
    assert wrong.partition("=")[0] in caught.value.message


@pytest.mark.parametrize("canvas", [48, 56, 512])
def test_every_canvas_that_is_let_through_can_be_drawn(canvas):
    world = World(canvas=canvas)
    assert split_scene("train", 0, 0, canvas=world.canvas).image.shape == (canvas, canvas, 3)


def test_it_is_frozen():
    with pytest.raises(ValidationError):
        Contrast().queue = 3
    with pytest.raises(ValidationError):
        Contrast(kew=3)


def test_schedules():
    recipe = load_recipe(Recipe, "tiny", ["fuse.accumulate=2", "fuse.steps=8", "fuse.warmup=2", "fuse.final=0.2"])
    assert isinstance(recipe.fuse, Schedule)
    assert recipe.fuse.lr_at(0) == recipe.fuse.lr / 2
    assert recipe.fuse.lr_at(8) == pytest.approx(recipe.fuse.lr * 0.2)
    assert recipe.fuse.lasting(7) == recipe.fuse.model_copy(update={"steps": 7})
    assert recipe.fuse.lasting(0).steps == 0
    part = PretrainPart(steps=5, batch=6, lr=0.1, warmup=2, weight_decay=0.5)
    schedule = part.schedule()
    assert (schedule.steps, schedule.batch, schedule.lr, schedule.warmup, schedule.weight_decay) == (5, 6, 0.1, 2, 0.5)


@pytest.mark.parametrize("stage", ["fuse", "tune"])
@pytest.mark.parametrize("key", ["kind=next_token", "progressive=false"])
def test_what_only_align_reads_is_no_key_of_other_stages(stage, key):
    assert load_recipe(Recipe, "tiny", [f"align.{key}", "align.losses={}"])
    with pytest.raises(AstreaError, match=f"'{stage}.{key.split('=')[0]}' is not a known key"):
        load_recipe(Recipe, "tiny", [f"{stage}.{key}"])


@pytest.mark.parametrize("loss", Losses.model_fields)
@pytest.mark.parametrize("stage", ["align", "fuse", "tune"])
def test_a_loss_is_read_by_a_stage_or_refused(stage, loss):
    of = {"word": "align", "caption_words": "align fuse tune", "agree": "align", "itc": "align fuse tune"}
    if stage in of.get(loss, "fuse tune").split():
        assert getattr(load_recipe(Recipe, "tiny", [f"{stage}.losses.{loss}=0.5"]), stage).losses.weights[loss] == 0.5
    else:
        with pytest.raises(AstreaError, match=f"'{stage}.losses.{loss}': no loss of this stage"):
            load_recipe(Recipe, "tiny", [f"{stage}.losses.{loss}=0.5"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["align.kind=next_token"], r"losses\.word is not read"),
        (["align.kind=next_token", "align.losses={}", "align.progressive=false"], "one expert after another"),
        (["align.train=[experts]"], "experts are aligned as they are"),
    ],
)
def test_what_align_would_not_read_is_refused(words, said):
    with pytest.raises(AstreaError, match=said):
        load_recipe(Recipe, "tiny", words)


# Architectures


def test_what_has_no_architecture_is_written_as_before_there_were_any():
    assert ExpertEntry(kind="detection").model_dump() == {"kind": "detection", "options": {}}
    assert "architecture" not in LanguageModel().model_dump()
    assert LanguageModel().model_dump()["checkpoint"] is None
    assert "architecture" not in load_recipe(Recipe, "tiny").model_dump_json()


def test_an_architecture_is_written_and_read_back(tmp_path):
    words = ["llm.architecture={model_type: llama}", "llm.dtype=bfloat16"]
    recipe = load_recipe(Recipe, "tiny", [*words, "experts.eye={kind: detection, architecture: {model_type: yolos}}"])
    assert not recipe.llm.tiny
    path = tmp_path / "again.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(Recipe, str(path)) == recipe


@pytest.mark.parametrize("words", [["llm.dtype=bfloat16"], [f"llm.revision={'a' * 40}"]])
def test_what_belongs_to_a_checkpoint_needs_one(words):
    with pytest.raises(AstreaError, match="name one"):
        load_recipe(Recipe, "tiny", words)
    assert load_recipe(Recipe, "tiny", [*words, "llm.checkpoint=x/y"]).llm.checkpoint == "x/y"


@pytest.mark.parametrize("key", ["pretrain", "start", "base"])
@pytest.mark.parametrize("url", ["https://example.org/parts//x", "s3://bucket/parts"])
def test_a_url_in_a_recipe_is_refused_as_it_was_typed(key, url, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"{'' if key == 'base' else 'base: tiny'}\n{key}: {url}\n")
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, str(path))
    assert f"{path}, line 2: '{key}': {url} is a URL, and URLs are not fetched" in caught.value.message


def test_one_data_file_with_its_settings_is_a_list_of_one(tmp_path):
    path = tmp_path / "mine.yaml"
    found = []
    for written in ("{path: a.jsonl, weight: 2}", "[{path: a.jsonl, weight: 2}]"):
        path.write_text(f"base: tiny\ndata: {{train: {written}, validation: {written}}}\n")
        found.append(load_recipe(Recipe, str(path)))
    assert found[0] == found[1]
    assert found[0].model_dump_json() == found[1].model_dump_json()
    assert found[0].data.named_files == ["a.jsonl", "a.jsonl"]
    path.write_text("base: tiny\ndata:\n  train:\n    path: a.jsonl\n    wieght: 2\n")
    with pytest.raises(AstreaError, match=r"line 5: 'data\.train\.wieght' is not a known key"):
        load_recipe(Recipe, str(path))
    assert load_recipe(Recipe, "tiny", ["data.train.path=b.jsonl"]).data.named_files == ["b.jsonl"]
