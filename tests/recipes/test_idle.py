"""Keys that another key turns off: refused where both are written, left behind where the base wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astrea.common.errors import AstreaError
from astrea.recipes.idle import OF_EVERY_STRATEGY, SWITCHES, Switch
from astrea.recipes.loader import dump_recipe, load_recipe, shipped_recipes
from astrea.recipes.recipe import Recipe
from astrea.recipes.trail import Trail, dotted

VALUES = {
    "unfamiliar": 0.1,
    "gate_tau": 2.0,
    "residual_start": 0.9,
    "residual_end": 0.9,
    "prune_share": 0.2,
    "keep_threshold": 0.5,
    "gate_targets": "items",
    "reliability_kinds": ["mirrored"],
}
"""Of keys that are no switches themselves; others are true, or 1."""
EVERY = (*SWITCHES, *OF_EVERY_STRATEGY)
PAIRS = [(switch, key) for switch in EVERY for key in (*switch.idle, *switch.also_off)]


def word(key: Trail, value: object) -> str:
    return f"{dotted(key)}={json.dumps(value)}"


def stated(key: Trail) -> str:
    name = str(key[-1])
    return word(key, VALUES.get(name, True if name in ("residual", "gate_question", "gate_confidence") else 1))


def turned(switch: Switch, *, off: bool) -> str:
    return word(switch.key, switch.off) if off else f"{dotted(switch.key)}={switch.on}"


@pytest.mark.parametrize(("switch", "key"), PAIRS, ids=lambda value: dotted(getattr(value, "key", value)))
def test_a_key_that_another_one_turns_off_is_refused_and_both_are_named(switch: Switch, key: Trail):
    off, others = turned(switch, off=True), ["model.residual=true"] if "residual" in str(key[-1]) else []
    for words in ([*others, stated(key), off], [*others, off, stated(key)]):
        with pytest.raises(AstreaError) as caught:
            load_recipe(Recipe, "tiny", words)
        assert f"{dotted(key)!r} has no effect where {dotted(switch.key)!r} is" in caught.value.message
        assert f"(command line: '{off}')" in caught.value.message
        assert f"Remove {dotted(key)}, or set {dotted(switch.key)}={switch.on}." in caught.value.hint
    assert load_recipe(Recipe, "tiny", [*others, turned(switch, off=False), stated(key)])
    if key in switch.also_off:
        assert load_recipe(Recipe, "tiny", [off, word(key, 0 if key[0] != "model" or "_" in str(key[1]) else False)])


@pytest.mark.parametrize("switch", EVERY, ids=lambda switch: dotted(switch.key))
@pytest.mark.parametrize("name", shipped_recipes())
def test_what_a_base_says_of_it_is_left_behind(switch: Switch, name: str, tmp_path: Path):
    base = tmp_path / "base.yaml"
    base.write_text(f"base: {name}\nmodel: {{findings: tokens, gate_tau: 2.0, residual: true, residual_end: 0.5}}\n")
    recipe = load_recipe(Recipe, str(base), [turned(switch, off=True)])
    usual = load_recipe(Recipe, "tiny", [turned(switch, off=True)]).model
    for key in (*switch.idle, *switch.also_off):
        if key[0] == "model":
            assert getattr(recipe.model, str(key[1])) == getattr(usual, str(key[1]))
        elif key[1] == "losses":
            assert not getattr(recipe, str(key[0])).losses.weights.get(key[2])
    assert load_recipe(Recipe, str(base), then=[turned(switch, off=True)]) == recipe
    above = tmp_path / "above.yaml"
    off = f"{switch.key[0]}: {{{switch.key[1]}: {json.dumps(switch.off)}}}\n"
    above.write_text(f"base: base.yaml\nname: {recipe.name}\n{off}")
    assert load_recipe(Recipe, str(above)) == recipe
    again = tmp_path / "again.yaml"
    again.write_text(dump_recipe(recipe))
    assert load_recipe(Recipe, str(again)) == recipe  # as it is written down, nothing in it is idle


def test_a_file_names_both_lines_and_a_default_is_a_reason_too(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: tiny\nmodel:\n  gate: false\n  gate_tau: 2\n  residual_end: 0.5\n")
    with pytest.raises(AstreaError) as caught:
        load_recipe(Recipe, str(path))
    assert caught.value.message == (
        f"{path}, line 4: 'model.gate_tau' has no effect where 'model.gate' is false ({path}, line 3)\n"
        f"{path}, line 5: 'model.residual_end' has no effect where 'model.residual' is false"
    )
    path.write_text("base: tiny\nmodel:\n  gate: false\n")
    with pytest.raises(AstreaError, match=r"command line: .*'model.gate_tau' has no effect"):
        load_recipe(Recipe, str(path), ["model.gate_tau=2"])
    assert load_recipe(Recipe, str(path), ["model.gate_tau=2", "model.gate=true"]).model.gate_tau == 2


def test_a_run_of_an_earlier_version_says_all_of_it_and_is_read(tmp_path: Path):
    old = load_recipe(Recipe, "tiny").model_dump(mode="json")
    old["model"] |= {"gate": False, "gate_tau": 2.0, "residual": False, "residual_end": 0.5}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(old))
    recipe = load_recipe(Recipe, str(path), saved=True)
    assert (recipe.model.gate_tau, recipe.fuse.losses.contribution) == (2.0, 0.2)
    path.write_text(dump_recipe(recipe))
    assert load_recipe(Recipe, str(path), saved=True) == recipe
