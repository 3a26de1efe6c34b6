from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from astrea.common.errors import AstreaError
from astrea.data.feature_cache import canonical_json
from astrea.lab.arena import run as run_module
from astrea.lab.arena.run import Run, digest, main, measure, packed_items, rounded, unpacked_items
from astrea.lab.arena.variants import Variant, variants
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Data, Recipe, World
from astrea.training.assembly import assemble
from astrea.world.evaluation.tasks import GROUP_SIZE, TASKS


def hashed(*overrides: str) -> str:
    return digest(load_recipe(Recipe, "tiny", overrides))


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "name=other",
        "tune.steps=401",
        "tune.lr=2e-3",
        "fuse.losses.itc=0",
        "data.test_questions=149",
        "world.difficulty=0.4",
        "model.strategy=average",
        "model.mixer=false",
        "regularisation.load_rate=0.03",
        "experts.detection=null",
        "experts.detection.options={threshold: 0.4}",
        "contrast.queue=9",
        "align.progressive=false",
    ],
)
def test_the_digest_changes_with_every_setting(override: str):
    assert hashed(override) != hashed()


def test_the_digest_does_not_change_with_the_threads():
    assert hashed("threads=7") == hashed()


def test_the_digest_follows_the_parts_and_not_where_they_lie(small_overrides, tmp_path):
    *small, parts = small_overrides
    folder = Path(parts.removeprefix("pretrain="))
    shutil.copytree(folder, tmp_path / "copy")
    moved = hashed(*small, f"pretrain={tmp_path / 'copy'}")
    assert moved == hashed(*small_overrides) != hashed(*small)
    card = tmp_path / "copy" / "card.json"
    card.write_text(card.read_text().replace('"seed": 0', '"seed": 5'))
    assert hashed(*small, f"pretrain={tmp_path / 'copy'}") != moved
    card.unlink()
    with pytest.raises(AstreaError, match="card"):
        hashed(*small, f"pretrain={tmp_path / 'copy'}")


def test_the_digest_changes_with_the_schema(monkeypatch):
    before = hashed()
    monkeypatch.setattr(run_module, "SCHEMA", 99)
    assert hashed() != before


def test_the_digest_is_that_from_before_keys_were_renamed():
    words = {"language_lr_scale": 0.7}
    losses = {"lm": 1.0, "itc": 0.1, "contribution": 0.2, "trust": 1.0}
    trained = ["adapters", "heads", "fusion"]
    recipe = {
        "name": "tiny",
        "data": {"test_captions": 100, "test_retrieval_groups": 30},
        "experts": {kind: {"kind": kind} for kind in ("captioning", "classification", "segmentation", "detection")},
        "regular": {"lies": 0.1},
        "align": {"train": ["adapters"], "losses": {"word": 1.0}, "steps": 300, "batch": 64, "lr": 0.0005},
        "fuse": {"train": trained, "losses": losses, "steps": 60, "lr": 0.0005},
        "tune": {"train": [*trained, "language_model"], "losses": losses, "steps": 400, "lr": 0.0005} | words,
    }
    what = {"recipe": recipe, "parts": "scratch", "schema": run_module.SCHEMA, "astrea": run_module.ASTREA}
    told = hashlib.sha256(canonical_json(what).encode()).hexdigest()
    assert hashed("pretrain=scratch", "regularisation.corruption=0.1") == told


def test_items_are_packed_and_come_back():
    assert packed_items("area", np.array([1.0, 0.0, 1.0])) == "101"
    assert unpacked_items("101").tolist() == [1, 0, 1]
    assert packed_items("caption", np.array([0.12345, 0, 1])) == [0.123, 0.0, 1.0]


def test_figures_are_rounded_wherever_they_are():
    assert rounded({"a": [0.123456, {"b": 2.00001}], "c": "x", "d": None, "e": 7}) == {
        "a": [0.1235, {"b": 2.0}],
        "c": "x",
        "d": None,
        "e": 7,
    }


