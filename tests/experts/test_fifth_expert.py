"""A fifth expert takes one class and one entry in the recipe: docs/add-an-expert.md, done."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from astrea import AstreaError
from astrea.cli import app
from astrea.common.progress import Reporter
from astrea.evaluation.evaluate import evaluate_and_report
from astrea.experts.bank import expert_class
from astrea.experts.drawing import draw_readings
from astrea.model.components import LANGUAGE, save_component
from astrea.model.explanation import explain
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.trainer import train
from astrea.world.experts.compact import COMPACT
from astrea.world.experts.truth import pixels_from_scenes
from astrea.world.language.tiny import tiny_language_model, tiny_tokenizer
from astrea.world.pretrain import write_card
from astrea.world.scenes.draw import split_scene
from listening import Said
from repository import EXAMPLES

RECIPE = EXAMPLES / "five_experts.yaml"
NAMES = ["captioning", "classification", "segmentation", "detection", "palette"]
SMALL = [
    "threads=1",
    "data.train_scenes=40",
    "data.questions_per_scene=3",
    "data.test_questions=2",
    "data.test_captions=2",
    "data.test_retrieval_groups=1",
    "llm={width: 32, layers: 2, heads: 2, feed_forward: 64}",
    "align.steps=12",  # two for each of the five, and two for all together
    "align.batch=8",
    "fuse.steps=2",
    "fuse.batch=4",
    "tune.steps=2",
    "tune.batch=4",
]


@pytest.fixture(scope="module")
def examples_on_path():
    """As PYTHONPATH=docs/examples does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield
    sys.modules.pop("palette_expert", None)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The example's recipe, made small, on parts that nobody has trained."""
    parts = tmp_path_factory.mktemp("parts")
    recipe = load_recipe(Recipe, str(RECIPE), [*SMALL, "align.progressive=true", f"pretrain={parts}"])
    torch.manual_seed(0)
    for kind, expert in COMPACT.items():
        save_component(expert(), parts / f"{kind}.safetensors")
    save_component(tiny_language_model(recipe.llm, tiny_tokenizer()), parts / f"{LANGUAGE}.safetensors")
    write_card(recipe, parts, judged=0)
    return recipe


