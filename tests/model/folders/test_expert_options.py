"""A finished model is loaded with other options for its experts."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import astrea
from astrea.common.errors import AstreaError
from astrea.model.image_processing import AstreaImageProcessor
from astrea.model.loading import load_model
from astrea.model.processing import AstreaProcessor
from astrea.training.assembly import assemble
from phrase_experts import EXPERTS
from small_runs import small_run


def test_an_expert_tells_of_more_than_in_training(language_checkpoint, tmp_path: Path):
    own = {"contrast_width": 16, "adapter_hidden": 24, "findings": "phrases", "strategy": "sequence_concat"}
    run = small_run(experts=EXPERTS, model=own, llm={"checkpoint": str(language_checkpoint("llama"))})
    made, tokenizer = assemble(run, None)
    pictures = AstreaImageProcessor(made.config.image_size)
    processor = AstreaProcessor(pictures, tokenizer, made.num_visual_tokens, max_length=200)
    made.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    found = astrea.load(tmp_path, trust_remote_code=True, expert_options={"lines": {"count": 7}})
    assert found.model.experts["lines"].num_tokens == 7
    assert found.processor.num_visual_tokens == found.model.num_visual_tokens == made.num_visual_tokens + 5
    assert found.processor.max_length == 205
    assert set(found.ask(Image.new("RGB", (64, 64), "white"), "is it red?", max_new_tokens=2).shares) == set(EXPERTS)
    model, processor = load_model(tmp_path, trust_remote_code=True)
    assert (model.num_visual_tokens, processor.max_length) == (made.num_visual_tokens, 200)


def test_other_options_are_kept_and_nothing_else_changes(tiny_folder: Path, tiny_model):
    model, processor = load_model(tiny_folder, expert_options={"detection": {"threshold": 0.9}})
    assert model.experts["detection"].threshold == 0.9
    assert model.experts["segmentation"].threshold == tiny_model.experts["segmentation"].threshold
    assert processor.num_visual_tokens == tiny_model.num_visual_tokens


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ears": {"side": 1}}, "no expert 'ears'"),
        ({"detection": {"colour": 1}}, "colour"),
    ],
)
def test_an_expert_or_an_option_that_is_not_there_is_named(tiny_folder: Path, options, said):
    with pytest.raises(AstreaError, match=said):
        load_model(tiny_folder, expert_options=options)


def test_the_shipped_model_keeps_its_options():
    with pytest.raises(AstreaError, match="shipped"):
        load_model("shipped", expert_options={"detection": {"threshold": 0.9}})