@pytest.fixture(scope="module")
def single(base, tmp_path_factory) -> dict:
    everyone = {each.name: each for each in variants(load_recipe(Recipe, "tiny", base))}
    folder = tmp_path_factory.mktemp("single")
    (folder / "work").mkdir()
    run = Run("tiny", base, everyone["single_detection"], 0)
    made = measure(run.spec(cache=folder / "cache", work=folder / "work"))
    assert list((folder / "work").iterdir()) == []  # the run folder is gone
    assert list((folder / "cache").glob("*.safetensors"))  # and the features are kept
    return made


def test_a_cell_holds_what_its_scores_are_made_of(single, base):
    assert single["digest"] == digest(load_recipe(Recipe, "tiny", base, then=single["overrides"]))
    assert list(single["tasks"]) == list(TASKS) == list(single["items"])
    for task in TASKS:
        assert single["tasks"][task] == pytest.approx(100 * unpacked_items(single["items"][task]).mean(), abs=0.1)
        assert len(single["scenes"][task]) == len(single["items"][task])
    assert set(single["scenes"]["caption"]) & set(single["scenes"]["attribute"])  # one picture, one number
    assert max(map(single["scenes"]["retrieval_i2t"].count, single["scenes"]["retrieval_i2t"])) == GROUP_SIZE
    assert single["average"] == pytest.approx(np.mean(list(single["tasks"].values())))
    assert single["steps"] == 11
    assert single["wall_s"] == pytest.approx(single["seconds"]["fuse"] + single["seconds"]["tune"], abs=0.02)
    assert single["shares"]["caption"]
    for conditions in single["shares"].values():
        for shares in conditions.values():
            assert shares == {"captioning": 0, "classification": 0, "segmentation": 0, "detection": 1}
    assert len(json.dumps(single, allow_nan=False)) < 60_000
    assert single["probes"] is None
    assert single["curve"] == []


def test_what_never_learns_is_not_counted_as_trainable(single, base):
    """The optimizer holds the adapters of all four experts, and only one is ever read."""
    model, _ = assemble(load_recipe(Recipe, "tiny", base, then=single["overrides"]), None)

    def count(prefix: str) -> int:
        return sum(p.numel() for name, p in model.named_parameters() if name.startswith(prefix))

    unread = sum(
        count(f"model.alignment.adapters.{name}.") for name in ("captioning", "classification", "segmentation")
    )
    everything = sum(p.numel() for p in model.parameters())
    assert unread > 0
    assert single["params_total"] == everything
    assert single["params_trainable"] == everything - count("model.experts.") - unread


def test_costs_are_told_apart(single):
    assert 0 < single["flops_per_sample"] < single["flops_experts"]
    assert single["latency_ms"] > 0


def test_a_broken_spec_is_told_in_words(tmp_path, capsys):
    run = Run("tiny", ("tune.step=3",), Variant("astrea", "strategy", (), ""), 0)
    (tmp_path / "spec.json").write_text(json.dumps(run.spec(cache=tmp_path, work=tmp_path)))
    assert main([str(tmp_path / "spec.json"), str(tmp_path / "out.json")]) == 1
    assert "tune.step" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("kind", "reports", "asked"), [("strategy", (), 1), ("strategy", ("budgets",), 0), ("trial", (), 0)]
)
def test_probed_are_some_variants_where_no_setting_reports_of_them(kind, reports, asked, monkeypatch):
    seen = []
    monkeypatch.setattr(run_module, "build_test_sets", lambda world, data, split: seen.append(data.test_questions))
    monkeypatch.setattr(run_module, "encode_test_sets", lambda *given: None)
    monkeypatch.setattr(run_module, "probe", lambda *given, **more: {"masked": 0.12344, "load": {}})
    run = Run("tiny", (), Variant("astrea", kind, (), ""), 0, reports=reports)
    found = run_module.probes_of(run, None, None, None, None, (World(), Data(test_questions=3), "test"), None)
    assert found == ({"masked": 0.1234} if asked else None)
    assert seen == [3 * run_module.MANY] * asked
