"""Runs around a pretrained language model: assembled, tuned by adapters, interrupted, resumed and merged."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from astrea.common.progress import Reporter
from astrea.data.packing import Packer
from astrea.language.low_rank import is_adapter
from astrea.model.loading import load_model
from astrea.training.assembly import assemble
from astrea.training.context import TrainingContext
from astrea.training.loop import build_optimizer, run_steps
from astrea.training.stages.instruct import InstructObjective
from astrea.training.stopping import Interrupted
from astrea.training.trainable import train_only
from astrea.training.trainer import train
from language_builders import FAMILIES, small_tokenizer


@pytest.fixture
def around(make_run, language_checkpoint):
    """The base recipe around a family's checkpoint."""

    def run(family: str, language: dict | None = None, **changes):
        return make_run(llm={"checkpoint": str(language_checkpoint(family)), **(language or {})}, **changes)

    return run


@pytest.mark.parametrize("family", FAMILIES)
def test_the_checkpoint_is_in_the_model_and_adapters_start_at_its_words(around, language_checkpoint, family):
    model, tokenizer = assemble(around(family), None)
    stored = load_file(language_checkpoint(family) / "model.safetensors")
    own = model.language_model.state_dict()
    words = len(small_tokenizer(family))
    for name, value in stored.items():
        rows = words if len(value) >= words else len(value)  # a padded table's next row is taken for the new word
        assert torch.equal(own[name][:rows], value[:rows]), name
    embed = model.get_input_embeddings()
    labels = model.experts["detection"].labels
    pieces = tokenizer("the mouse", add_special_tokens=False).input_ids
    pieces = pieces[len(tokenizer("the", add_special_tokens=False).input_ids) :]
    mixture = model.alignment.adapters["detection"].mixture.weight[:, labels.index("mouse")]
    torch.testing.assert_close(mixture, embed(torch.tensor(pieces)).mean(0))
    assert "mouse" not in tokenizer.get_vocab()
    config = model.generation_config
    packer = Packer(tokenizer, model.num_visual_tokens)
    assert packer.format.stop_id in config.eos_token_id
    assert tokenizer.eos_token_id in config.eos_token_id
    assert config.suppress_tokens == [model.config.image_token_id]


def test_the_seed_decides_fresh_weights_and_adapters(around):
    language = {"low_rank": {"rank": 2}}
    runs = [around("llama", language, seed=s, model={"pretrained_llm": False, "contrast_width": 16}) for s in (0, 0, 1)]
    states = [assemble(run, None)[0].state_dict() for run in runs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    name = "model.language_model.layers.0.mlp.up_proj.base_layer.weight"
    assert not torch.equal(states[0][name], states[2][name])
    zero = [value for name, value in states[0].items() if "lora_B" in name]
    assert zero
    assert all(value.eq(0).all() for value in zero)


@pytest.mark.parametrize("family", ["qwen3", "gemma3", "gpt2"])
def test_with_low_rank_only_adapters_of_the_language_model_learn(around, world_data, family):
    run = around(family, {"low_rank": {"rank": 2}, "gradient_checkpointing": family == "qwen3"})
    model, tokenizer = assemble(run, None)
    ctx = TrainingContext(run, model.train(), tokenizer, world_data)
    objective = InstructObjective(ctx, "tune", run.tune, offset=0)
    train_only((p for _, p, _ in objective.trainable()), (model,))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    schedule = run.tune.lasting(2)
    losses: list[float] = []
    optimizer = build_optimizer(objective, schedule)
    # Muon is for whole matrices.
    assert not any(group["muon"] for group in optimizer.param_groups)
    run_steps(objective, schedule, optimizer, on_step=lambda _, figures: losses.append(figures["loss"]))
    assert len(losses) == 2
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    language = {name for name in moved if name.startswith(("model.language_model.", "lm_head."))}
    assert language
    assert all(is_adapter(name) for name in language)
    assert any(name.startswith("model.alignment.adapters.") for name in moved)


class Stop(Exception):
    """Ends a run."""


def test_a_run_with_adapters_resumes_bit_for_bit_and_merges(around, small_overrides, tmp_path):
    parts = next(o.removeprefix("pretrain=") for o in small_overrides if o.startswith("pretrain="))
    small = {"steps": 2, "batch": 2, "lr": 1e-3, "warmup": 1, "save_every": 1}
    stages = {name: {**around("llama").model_dump()[name], **small} for name in ("align", "fuse", "tune")}
    run = around(
        "llama",
        {"low_rank": {"rank": 2, "dropout": 0.1}},
        pretrain=parts,
        threads=1,
        data={"train_scenes": 6},
        **stages,
    )
    straight = train(run, tmp_path / "straight", cache=tmp_path / "cache", report=Reporter())

    def stop(ctx, stage, done, seconds) -> None:
        if stage == "tune" and done == 2:
            raise Stop

    with pytest.raises((Stop, Interrupted)):
        train(run, tmp_path / "again", cache=tmp_path / "cache", observe=stop, report=Reporter())
    saved = sorted((tmp_path / "again" / "checkpoints").glob("step-*"))[-1]
    assert any(is_adapter(name) for name in load_file(saved / "model.safetensors"))
    resumed = train(run, tmp_path / "again", resume=True, cache=tmp_path / "cache", report=Reporter())
    one, two = (load_file(folder / "model.safetensors") for folder in (straight, resumed))
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert not any(is_adapter(name) for name in one)
    model, _ = load_model(straight)
    assert model.config.low_rank is None
    fresh = assemble(run, None)[0]
    name = "model.layers.0.mlp.up_proj"
    base = fresh.language_model.get_submodule(name).base_layer.weight
    assert not torch.equal(model.language_model.get_submodule(name).weight, base)
