from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.estimate import gpus
from astrea.estimate.build import fake_context, fake_model, language_config
from astrea.estimate.precision import computes_low
from astrea.estimate.process import Phase, ProcessCost
from astrea.estimate.stages import StageCost, looking_flops, stage_cost, with_gradient_checkpointing
from astrea.estimate.table import BUILDING, STAGES, Estimate, estimate, for_terminal, parameters
from astrea.estimate.tracker import KINDS
from astrea.recipes.recipe import ExpertEntry, Recipe, Runtime
from astrea.training.acceleration import accelerated
from astrea.training.assembly import assemble
from astrea.training.trainer import plan_stages
from estimated_runs import estimated, with_weights


def cost_of(ctx, stage: str, *, every: int = 0, **changes) -> StageCost:
    recipe = ctx.recipe.model_copy(
        update={stage: getattr(ctx.recipe, stage).model_copy(update=changes)} if changes else {}
    )
    plan = next(plan for plan in reversed(plan_stages(recipe)) if plan.name.startswith(stage))
    return stage_cost(ctx, plan, every=every)


@pytest.fixture(scope="module")
def tuning(ctx) -> StageCost:
    return cost_of(ctx, "tune", every=2)


@pytest.fixture(scope="module")
def unmeasured(ctx) -> StageCost:
    """Tuning when contributions are never measured."""
    return cost_of(ctx, "tune")


def test_the_model_takes_no_memory_and_has_every_parameter(run, ctx):
    real, _ = assemble(run, None)
    floats = [p for p in (*ctx.model.parameters(), *ctx.contrast.parameters()) if p.is_floating_point()]
    assert {p.device.type for p in floats} == {"meta"}
    wanted = {name: (p.shape, p.dtype) for name, p in real.named_parameters()}
    assert {name: (p.shape, p.dtype) for name, p in ctx.model.named_parameters()} == wanted
    sizes = parameters(ctx)
    assert sum(total for total, _ in sizes.values()) == sum(p.numel() for p in real.parameters())
    assert all(learning == 0 for name, (_, learning) in sizes.items() if name.startswith("expert "))
    assert all(learning == total for name, (total, learning) in sizes.items() if not name.startswith("expert "))


@pytest.mark.parametrize(("stage", "every"), [("align", 0), ("tune", 2)])
def test_without_weights_the_count_is_that_with_weights(run, ctx, tuning, stage, every):
    real = cost_of(with_weights(run), stage, every=every)
    found = tuning if stage == "tune" else cost_of(ctx, stage)
    assert found.trainable == real.trainable
    # Words that count for nothing, and slots that turn out to be empty, are left out where their weights are known.
    for count in ("plain_step_flops", "step_flops", "forward_flops"):
        assert 0.98 * getattr(real, count) <= getattr(found, count) <= 1.06 * getattr(real, count)
    assert found.memory["weights"] == real.memory["weights"]
    assert found.memory["optimizer"] == real.memory["optimizer"]
    assert found.peak == pytest.approx(real.peak, rel=0.05)


def test_a_stage_adds_up(ctx, tuning):
    learning = sum(p.numel() for p in ctx.model.parameters()) - sum(p.numel() for p in ctx.model.experts.parameters())
    assert tuning.trainable == learning + 1  # and the temperature
    # Two moments by AdamW, one by Muon for hidden matrices; a step counter each.
    assert 4 * tuning.trainable < tuning.memory["optimizer"] <= 8 * tuning.trainable + 8 * 200
    assert set(tuning.memory) == set(KINDS)
    assert tuning.peak == sum(tuning.memory.values())
    assert tuning.step_flops > 1.3 * tuning.forward_flops  # many forward passes are without gradient
    assert tuning.samples == ctx.recipe.tune.steps * 4
    assert tuning.as_dict()["peak"] == tuning.peak
    assert all(parameter.grad is None for parameter in ctx.model.parameters())


