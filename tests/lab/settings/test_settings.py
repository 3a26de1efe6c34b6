from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_type_hints

import pytest

from astrea.common.errors import AstreaError
from astrea.experts.bank import expert_class
from astrea.lab.arena.arena import Arena
from astrea.lab.arena.variants import choose
from astrea.lab.commands import arena as arena_command
from astrea.lab.settings.many_experts import PARTS, experts
from astrea.lab.settings.reports import REPORTS
from astrea.lab.settings.settings import ELSEWHERE, SETTINGS, setting_named
from astrea.world.dataset import scenes_of
from astrea.world.experts.classification import GROUPS, KIND_NAMES
from astrea.world.experts.detection import DetectionExpert


def arena(name: str, folder: Path, *base: str) -> Arena:
    return Arena("tiny", base, SETTINGS[name].wanted, 1, folder, 1, False, "", setting=SETTINGS[name])


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_recipe_and_variants_and_reports(name, tmp_path):
    asked = arena(name, tmp_path)
    chosen = choose(asked.variants(), asked.wanted)
    assert {each.name for each in chosen} == set(asked.wanted.split(","))
    runs = asked.runs(chosen)
    assert len({run.digest() for run in runs}) == len(runs)  # nobody is another one by another name
    assert set(SETTINGS[name].reports) <= set(REPORTS)


def test_a_setting_that_trains_nothing_says_what_measures_it():
    with pytest.raises(AstreaError, match="e5") as told:
        setting_named("e5")
    script = next(word for word in told.value.hint.split() if word.endswith(".py"))
    assert (Path(__file__).parents[3] / script).is_file()
    assert not set(ELSEWHERE) & set(SETTINGS)


def test_the_help_of_the_arena_names_every_setting():
    option = get_type_hints(arena_command, include_extras=True)["setting"].__metadata__[0]
    assert all(f"{name} ({setting.title})" in option.help for name, setting in SETTINGS.items())


def test_sixteen_experts_share_out_what_four_speak_of():
    made = experts()
    assert Counter(entry["kind"] for entry in made.values()) == dict.fromkeys(PARTS, 4)
    assert sum(expert_class(str(entry["kind"]), allow_import=False).num_tokens for entry in made.values()) == 112
    for parts in PARTS.values():
        words = [word for some in parts.values() for word in some]
        assert len(words) == len(set(words))
    assert [word for some in PARTS["detection"].values() for word in some] == list(DetectionExpert.class_names)
    thirds = [len(some) for name, some in PARTS["classification"].items() if name != "scene"]
    assert thirds == [len(KIND_NAMES) * (g + 1) // GROUPS - len(KIND_NAMES) * g // GROUPS for g in range(GROUPS)]


def test_training_is_clean_and_the_test_is_not(tmp_path):
    world = arena("e2", tmp_path).base().world
    clean, pairs = {}, {}
    for split in ("train", "validation", "test"):
        specs = [scene.spec for scene in scenes_of(split, 120, world)]
        clean[split] = sum(spec.condition == 0 for spec in specs) / len(specs)
        pairs[split] = sum(spec.second > 0 for spec in specs) / len(specs)
        assert all(spec.second != spec.condition for spec in specs if spec.condition)
    assert clean["train"] > 0.7 < clean["validation"]
    assert clean["test"] < 0.3
    assert pairs["train"] == pairs["validation"] == 0
    assert 0.25 < pairs["test"] < 0.55  # half of four fifths
