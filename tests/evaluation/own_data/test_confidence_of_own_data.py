"""What is familiar to a model of one's own data: its own pictures, if there are enough of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from astrea.evaluation.own_data.confidence import BATCH, FEWEST, calibrated_on, estimator_of_records
from astrea.evaluation.own_data.items import items_of
from astrea.model.explanation import explain
from astrea.model.processing import AstreaImageProcessor, AstreaProcessor
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.context import TrainingContext
from astrea.world.scenes.draw import split_scene
from listening import Said
from own_contexts import SEEING, data_of, fresh


def context_for(folder: Path, count: int, overrides: list[str]) -> TrainingContext:
    rows = []
    for number in range(count):
        Image.fromarray(split_scene("train", number, 0).image).save(folder / f"{number}.png")
        said = [{"from": "human", "value": "<image>is it red?"}, {"from": "gpt", "value": "yes"}]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": said})
    path = folder / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    recipe = load_recipe(Recipe, "tiny", [*overrides, f"data.train={path}", f"experts={json.dumps(SEEING)}"])
    model, tokenizer = fresh(recipe)
    return TrainingContext(recipe, model, tokenizer, data_of([path], model, tokenizer))


def test_its_own_pictures_are_familiar(tmp_path, small_overrides):
    ctx = context_for(tmp_path, FEWEST + 5, small_overrides)
    doubt = estimator_of_records(ctx, Said())
    assert doubt is not None
    assert doubt.calibration is None
    assert set(doubt.familiar) == set(ctx.model.experts.names)
    pages = AstreaImageProcessor(64)([Image.new("RGB", (64, 64), "white")])["pixel_values"]
    strange = [
        float(doubt.familiar[n].strangeness(part))
        for n, part in ctx.model.encode_images(torch.as_tensor(pages)).items()
    ]
    assert max(strange) > 0


def test_held_out_questions_say_how_sure_to_be(tmp_path, small_overrides):
    ctx = context_for(tmp_path, FEWEST, small_overrides)
    model = ctx.model.eval()
    processor = AstreaProcessor(AstreaImageProcessor(64), ctx.tokenizer, model.num_visual_tokens)
    familiar = estimator_of_records(ctx, Said())
    assert familiar is not None
    items = list(items_of(ctx.data.sources, ctx.data.trainable, print))
    assert calibrated_on(familiar, model, processor, items[:10]) is familiar
    doubt = calibrated_on(familiar, model, processor, items)
    assert doubt.familiar is familiar.familiar
    assert doubt.calibration is not None
    model.confidence_estimator = doubt
    why = explain(model, processor, Image.new("RGB", (64, 64), "white"), "is it red?", longest=3, masking=False)
    # A model that has learned nothing is nearly never right, and by now says so.
    assert why.calibrated
    assert why.confidence < 0.1


@pytest.mark.parametrize("count", [1, BATCH * 2])
def test_of_a_few_nothing_is_said(tmp_path, small_overrides, count):
    assert estimator_of_records(context_for(tmp_path, count, small_overrides), Said()) is None