def test_frozen_parts_cost_no_backward_pass_and_no_optimizer(ctx, tuning):
    fusing = cost_of(ctx, "fuse", every=2)
    assert fusing.trainable < tuning.trainable
    assert fusing.memory["optimizer"] < tuning.memory["optimizer"]
    assert fusing.step_flops - fusing.forward_flops < tuning.step_flops - tuning.forward_flops


def test_measuring_contributions_is_averaged(tuning, unmeasured):
    assert unmeasured.step_flops == unmeasured.plain_step_flops / 4
    assert tuning.plain_step_flops == pytest.approx(unmeasured.plain_step_flops, rel=0.25)  # other pictures
    assert tuning.step_flops > tuning.plain_step_flops / 4


def test_a_larger_batch_takes_more_memory_and_the_same_work_per_sample(ctx, unmeasured):
    small, large = unmeasured, cost_of(ctx, "tune", batch=12)
    assert large.memory["weights"] == small.memory["weights"]
    assert large.memory["optimizer"] == small.memory["optimizer"]
    kept = [cost.memory["activations"] + cost.memory["temporary"] for cost in (small, large)]
    assert kept[1] > 2 * kept[0]
    assert large.step_flops == pytest.approx(small.step_flops, rel=0.4)


def test_gradient_checkpointing_trades_work_for_memory(ctx, unmeasured):
    with_gradient_checkpointing(ctx, True)
    try:
        thrifty = cost_of(ctx, "tune")
    finally:
        with_gradient_checkpointing(ctx, False)
    assert thrifty.memory["activations"] < unmeasured.memory["activations"]
    assert thrifty.peak < unmeasured.peak
    assert thrifty.step_flops > unmeasured.step_flops
    assert not any(getattr(layer, "gradient_checkpointing", False) for layer in ctx.model.language_model.modules())


def test_what_the_experts_look_costs_is_per_picture(ctx):
    assert looking_flops(ctx, 2) == looking_flops(ctx, 5) > 1e6


# Language models that are only described


def described(recipe: Recipe, **language) -> Recipe:
    """The run with another language model, which the recipe itself may describe."""
    return recipe.model_copy(update={"llm": recipe.llm.model_copy(update=language)})


LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 5000,
}


def test_a_checkpoint_is_described_by_its_config(run, tmp_path):
    assert language_config(run) is None
    LlamaConfig(**LLAMA).save_pretrained(tmp_path)
    found = language_config(described(run, checkpoint=str(tmp_path)))
    assert (found.hidden_size, found.vocab_size) == (64, 5000)
    given = language_config(described(run, checkpoint="some/model", architecture=LLAMA | {"vocab_size": 6000}))
    assert given.vocab_size == 6000


def test_a_large_language_model_is_estimated_without_memory(run):
    architecture = {
        "model_type": "qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    }
    model, _ = fake_model(described(run, checkpoint="Qwen/Qwen3-0.6B", architecture=architecture))
    # 0.44 B without the embeddings, as the model's card says.
    count = sum(p.numel() for p in model.language_model.parameters())
    assert count == pytest.approx(0.44e9 + 151936 * 1024, rel=0.01)
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_a_described_language_model_is_estimated_like_any_other(run):
    ctx = estimated(described(run, checkpoint="some/model", architecture=LLAMA))
    cost = cost_of(ctx, "tune")
    assert cost.trainable > 5000 * 64
    assert cost.peak > 0


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ({"checkpoint": "nobody/nothing"}, "config.json of 'nobody/nothing' is not on this machine"),
        ({"checkpoint": "x/y", "architecture": {"model_type": "no such thing"}}, "llm.architecture"),
        ({"architecture": {"model_type": "no such thing"}}, "llm.architecture describes no model"),
        ({"checkpoint": "x/y", "architecture": {"hidden_size": 8}}, "llm.architecture"),
        ({"checkpoint": "x/y", "architecture": LLAMA | {"vocab_size": 10}}, "knows 10 tokens"),
    ],
)
def test_what_is_not_there_is_said(run, language, said):
    with pytest.raises(AstreaError, match=said) as caught:
        fake_model(described(run, **language))
    assert caught.value.hint


