from __future__ import annotations

import pytest

from astrea.common.errors import AstreaError
from astrea.lab.arena.equal_time import at_equal_time
from astrea.lab.arena.variants import TIMED, Variant, variants
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe


@pytest.fixture(scope="module")
def everyone():
    return variants(load_recipe(Recipe, "tiny"))


def test_the_three_best_get_the_steps_that_fill_astreas_time(make_record, everyone):
    records = [
        make_record(seed=0, items=0.6, wall_s=90.0),
        make_record(seed=1, items=0.6, wall_s=110.0),
        make_record("average", items=0.5, wall_s=60.0),
        make_record("switch", items=0.4, wall_s=130.0),
        make_record("mova", items=0.3, wall_s=1000.0),
        make_record("moai", items=0.2),
        make_record("average", kind="wall", items=0.9),
    ]
    found = {each.name: each for each in at_equal_time(records, everyone)}
    assert list(found) == ["average", "switch", "mova"]
    assert all(each.kind == "wall" for each in found.values())
    # 20 steps of tune took 40 s: 2 s each. Astrea took 100 s.
    assert found["average"].overrides[-1] == f"tune.steps={20 + (100 - 60) // 2}"
    assert found["switch"].overrides[-1] == f"tune.steps={20 - (130 - 100) // 2}"
    assert found["mova"].overrides[-1] == "tune.steps=1"  # too slow for even that
    assert found["average"].overrides[0] == "model.strategy=average"


def test_without_astrea_or_without_another_there_is_nothing_to_equal(make_record, everyone):
    for records in ([], [make_record()], [make_record("average")]):
        with pytest.raises(AstreaError, match="needs finished runs"):
            at_equal_time(records, everyone)


def test_what_a_setting_times_gets_the_seconds_of_the_stage_that_it_lacks(make_record, everyone):
    """No other strategy has to have been run, and there is no run of it at equal steps."""
    seconds = {"align/captioning": 6.0, "align/detection": 9.0, "align": 5.0, "fuse": 10.0, "tune": 40.0}
    records = [make_record(seed=seed, seconds=seconds) for seed in range(2)]
    timed = Variant("unaligned", TIMED, ("align.steps=0",), "not aligned")
    (found,) = at_equal_time(records, [*everyone, timed])
    # 20 steps of tune took 40 s, and align took 20 s.
    assert (found.name, found.kind, found.overrides) == ("unaligned", "wall", ("align.steps=0", "tune.steps=30"))
