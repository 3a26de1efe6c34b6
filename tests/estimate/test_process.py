"""Memory outside of training steps: loading, encoding, evaluation, and the whole process."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from astrea.estimate.build import fake_context
from astrea.estimate.inference import encoding, evaluation
from astrea.estimate.loading import copies, loading, reading, replaced_words, stored_type
from astrea.estimate.process import Phase, ProcessCost, picture_bytes, process_cost
from astrea.estimate.stages import StageCost
from astrea.estimate.tracker import KINDS
from astrea.recipes.recipe import ExpertEntry, Recipe, Runtime
from estimated_runs import estimated, with_weights
from expert_builders import small_checkpoint

STAGE = StageCost("tune", 4, 400, 10, 1.0, 2.0, 3, dict.fromkeys(KINDS, 10), moving=7)


@pytest.fixture(scope="module")
def real(run):
    return with_weights(run)


def with_llm(run: Recipe, **language) -> Recipe:
    return run.model_copy(update={"llm": run.llm.model_copy(update=language)})


def weights_of(module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def test_a_process_needs_what_its_most_expensive_phase_needs():
    phases = [Phase(20), Phase(30, 5, 1), Phase(70, 10, 3), Phase(40, 0, 50)]
    cost = ProcessCost(5, *phases, on_gpu=False)
    assert [cost.resident(name) for name in ("loading", "encoding", "training", "evaluation")] == [25, 41, 88, 95]
    assert cost.peak == cost.as_dict()["peak"] == 95
    # On a GPU only what lies beside it, and loading, is in the processor's memory.
    gpu = dataclasses.replace(cost, on_gpu=True)
    assert gpu.as_dict()["resident"] == {"loading": 25, "encoding": 6, "training": 8, "evaluation": 55}
    assert gpu.peak == 55


def test_evaluation_is_counted_like_what_it_does(ctx, real):
    found = evaluation(ctx)
    assert found.peak == pytest.approx(evaluation(real).peak, rel=0.05)
    assert ctx.model.training
    # The most is the scores of every word for eight pictures with sixteen captions of some ten words each.
    assert found.at_peak["temporary"] > 8 * 16 * 10 * ctx.model.embedding_table().shape[0] * 4


def test_encoding_is_counted_like_what_it_does_and_grows_with_the_pictures(ctx, real):
    few, many = (encoding(ctx, pictures).at_peak["temporary"] for pictures in (4, 16))
    assert few == pytest.approx(encoding(real, 4).at_peak["temporary"], rel=0.05)
    assert many == pytest.approx(4 * few, rel=0.1)
    assert few > 4 * 3 * ctx.model.config.image_size**2 * 4  # the pictures themselves


@pytest.mark.parametrize(("kept", "times"), [("float32", 1), ("bfloat16", 1.5)])
def test_a_language_model_is_there_once_and_beside_its_file_where_that_is_converted(
    run, ctx, tmp_path, monkeypatch, kept, times
):
    folder, words = tmp_path / kept, len(ctx.tokenizer)
    # So large that reading it is the most of all.
    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 4}
    config = LlamaConfig(**sizes, vocab_size=words)
    AutoModelForCausalLM.from_config(config).to(getattr(torch, kept)).save_pretrained(folder)
    assert stored_type(str(folder), config) == getattr(torch, kept)
    there = estimated(with_llm(run, checkpoint=str(folder)))
    monkeypatch.setattr("astrea.estimate.loading.reading", lambda ctx: 0)
    language = weights_of(there.model.language_model)
    assert language > 2 * (weights_of(there.model) - language)
    assert loading(there) == pytest.approx(max(times * language, weights_of(there.model)), rel=0.01)


def test_reading_plain_sentences_keeps_the_scores_of_every_word(run, ctx):
    words = ctx.model.embedding_table().shape[0]
    # Twelve sentences of about a dozen tokens: their scores, and their logarithms.
    assert 2 * 12 * 8 * words * 4 < reading(ctx) < 10 * 12 * 30 * words * 4
    assert loading(ctx) < weights_of(ctx.model) * 1.5  # nothing is read of a model without a checkpoint


@pytest.mark.parametrize(("dtype", "each"), [("float32", 4), ("bfloat16", 6)])
def test_an_expert_is_copied_out_of_its_file(run, tmp_path, dtype, each):
    folder = small_checkpoint("segformer", tmp_path / "segformer")
    entry = ExpertEntry(kind="segmentation", checkpoint=str(folder), options={"tokens": 4, "dtype": dtype})
    there = fake_context(run.model_copy(update={"experts": {"regions": entry}}), samples=4)
    values = sum(parameter.numel() for parameter in there.model.experts["regions"].model.parameters())
    assert copies(there) == each * values


@pytest.mark.parametrize(
    ("words", "dtype", "kept"), [(-1, "float32", True), (0, "float32", False), (-1, "bfloat16", False)]
)
def test_word_embeddings_that_grew_are_there_twice(run, ctx, tmp_path, words, dtype, kept):
    table = ctx.model.embedding_table()
    known = table.shape[0] + words
    LlamaConfig(vocab_size=known, hidden_size=64, num_hidden_layers=1, dtype=dtype).save_pretrained(tmp_path)
    other = SimpleNamespace(model=ctx.model, recipe=with_llm(run, checkpoint=str(tmp_path)))
    assert replaced_words(other) == (known * table.shape[1] * 4 if kept else 0)


def test_what_is_beside_the_tensors(run, ctx):
    cost = process_cost(ctx, [STAGE])
    one = {name: part.rows(slice(1)) for name, part in ctx.data.features.items()}
    tokens = sum(part.tokens.numel() + part.confidence.numel() for part in one.values())
    assert cost.training == Phase(STAGE.peak, STAGE.moving, cost.training.beside)
    assert cost.training.beside == pytest.approx(4 * tokens * run.data.train_scenes, rel=0.3)  # and places
    # Scenes are drawn and looked at before training, and again for the test.
    assert cost.encoding.beside - cost.training.beside == run.data.train_scenes * picture_bytes(run)
    assert cost.evaluation.beside > 300 * picture_bytes(run)
    assert not cost.on_gpu


@pytest.mark.slow
def test_experts_look_at_pictures_of_files_beside_what_the_optimizer_keeps(run):
    own = run.model_copy(update={"data": run.data.model_copy(update={"train": "mine.jsonl"})})
    there = estimated(own)
    there.recipe = own.model_copy(update={"runtime": Runtime(device="cuda")})
    cost = process_cost(there, [STAGE])
    assert cost.encoding.tensors == encoding(there, 32).peak + 20
    assert cost.encoding.beside == cost.training.beside == cost.evaluation.beside == 0
    assert cost.on_gpu