def test_an_experts_checkpoint_that_is_not_there_is_said(run):
    entries = dict(run.experts)
    entries["detection"] = entries["detection"].model_copy(
        update={"checkpoint": "nobody/nothing", "revision": "0" * 40, "options": {}}
    )
    with pytest.raises(AstreaError, match="'nobody/nothing' is not on this machine"):
        fake_model(run.model_copy(update={"experts": entries}))
    described = {"model_type": "yolos", "num_detection_tokens": 20, "num_labels": 7, "num_hidden_layers": 2}
    entries["detection"] = entries["detection"].model_copy(update={"architecture": described})
    model, _ = fake_model(run.model_copy(update={"experts": entries}))
    expert = model.experts["detection"]
    assert (expert.num_tokens, len(expert.class_names)) == (16, 7)
    assert {parameter.device.type for parameter in expert.parameters()} == {"meta"}


def test_a_described_captioner_is_counted_to_the_end_of_its_sentence(run):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    blip = {
        "model_type": "blip",
        "text_config": sizes | {"encoder_hidden_size": 16},
        "vision_config": sizes | {"image_size": 32},
    }

    def work(tokens: int) -> float:
        entry = ExpertEntry(kind="captioning", architecture=blip, options={"tokens": tokens})
        return looking_flops(fake_context(run.model_copy(update={"experts": {"words": entry}}), samples=4), 2)

    # The picture once; every word a pass of the decoder and its scores over the vocabulary.
    one, five, nine = work(1), work(5), work(9)
    assert 2 * 16 * 30524 * 4 < five - one == pytest.approx(nine - five, rel=0.02)


# Precision


@pytest.mark.slow
def test_bfloat16_is_made_believe_as_autocast_has_it(run):
    low = run.model_copy(update={"runtime": Runtime(device="cpu", precision="bf16")})
    real_context = with_weights(low)
    with accelerated(real_context.model.language_model, low.runtime, torch.device("cpu")):
        real = cost_of(real_context, "tune")
    found = cost_of(estimated(low), "tune")
    # Slots that real pictures leave empty are counted.
    assert real.plain_step_flops <= found.plain_step_flops <= 1.05 * real.plain_step_flops
    assert found.memory["optimizer"] == real.memory["optimizer"]
    assert found.memory["activations"] == pytest.approx(real.memory["activations"], rel=0.1)
    assert found.peak == pytest.approx(real.peak, rel=0.1)


@pytest.mark.slow
def test_in_bfloat16_a_block_that_is_computed_again_is_what_it_was(run):
    ctx = estimated(run.model_copy(update={"runtime": Runtime(precision="bf16")}))
    kept = cost_of(ctx, "tune")
    with_gradient_checkpointing(ctx, True)
    again = cost_of(ctx, "tune")  # torch compares every tensor's type and shape
    assert again.memory["activations"] < kept.memory["activations"]
    assert again.plain_step_flops > kept.plain_step_flops
    assert "forward" not in vars(ctx.model.language_model)


@pytest.mark.parametrize(
    ("runtime", "low"),
    [
        ({}, True),
        ({"device": "cuda"}, True),
        ({"device": "cpu"}, False),
        ({"precision": "fp32"}, False),
        ({"device": "cpu", "precision": "bf16"}, True),
    ],
)
def test_where_bfloat16_is_computed_in(runtime, low):
    assert computes_low(Runtime(**runtime)) is low


@pytest.mark.slow
def test_many_micro_steps_are_counted_without_being_run(ctx, unmeasured):
    # Muon's own products are of the step, not of its micro-steps, and the micro-steps' texts differ in length.
    many = cost_of(ctx, "tune", accumulate=40)
    assert many.samples == 40 * unmeasured.samples
    assert many.forward_flops == pytest.approx(unmeasured.forward_flops, rel=0.2)
    assert many.plain_step_flops > 30 * (unmeasured.forward_flops * 4)
    assert many.peak >= unmeasured.peak


