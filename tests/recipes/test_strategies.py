"""Keys that a strategy does not read are errors, for every strategy and every key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from astrea.common.errors import AstreaError
from astrea.fusion.registry import STRATEGIES, options_of, strategy_class
from astrea.recipes.loader import dump_recipe, load_recipe
from astrea.recipes.recipe import Model, Recipe
from astrea.recipes.renamed import with_old_names
from astrea.recipes.strategies import LOSSES, MODEL_KEYS, REGULARISATION_KEYS, STAGES

PEERS = [name for name in STRATEGIES if name != "astrea"]
NEEDED = {"single": ["model.options={expert: detection}"]}
"""What a strategy must be told, if anything."""
VALUES = {"mixer": "false", "residual": "true", "gate": "false", "gate_question": "false", "gate_confidence": "true"}
COMMON = {
    "strategy",
    "options",
    "findings",
    "contrast_width",
    "adapter_hidden",
    "word_start",
    "pretrained_llm",
    "agreement",
}
"""Keys of `Model` that mean something to every strategy."""


def chosen(name: str, *more: str) -> list[str]:
    return [f"model.strategy={name}", *NEEDED.get(name, []), *more]


def test_every_key_of_the_model_is_somebodys():
    assert set(Model.model_fields) == COMMON | set(MODEL_KEYS)


@pytest.mark.parametrize("key", [*sorted(COMMON - {"strategy", "options"}), *MODEL_KEYS])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_key_is_read_or_refused(name: str, key: str):
    default = getattr(load_recipe(Recipe, "tiny").model, key)
    words = chosen(name, f"model.{key}={json.dumps(default)}")
    if name == "astrea" and key.startswith("residual_"):
        words.append("model.residual=true")
    if name == "astrea" or key in COMMON:
        assert getattr(load_recipe(Recipe, "tiny", words).model, key) == default
        return
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, "tiny", words)
    assert f"command line: 'model.{key}=" in caught.value.message
    assert f"'model.{key}': the strategy {name!r} does not read it" in caught.value.message


@pytest.mark.parametrize("name", PEERS)
def test_losses_and_rates_of_another_strategy_are_refused(name: str):
    for stage in STAGES:
        for loss in LOSSES:
            with pytest.raises(AstreaError, match=f"'{stage}.losses.{loss}': the strategy '{name}' has no such loss"):
                load_recipe(Recipe, "tiny", chosen(name, f"{stage}.losses.{loss}=0.5"))
            assert load_recipe(Recipe, "tiny", chosen(name, f"{stage}.losses.{loss}=0"))
    for key in REGULARISATION_KEYS:
        with pytest.raises(AstreaError, match=f"'regularisation.{key}': the strategy '{name}' does not read it"):
            load_recipe(Recipe, "tiny", chosen(name, f"regularisation.{key}=1"))


@pytest.mark.parametrize("name", STRATEGIES)
def test_options_are_those_of_the_constructor(name: str):
    model = options_of(strategy_class(name, allow_import=False))
    assert issubclass(model, BaseModel)
    assert model.model_config["extra"] == "forbid"
    if name == "astrea":
        with pytest.raises(AstreaError, match=r"'model\.options': Astrea's own settings are keys of model"):
            load_recipe(Recipe, "tiny", ["model.options={mixer: false}"])
        return
    for key, field in model.model_fields.items():
        said = NEEDED.get(name, []) if key != "expert" else []
        if not field.is_required():
            words = [f"model.strategy={name}", *said, f"model.options.{key}={json.dumps(field.default)}"]
            assert load_recipe(Recipe, "tiny", words).model.options[key] == field.default
        with pytest.raises(AstreaError, match=f"option '{key}' of the fusion strategy '{name}'"):
            load_recipe(Recipe, "tiny", [f"model.strategy={name}", *said, f"model.options.{key}=[[]]"])
    with pytest.raises(AstreaError, match=r"option 'nothing' of .*: there is none of this name"):
        load_recipe(Recipe, "tiny", chosen(name, "model.options.nothing=1"))


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_written_down_reads_back(name: str, tmp_path: Path):
    recipe = load_recipe(Recipe, "tiny", chosen(name))
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(Recipe, str(path)) == recipe


def test_a_base_keeps_what_it_says_of_its_own_strategy(tmp_path: Path):
    (tmp_path / "base.yaml").write_text("base: tiny\nmodel: {mixer: false}\nregularisation: {load_rate: 0.1}\n")
    above = tmp_path / "above.yaml"
    above.write_text("base: base.yaml\nmodel: {strategy: mova, options: {top: 2}}\n")
    recipe = load_recipe(Recipe, str(above))
    assert recipe.model.options == {"top": 2}
    assert recipe.fuse.losses.reliability == recipe.fuse.losses.contribution == 0
    assert recipe.fuse.losses.lm == 1.0
    further = load_recipe(Recipe, str(above), ["seed=3"], then=["model.strategy=routed"])
    assert further.model.options == {}
    above.write_text("base: base.yaml\nmodel: {strategy: mova, mixer: true}\n")
    with pytest.raises(AstreaError, match=f"{above}, line 2: 'model.mixer': the strategy 'mova' does not read it"):
        load_recipe(Recipe, str(above))


def test_a_class_of_ones_own_is_not_imported_by_reading_a_recipe():
    words = ["model.strategy=no_such_module:Strategy", "model.options={keep: 4}", "fuse.losses.contribution=0.1"]
    recipe = load_recipe(Recipe, "tiny", words)
    assert (recipe.model.fusion(), recipe.fuse.losses.contribution) == ({"keep": 4}, 0.1)
    with pytest.raises(AstreaError, match=r"'model\.mixer': the strategy"):
        load_recipe(Recipe, "tiny", [*words, "model.mixer=false"])


def test_runs_of_earlier_versions_wrote_every_key_down(tmp_path: Path):
    old = with_old_names(load_recipe(Recipe, "tiny").model_dump(mode="json"))
    old["model"] |= {"strategy": "mova", "options": {"top": 2}}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(old))
    recipe = load_recipe(Recipe, str(path), saved=True)
    assert recipe == load_recipe(Recipe, "tiny", ["model.strategy=mova", "model.options={top: 2}"])
