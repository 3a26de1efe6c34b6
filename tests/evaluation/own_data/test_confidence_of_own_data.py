"""What is familiar to a model of one's own data: its own pictures, if there are enough of them."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from astrea.evaluation.own_data.confidence import BATCH, FEWEST, calibrated_on, estimator_of_records
from astrea.evaluation.own_data.items import items_of
from astrea.model.explanation import explain
from astrea.model.processing import AstreaImageProcessor, AstreaProcessor
from listening import Said
from own_contexts import context_for


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
