from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from astrea.common.progress import Reporter
from astrea.lab.arena.callback import TrainingCallback, undisturbed
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.trainer import train

PAUSE = 0.1
"""Seconds that every look takes."""


class Slow(TrainingCallback):
    """Looks at everything, takes its time, and draws random numbers."""

    def __call__(self, ctx, stage, step, seconds):
        super().__call__(ctx, stage, step, seconds)
        self.calls = [*getattr(self, "calls", []), (stage, step, seconds)]
        time.sleep(PAUSE)


@pytest.fixture(scope="module")
def watched(base, tmp_path_factory) -> tuple[Path, Path, Slow, float]:
    recipe = load_recipe(Recipe, "tiny", base)
    folder = tmp_path_factory.mktemp("watched")
    plain = train(recipe, folder / "plain", report=Reporter())
    callback = Slow(every=2)
    began = time.perf_counter()
    seen = train(recipe, folder / "seen", observe=callback, report=Reporter())
    return plain, seen, callback, time.perf_counter() - began


@pytest.mark.slow
def test_a_watched_training_gives_the_same_bits(watched):
    plain, seen, _, _ = watched
    mine, theirs = load_file(plain / "model.safetensors"), load_file(seen / "model.safetensors")
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    log = "train.jsonl"
    assert (plain.parent / log).read_text() == (seen.parent / log).read_text()


@pytest.mark.slow
def test_every_optimizer_step_is_seen_and_watching_costs_no_training_seconds(watched):
    _, seen, callback, took = watched
    steps = [(stage, step) for stage, step, _ in callback.calls]
    names = ("captioning", "classification", "segmentation", "detection", "joint")
    align = [(f"align/{name}", 1) for name in names]
    assert steps == [*align, ("fuse", 1), ("fuse", 2), *(("tune", n) for n in (1, 2, 3, 4))]
    seconds = [s for *_, s in callback.calls]
    assert seconds == sorted(seconds)
    assert took > 11 * PAUSE
    assert seconds[-1] < took - 11 * PAUSE
    clock = json.loads((seen.parent / "seconds.json").read_text())
    trained = sum(s for name, s in clock.items() if name != "features")
    assert trained < took - 11 * PAUSE
    assert trained >= seconds[-1] - 0.05


@pytest.mark.slow
def test_the_curve_has_a_point_every_so_many_steps_and_one_at_the_end(watched):
    _, _, callback, _ = watched
    fused = [s for stage, _, s in callback.calls if not stage.startswith("align")]
    assert [point[0] for point in callback.curve] == [pytest.approx(fused[at], abs=0.01) for at in (1, 3, 5)]
    assert all(0 <= score <= 100 for _, score in callback.curve)


@pytest.mark.slow
def test_what_learned_is_known_by_name(watched):
    _, _, callback, _ = watched
    parts = {name.split(".")[1] for name in callback.learned}
    assert parts == {"alignment", "fusion", "language_model"}


def test_undisturbed_puts_modes_and_randomness_back():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    model[1].eval()
    torch.manual_seed(3)
    with undisturbed(model):
        model.eval()
        torch.rand(5)
        np.random.rand()  # noqa: NPY002
    assert [part.training for part in (model, *model)] == [True, True, False]
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
