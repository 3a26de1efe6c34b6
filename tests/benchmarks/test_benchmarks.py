"""The benchmarks of training speed, on a processor and on one GPU, run and write every figure; what the figures are
depends on the machine and is not asserted."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
import torch

from benchmark_scripts import benchmark_script

pytestmark = pytest.mark.slow

SMALL = [
    "llm={width: 32, layers: 2, heads: 2, feed_forward: 64}",
    "contrast.queue=16",
    "tune.batch=2",
    "align.batch=4",
    "regularisation.contribution_every=2",
]


@pytest.fixture(scope="module")
def train_speed() -> ModuleType:
    return benchmark_script("train_speed")


def test_it_measures_everything_and_writes_it(train_speed, tmp_path, capsys):
    out = tmp_path / "results" / "speed.json"
    options = ["--repeats", "2", "--steps", "2", "--threads", "1", "--scenes", "12", "--gemm", "128"]
    returned = train_speed.main([*options, "--out", str(out), *SMALL])
    written = json.loads(out.read_text())
    assert written == returned
    assert written["threads"] == 1
    assert written["torch"] == torch.__version__
    assert written["command"].startswith("python benchmarks/train_speed.py --repeats 2")
    assert written["processor"]
    for name, batch in (("tune_step", 2), ("align_step", 4)):
        part = written[name]
        assert part["samples_per_step"] == batch
        ratio = part["cached_over_uncached"]
        assert len(ratio["all"]) == 2
        assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    for name in ("language_pass", "tune_step"):
        part = written[f"{name}_of_gemm"]
        assert part["gflop"] > 0
        assert part["share"]["min"] > 0
    # The step holds the pass, and other things beside it.
    assert written["tune_step_of_gemm"]["gflop"] > written["language_pass_of_gemm"]["gflop"]
    printed = capsys.readouterr().out
    assert "cached over uncached" in printed
    assert str(out) in printed


def test_cached_and_uncached_steps_read_the_same(train_speed, tmp_path):
    recipe = train_speed.load_recipe(train_speed.Recipe, "tiny", SMALL)
    ctx, pixels = train_speed.prepare(recipe, None, 12)
    uncached = train_speed.Uncached(ctx.data, ctx.model.experts, pixels)
    index = torch.tensor([7, 0, 3])
    for name, seen in uncached.rows(index).items():
        kept = ctx.data.rows(index)[name]
        torch.testing.assert_close(seen.tokens, kept.tokens, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(seen.confidence, kept.confidence, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("script", "option"), [("train_speed", "--repeats"), ("own_data", "--batch")])
def test_options_that_make_no_sense_are_refused(script, option, tmp_path):
    with pytest.raises(SystemExit):
        benchmark_script(script).main([option, "0", "--out", str(tmp_path / "no.json")])


def test_work_is_counted_forward_and_backward(train_speed):
    a, b = torch.randn(4, 8, requires_grad=True), torch.randn(8, 16, requires_grad=True)
    assert train_speed.flops_of(lambda: (a @ b).sum().backward()) == 3 * 2 * 4 * 8 * 16


# One GPU


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    return benchmark_script("gpu")


def test_the_gpu_script_runs_on_a_processor_and_says_that_it_means_nothing(gpu, tmp_path, capsys):
    out = tmp_path / "results" / "gpu.json"
    words = ["--smoke", "--eager-only", "--steps", "1", "--repeats", "1", "--samples", "6", "--out", str(out)]
    written = gpu.main(words)
    assert json.loads(out.read_text()) == written
    assert written["smoke"]
    assert "nothing of speed" in written["note"]
    assert "random weights: experts.captioning" in capsys.readouterr().out
    assert list(written["ways"]) == ["eager, cached, batch 2", "eager, live, batch 2", "eager, cached, batch 16"]
    for name, way in written["ways"].items():
        assert name.endswith(f" {way['batch']}")
        assert way["tokens_per_second"] > way["samples_per_second"] > 0
        assert way["seconds_compiling"] is None
        assert "share_of_datasheet_bf16" not in way or torch.cuda.is_available()
    # What is estimated is what is done, and what is left out where pictures leave slots empty.
    flops = written["flops_per_step"]
    assert flops["batch 2"] <= written["estimate"]["flops_per_step"] <= 1.5 * flops["batch 2"]
    assert flops["batch 16"] > 4 * flops["batch 2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_measured(gpu, capsys):
    for words in ([], ["--smoke"], ["--steps", "0"]):
        with pytest.raises(SystemExit):
            gpu.main(words)
        assert "--smoke" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "gigabytes", "found"),
    [
        ("NVIDIA H100 80GB HBM3", 85, "H100 SXM"),
        ("NVIDIA A100-SXM4-40GB", 42, "A100 40GB"),
        ("NVIDIA A100-SXM4-80GB", 85, "A100 80GB"),
        ("NVIDIA GeForce RTX 4090", 25, "RTX 4090"),
        ("NVIDIA L4", 24, "L4"),
        ("NVIDIA GeForce RTX 3060", 12, None),
    ],
)
def test_a_device_is_found_in_the_table(gpu, name, gigabytes, found):
    entry = gpu.datasheet(name, gigabytes * 10**9)
    assert (entry and entry.name) == found
