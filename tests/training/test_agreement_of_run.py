"""What a run with `model.agreement` leaves behind: how its sound experts agree, and a configuration that says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from astrea.confidence.agreement import read_agreement
from astrea.experts.corruption import of_the_next
from astrea.model.loading import load_model
from astrea.recipes.loader import dump_recipe
from astrea.training import agreement
from astrea.training.agreement import learn_word_agreement
from astrea.training.start import begun
from astrea.training.trainer import write_finished
from listening import Said
from own_contexts import context_for
from small_runs import small_run


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "PICTURES", 64)


def finished(ctx: Any, folder: Any) -> Any:
    """The end of a run, and its model as it is loaded."""
    made = type("Made", (), {"retention": lambda self: None})()
    learn_word_agreement(ctx, Said())
    write_finished(ctx, made, None, folder, {}, Said())
    return load_model(folder / "model")[0]


def test_how_experts_agree_is_kept_and_read_where_the_recipe_asks_for_it(few, make_context, world_data, tmp_path):
    back = finished(make_context(model__agreement=True), tmp_path / "on")
    assert back.config.agreement
    parts = world_data.draw(0, 32, 0).encode()
    assert back.model.believed(parts, None).float().mean() > 0.9
    wrong = {**parts, "detection": of_the_next(parts["detection"])}
    believed = back.model.believed(wrong, None).float().mean(0)
    assert believed[back.experts.names.index("detection")] < 0.4
    labels = {name: back.experts[name].labels for name in back.experts.names}
    kept = read_agreement(tmp_path / "on" / "model", labels)
    assert kept is not None
    assert torch.equal(kept.believed(wrong), back.model.believed(wrong, None))

    # A run that goes on from it leaves nobody out until it is done.
    for wanted in (True, False):
        model = begun(small_run(model__agreement=wanted, start=str(tmp_path / "on" / "model"))).model
        assert model.config.agreement is wanted
        assert model.model.word_agreement is None


def test_without_it_nothing_is_learned(few, make_context):
    ctx = make_context()
    learn_word_agreement(ctx, Said())
    assert not ctx.model.config.agreement
    assert ctx.model.model.word_agreement is None


def test_of_a_few_pictures_of_ones_own_nothing_is_learned(tmp_path, small_overrides):
    said = Said()
    ctx = context_for(tmp_path, 8, [*small_overrides, "model.agreement=true"])
    learn_word_agreement(ctx, said)
    assert ctx.model.model.word_agreement is None
    assert f"that takes {agreement.FEWEST} training pictures" in said.text


def test_recipes_say_it_only_where_it_is_on():
    assert "agreement" not in dump_recipe(small_run())
    assert "agreement: true" in dump_recipe(small_run(model__agreement=True))