# GPUs


def test_the_smallest_gpu_that_fits():
    assert [gpu.memory for gpu in gpus.GPUS] == sorted(gpu.memory for gpu in gpus.GPUS)
    assert gpus.smallest(0).name == "L4"
    assert gpus.smallest(20 * 10**9).name == "L4"
    assert gpus.smallest(22 * 10**9).memory == 40
    assert gpus.smallest(60 * 10**9).memory == 80
    assert gpus.smallest(10**12) is None
    assert gpus.needed(10**9) == 2_100_000_000
    assert all(gpu.source for gpu in gpus.GPUS)


def test_time_is_work_over_rate():
    a100 = next(gpu for gpu in gpus.GPUS if gpu.name == "A100 80GB")
    assert gpus.seconds(312e12, a100, half=True, utilisation=0.5) == pytest.approx(2)
    assert gpus.seconds(19.5e12, a100, half=False, utilisation=1) == pytest.approx(1)


def made(peak: int, *, on_gpu: bool = False) -> Estimate:
    memory = dict.fromkeys(KINDS, 0) | {"activations": peak}
    stage = StageCost("tune", 4, 400, 10, 1e9, 3e9, 12 * 10**9, memory)
    phases = Phase(3 * 10**9), Phase(2 * 10**9), Phase(peak, beside=10**8), Phase(2 * 10**9)
    process = ProcessCost(10**9, *phases, on_gpu=on_gpu)
    return Estimate("made up", {"all": (100, 10)}, 5e6, [stage], True, False, 0.5, process)


def test_the_table_says_what_fits_and_how_long(capsys):
    from rich.console import Console

    told = made(30 * 10**9).as_dict()["stages"][0]
    assert told["smallest_gpu"] == "A100 40GB"
    assert told["gpu_bytes"] == 34 * 10**9
    assert told["seconds_per_1000_samples"]["A100 40GB"] == pytest.approx(3e12 / (312e12 * 0.5))
    assert "L4" not in told["seconds_per_1000_samples"]
    console = Console(width=80)
    console.print(for_terminal(made(30 * 10**9)))
    console.print(for_terminal(made(10**13, on_gpu=True)))
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for heading in ("training step", "optimizer", "gradients", "kept", "smallest", "s per 1,000 samples", "evaluates"):
        assert heading.lower() in out.lower()
    assert "…" not in out
    assert "A100 40GB" in out
    assert "30 GB" in out
    assert "none" in out


def test_on_a_gpu_encoding_and_evaluation_have_to_fit_too(capsys):
    from rich.console import Console

    for on_gpu in (False, True):
        Console(width=80).print(for_terminal(made(30 * 10**9, on_gpu=on_gpu)))
        rows = [line.split() for line in capsys.readouterr().out.splitlines() if "encodes pictures" in line]
        # 2 GB of tensors, 10 % more and 1 GB; the process has them with its libraries, where it computes.
        fitting = [["encodes", "pictures", "3.2", "GB", "L4", "-"]] if on_gpu else []
        assert rows == [*fitting, ["encodes", "pictures", "1.00" if on_gpu else "3.00"]]


def test_the_wait_is_told(run, monkeypatch):
    monkeypatch.setattr("astrea.estimate.table.process_cost", lambda ctx, stages: None)  # which comes after the stages
    said = []
    report = Reporter()
    report.track = lambda *what: said.append(what)
    estimate(run.model_copy(update={"tune": run.tune.model_copy(update={"steps": 0})}), report=report)
    assert said[0][0] == BUILDING
    stages = [what for what in said if what[0] == STAGES]
    assert stages[0][1] == 0
    assert stages[-1][1] == stages[-1][2]