@pytest.fixture(scope="module")
def trained(examples_on_path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The run folder, and what was said on the way."""
    folder = tmp_path_factory.mktemp("runs") / "five"
    report = Said()
    threads = torch.get_num_threads()
    train(recipe, folder, report=report)
    torch.set_num_threads(threads)
    return folder, report.lines


@pytest.fixture
def picture() -> Image.Image:
    """A red and a blue square on grey."""
    pixels = np.full((64, 64, 3), 60, np.uint8)
    pixels[8:24, 8:24] = (225, 40, 40)
    pixels[40:56, 32:48] = (50, 105, 235)
    return Image.fromarray(pixels)


def test_every_stage_knows_the_new_expert(trained):
    _, said = trained
    learned = {line.split(" learns: ")[0]: line.split(" learns: ")[1] for line in said if " learns: " in line}
    assert learned["align/palette"].startswith("adapter of palette ")
    assert "adapter of detection" not in learned["align/palette"]
    assert learned.keys() > {"align/joint", "fuse", "tune"}
    for stage in ("align/joint", "fuse", "tune"):
        assert learned[stage].startswith("all adapters ")


def test_its_adapter_starts_at_words_the_language_model_knows(examples_on_path, recipe):
    from palette_expert import PaletteExpert

    from astrea.training.assembly import assemble

    model, tokenizer = assemble(recipe, Path(recipe.pretrain))
    ids = tokenizer(" ".join(PaletteExpert.labels), add_special_tokens=False).input_ids
    assert len(ids) == len(PaletteExpert.labels)
    assert ids[-1] == len(tokenizer) - 1  # "palette" is new, so it comes last
    assert max(ids[:-1]) < len(tiny_tokenizer())
    words = model.get_input_embeddings().weight[ids]
    torch.testing.assert_close(model.alignment.adapters["palette"].mixture.weight, words.T)


def test_the_model_folder_asks_before_it_imports(trained, monkeypatch):
    model = trained[0] / "model"
    monkeypatch.delitem(sys.modules, "palette_expert")
    with pytest.raises(AstreaError, match="trust_remote_code"):
        load_model(model)
    assert "palette_expert" not in sys.modules


def test_the_answer_comes_with_five_shares_and_the_new_reading(trained, picture):
    model, processor = load_model(trained[0] / "model", trust_remote_code=True)
    assert model.experts.names == NAMES
    why = explain(model, processor, picture, "what colour is the sun?")
    assert list(why.shares) == NAMES
    assert 0 < sum(why.shares.values()) < 1
    # Two squares are no scene: whether the palette is believed about them is not said here.
    scenes = [Image.fromarray(split_scene("test", number, 0).image) for number in range(4)]
    assert any(explain(model, processor, seen, "what is this?").shares["palette"] > 0 for seen in scenes)
    assert set(why.masking) == set(NAMES)
    assert why.readings["palette"].labels == ["red", "blue"]
    assert why.readings["palette"].scores == pytest.approx([1 / 16, 1 / 16], rel=0.1)
    panels = draw_readings(picture, why.readings)
    fewer = draw_readings(picture, {name: why.readings[name] for name in NAMES[:-1]})
    assert panels.width > fewer.width or panels.height > fewer.height


def test_the_loaded_expert_sees_what_the_trained_one_saw(trained):
    from palette_expert import PaletteExpert

    model, _ = load_model(trained[0] / "model", trust_remote_code=True)
    pixels = pixels_from_scenes([split_scene("test", index, 0) for index in range(6)])
    seen, fresh = model.encode_images(pixels)["palette"], PaletteExpert(threshold=0.005)(pixels)
    assert torch.equal(seen.tokens, fresh.tokens)
    assert torch.equal(seen.confidence, fresh.confidence)
    readings = model.experts["palette"].readings(pixels)
    assert [len(r.labels) for r in readings] == (fresh.confidence > 0).sum(1).tolist()


@pytest.mark.slow
def test_evaluation_and_report_know_it(trained, recipe, few_scenes):
    folder, _ = trained
    results = evaluate_and_report(recipe, folder, report=Reporter())
    assert list(results["load"]["mean"]) == NAMES
    assert "palette" in results["masking"]
    assert "palette" not in results["experts"]  # nobody has said how to score it by itself
    assert "palette" in (folder / "report.html").read_text()


def test_an_installed_package_needs_no_trust(examples_on_path, trained, tmp_path, monkeypatch):
    import palette_expert

    installed = tmp_path / "palette_expert-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: palette-expert\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[astrea.experts]\npalette = palette_expert:PaletteExpert\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert expert_class("palette", allow_import=False) is palette_expert.PaletteExpert
    named = tmp_path / "model"
    shutil.copytree(trained[0] / "model", named)
    config = json.loads((named / "config.json").read_text())
    config["experts"]["palette"]["kind"] = "palette"
    (named / "config.json").write_text(json.dumps(config))
    model, _ = load_model(named)
    assert model.experts.names == NAMES


def test_one_entry_on_the_command_line_is_enough():
    recipe = load_recipe(Recipe, "tiny", ["experts.palette.kind=palette_expert:PaletteExpert"])
    assert list(recipe.experts) == NAMES


def test_the_recipe_is_the_tiny_one_and_one_entry():
    five, tiny = load_recipe(Recipe, str(RECIPE)), load_recipe(Recipe, "tiny")
    assert list(five.experts) == NAMES
    four = {name: entry for name, entry in five.experts.items() if name != "palette"}
    assert five.model_copy(update={"name": "tiny", "experts": four}) == tiny


def test_a_module_that_is_not_on_the_path_is_named(recipe, tmp_path, monkeypatch):
    # An entry like the example's, as somebody would run it who forgot PYTHONPATH.
    run = ["train", str(RECIPE), *SMALL, f"pretrain={recipe.pretrain}", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*run, "experts.palette.kind=no_such_module:PaletteExpert"])
    assert isinstance(result.exception, AstreaError)
    assert "no_such_module" in str(result.exception)
