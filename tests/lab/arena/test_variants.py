from __future__ import annotations

import json

import pytest

from astrea.common.errors import AstreaError
from astrea.fusion.routing.policies import POLICIES
from astrea.lab.arena.run import Run, digest
from astrea.lab.arena.variants import Variant, choose, variants
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.recipes.renamed import with_old_names
from astrea.training.trainer import plan_stages

BASE = load_recipe(Recipe, "tiny")
EVERYONE = variants(BASE)


def resolved(variant: Variant) -> Recipe:
    return Run("tiny", (), variant, 0).resolve()


@pytest.mark.parametrize("variant", EVERYONE, ids=lambda each: each.name)
def test_every_variant_is_a_recipe_of_the_same_number_of_steps(variant: Variant):
    run = resolved(variant)
    wanted = 0 if variant.name == "training" else BASE.align.steps + BASE.fuse.steps + BASE.tune.steps
    assert sum(plan.schedule.steps for plan in plan_stages(run)) == wanted
    assert (run.data, run.world, run.llm, run.fuse.batch) == (
        BASE.data,
        BASE.world,
        BASE.llm,
        BASE.fuse.batch,
    )


def test_no_two_variants_are_the_same_run_or_have_the_same_name():
    assert len({digest(resolved(each)) for each in EVERYONE}) == len(EVERYONE)
    assert len({each.name for each in EVERYONE}) == len(EVERYONE)


def test_peers_are_not_aligned_before_unless_they_say_so():
    peers = {each.name: resolved(each) for each in EVERYONE if each.kind == "strategy" and each.name != "astrea"}
    aligned = {name for name, run in peers.items() if run.align.steps}
    assert aligned == {"channel_concat_aligned", "sequence_concat_aligned"}
    assert peers["channel_concat_aligned"].align.kind == "next_token"
    assert {name for name, run in peers.items() if run.model.word_start} == {"moai", "sequence_concat_aligned"}
    assert not any(run.fuse.losses.contribution or run.tune.losses.reliability for run in peers.values())
    assert all(run.fuse.losses.itc and run.tune.losses.itc for run in peers.values())  # retrieval needs trained heads


def test_the_base_recipe_sets_experts_and_steps():
    recipe = load_recipe(Recipe, "tiny", ["experts.detection=null", "align.steps=7", "tune.steps=11"])
    found = {each.name: each for each in variants(recipe)}
    assert not [name for name in found if "detection" in name]
    assert "tune.steps=18" in found["average"].overrides
    assert sum(each.kind == "pair" for each in found.values()) == 3
    alone = load_recipe(Recipe, "tiny", [f"experts.{n}=null" for n in ("detection", "captioning", "segmentation")])
    assert {each.kind for each in variants(alone)} == {"strategy", "ablation"}


def test_experts_are_taken_out_and_keep_their_order():
    found = {each.name: each for each in EVERYONE}
    order = list(BASE.experts)
    assert list(resolved(found["without_segmentation"]).experts) == [n for n in order if n != "segmentation"]
    pairs = [list(resolved(each).experts) for each in EVERYONE if each.kind == "pair"]
    assert len(pairs) == 6
    assert all(pair == sorted(pair, key=order.index) for pair in pairs)


def test_the_students_teachers_are_the_base_recipes_experts_whole():
    eye = {
        "kind": "detection",
        "checkpoint": "owner/éye",
        "revision": "a" * 40,
        "options": {"phrases": ["red: ball", "#"]},
    }
    changes = (f"experts.eye={json.dumps(eye)}", "experts.segmentation.options={threshold: 0.05}")
    recipe = load_recipe(Recipe, "tiny", changes)
    student = next(each for each in variants(recipe) if each.name == "student")
    made = Run("tiny", changes, student, 0).resolve()
    assert list(made.experts) == ["student"]
    assert made.distill is not None
    assert made.distill.teachers == recipe.experts


def test_where_there_is_no_word_match_nobody_runs_without_it():
    neutral = variants(load_recipe(Recipe, "neutral"))
    assert {each.name for each in EVERYONE} - {each.name for each in neutral} == {"word_match"}
    resolved_all = [Run("neutral", (), each, 0).resolve() for each in neutral]
    assert len({digest(each) for each in resolved_all}) == len(neutral)


def test_choosing_by_name_and_kind():
    def names(wanted: str) -> list[str]:
        return [each.name for each in choose(EVERYONE, wanted)]

    assert names("all") == [each.name for each in EVERYONE]
    assert names("mixer, astrea") == ["astrea", "mixer"]
    assert {each.kind for each in choose(EVERYONE, "pairs,retraining")} == {"pair", "retraining"}
    assert "average" in names("strategies")
    with pytest.raises(AstreaError, match="did you mean 'sequence_concat'"):
        names("astrea,sequence_concatt")
    with pytest.raises(AstreaError, match="no variant"):
        names(" , ")


def test_every_routing_policy_has_a_row():
    rows = {each.name: resolved(each).model for each in EVERYONE if each.name.startswith("routed_")}
    assert {name.removeprefix("routed_") for name in rows} == set(POLICIES)
    assert all((m.strategy, m.options) == ("routed", {"policy": name[7:]}) for name, m in rows.items())
    assert [each.name for each in choose(EVERYONE, "routed_top_p, routed_scope")] == ["routed_top_p", "routed_scope"]


def test_top_one_routing_is_known_by_the_name_that_its_runs_were_made_under():
    """Digests of finished runs are taken of that name."""
    switch = next(each for each in EVERYONE if each.name == "switch")
    model = with_old_names(resolved(switch).model_dump(mode="json"))["model"]
    assert (model["strategy"], model["options"]) == ("switch", {"alone": True})
