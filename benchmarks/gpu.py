"""How fast the architecture of `small` trains on one GPU, with random weights: nothing is downloaded.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --smoke      # a shrunken architecture, on any machine: whether this script works

Optimizer steps of ``tune`` as training takes them (one micro-step each, contributions not measured), in six ways: the
language model as it is or compiled, and with each the experts' features cached, the experts looking at each batch's
pictures, and cached features in batches eight times as large. Of each, after steps that are not counted:

* samples per second (pictures with all their questions), tokens per second (of the language model, without padding);
* share of the GPU's dense bf16 rate as its maker states it; operations are counted as they are done, so that what
  gradient checkpointing computes twice counts twice;
* the most memory that tensors took, beside what `astrea estimate` says of such a step;
* of compiled ways the seconds that compiling took.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from astrea.common.files import write_json_atomic
from astrea.common.provenance import commit, machine
from astrea.estimate.build import context_of, fake_context
from astrea.estimate.gpus import GPUS, Gpu
from astrea.estimate.stages import stage_cost
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe, Runtime, Schedule
from astrea.training.acceleration import accelerated
from astrea.training.assembly import assemble, random_weights
from astrea.training.context import TrainingContext
from astrea.training.loop import Objective, build_optimizer, run_steps
from astrea.training.trainable import train_only
from astrea.training.trainer import plan_stages
from astrea.world.dataset import WorldData, scenes_of
from astrea.world.experts.truth import pixels_from_scenes

RESULTS = Path(__file__).resolve().parent / "results" / "gpu.json"
EXPERTS = ("captioning", "scene", "segmentation", "detection")
RANDOM = [f"{part}.{key}=null" for part in (*(f"experts.{name}" for name in EXPERTS), "llm")
          for key in ("checkpoint", "revision")]  # fmt: skip
NARROW = "hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2, image_size: 32"
SMOKE = [
    "world.canvas=64",
    "experts.captioning.architecture={model_type: blip, text_config: {hidden_size: 16, intermediate_size: 16, "
    f"num_hidden_layers: 1, num_attention_heads: 2, encoder_hidden_size: 16}}, vision_config: {{{NARROW}}}}}",
    "experts.captioning.options={tokens: 4}",
    f"experts.scene.architecture={{model_type: siglip, vision_config: {{{NARROW}, patch_size: 8}}}}",
    "experts.scene.options={tokens: 4}",
    "experts.segmentation.architecture={model_type: segformer, depths: [1, 1, 1, 1], hidden_sizes: [8, 8, 16, 16], "
    "num_attention_heads: [1, 1, 2, 2], decoder_hidden_size: 16, num_labels: 5}",
    "experts.segmentation.options={tokens: 4, image_size: 64}",
    "experts.detection.architecture={model_type: rt_detr_v2, num_labels: 5, d_model: 16, encoder_hidden_dim: 16, "
    "encoder_ffn_dim: 16, decoder_ffn_dim: 16, encoder_attention_heads: 2, decoder_attention_heads: 2, "
    "num_queries: 12, decoder_layers: 1, encoder_in_channels: [16, 16, 16], decoder_in_channels: [16, 16, 16], "
    "backbone_config: {model_type: rt_detr_resnet, layer_type: basic, embedding_size: 8, "
    "hidden_sizes: [8, 16, 16, 16], depths: [1, 1, 1, 1], out_indices: [2, 3, 4]}}",
    "experts.detection.options={tokens: 4, image_size: 64}",
    "llm.architecture={model_type: qwen3, hidden_size: 32, intermediate_size: 32, num_hidden_layers: 2, "
    "num_attention_heads: 2, num_key_value_heads: 2, head_dim: 16, vocab_size: 4000}",
    "model.adapter_hidden=16",
    "model.contrast_width=16",
    "contrast.queue=32",
    "tune.batch=2",
    "runtime.precision=fp32",
]
"""Changes that shrink everything; the kinds of networks and all ways through the code stay."""
SAYS_NO_MODEL = ("RTX", "SXM", "40GB", "80GB")
"""Words of the GPUs' names that others share."""
WAYS = (("cached", 1), ("live", 1), ("cached", 8))
"""Where features come from, and how many of the recipe's batches make one."""


class Live(WorldData):
    """The same data, but features are what the experts see when they are asked for."""

    def __init__(self, data: WorldData, bank: ExpertBank, pixels_N3HW: Tensor, device: torch.device) -> None:
        super().__init__(data.features, data.questions, data.captions)
        for name, value in {"bank": bank, "pixels": pixels_N3HW, "device": device}.items():
            object.__setattr__(self, name, value)

    @torch.no_grad()
    def rows(self, index: Tensor) -> dict[str, ExpertFeatures]:
        seen = self.bank(self.pixels[index].to(self.device))  # type: ignore[attr-defined]
        return {name: features.map(Tensor.cpu) for name, features in seen.items()}


def recipe(chosen: argparse.Namespace) -> Recipe:
    """The architecture that is measured: `small`, or what is left of it, without a checkpoint."""
    words = ["tune.accumulate=1", *(SMOKE if chosen.smoke else []), *chosen.overrides]
    return load_recipe(Recipe, "small", [*RANDOM, *words])


def datasheet(name: str, memory: int) -> Gpu | None:
    """The entry of the table of GPUs that a device's name and bytes of memory fit; None where there is none."""
    said = set(name.replace("-", " ").split())
    fitting = [gpu for gpu in GPUS if {word for word in gpu.name.split() if word not in SAYS_NO_MODEL} & said]
    return min(fitting, key=lambda gpu: abs(gpu.memory * 10**9 - memory), default=None)


class Bench:
    """Steps of one stage, and what they take."""

    def __init__(self, recipe: Recipe, device: torch.device, samples: int) -> None:
        self.recipe, self.device = recipe, device
        model, tokenizer = assemble(recipe, None)
        self.ctx: TrainingContext = context_of(recipe, model.to(device), tokenizer, samples=samples)  # type: ignore[arg-type]
        pixels = pixels_from_scenes(list(scenes_of("train", samples, recipe.world)))
        assert isinstance(self.ctx.data, WorldData)
        self.data = {"cached": self.ctx.data, "live": Live(self.ctx.data, model.experts, pixels, device)}
        plan = plan_stages(recipe)[-1]
        self.schedule, self.objective = plan.schedule, plan.build(self.ctx)
        learns = (parameter for _, parameter, _ in self.objective.trainable())
        train_only(learns, (model, self.ctx.contrast, self.ctx.words))
        model.train()
        self.optimizer = build_optimizer(self.objective, self.schedule)

    def steps(self, count: int, batch: int) -> float:
        """Seconds of so many steps; the first is not step 0, in which contributions are measured."""
        schedule = Schedule(steps=1 + count, batch=batch, lr=1e-6)
        self._wait()
        began = time.perf_counter()
        run_steps(self.objective, schedule, self.optimizer, start=1, on_step=lambda *_: None)
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def measure(self, *, compiled: bool, data: str, batch: int, steps: int, repeats: int) -> dict[str, Any]:
        """One of the ways."""
        self.ctx.data = self.data[data]
        runtime: Runtime = self.recipe.runtime.model_copy(update={"compile": compiled})
        with accelerated(self.ctx.model.language_model, runtime, self.device):
            # Compiles, and fills allocators; the same steps as those that count.
            first = self.steps(steps, batch)
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds = [self.steps(steps, batch) / steps for _ in range(repeats)]
            peak = torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None
        tokens = tokens_of(self.objective, batch, steps)
        each = statistics.median(seconds)
        return {
            "batch": batch,
            "seconds_per_step": [round(value, 5) for value in seconds],
            "samples_per_second": round(batch / each, 3),
            "tokens_per_second": round(tokens / each, 1),
            "peak_bytes": peak,
            "seconds_compiling": round(first - each * steps, 1) if compiled else None,
        }

    def flops(self, batch: int) -> int:
        """Operations of one step with cached features."""
        self.ctx.data = self.data["cached"]
        runtime = self.recipe.runtime
        with accelerated(self.ctx.model.language_model, runtime, self.device), FlopCounterMode(display=False) as all_:
            self.steps(1, batch)
        return all_.get_total_flops()


def tokens_of(objective: Objective, batch: int, steps: int) -> float:
    """Tokens per step that the language model reads, visual ones included, padding not."""
    masks = [objective.batch(step, 0, batch).packed.attention_mask for step in range(1, steps + 1)]
    return sum(int(mask.sum()) for mask in masks) / steps


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write the results; returns what was written."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description="Training speed of the small architecture on one GPU.")
    parser.add_argument("--smoke", action="store_true", help="a shrunken architecture, without a GPU too")
    parser.add_argument("--eager-only", action="store_true", help="leave the compiled language model out")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps per figure")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=64, help="pictures that the batches are drawn from")
    parser.add_argument("--out", type=Path, help=f"JSON file to write; {RESULTS.name} beside the other results")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the recipe")
    chosen = parser.parse_intermixed_args(words)
    if min(chosen.steps, chosen.repeats, chosen.samples) < 1:
        parser.error("--steps, --repeats and --samples must be at least 1")
    if not (chosen.smoke or torch.cuda.is_available()):
        parser.error("there is no GPU here; --smoke runs a shrunken architecture on the processor")
    if chosen.smoke and chosen.out is None:
        parser.error("--smoke measures nothing worth keeping; say where to with --out")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = recipe(chosen)
    name, gpu = "processor", None
    if device.type == "cuda":
        name = torch.cuda.get_device_name()
        gpu = datasheet(name, torch.cuda.get_device_properties(0).total_memory)
    print(f"{name}; {random_weights(run)}")
    cost = stage_cost(fake_context(run, samples=chosen.samples), plan_stages(run)[-1])
    bench = Bench(run, device, chosen.samples)
    flops = {bench.schedule.batch * times: bench.flops(bench.schedule.batch * times) for _, times in WAYS}
    ways: dict[str, Any] = {}
    results = {
        "command": shlex.join(["python", "benchmarks/gpu.py", *words]),
        "commit": commit(),
        "machine": machine(),
        "device": name,
        "datasheet": None if gpu is None else gpu.name,
        "smoke": chosen.smoke,
        "note": "a shrunken architecture: says that the script works, nothing of speed" if chosen.smoke else None,
        "flops_per_step": {f"batch {batch}": counted for batch, counted in flops.items()},
        "estimate": {
            "batch": bench.schedule.batch,
            "flops_per_step": cost.plain_step_flops,
            "peak_bytes": cost.peak,
        },
        "ways": ways,
    }
    out = chosen.out or RESULTS
    out.parent.mkdir(parents=True, exist_ok=True)
    for compiled in (False,) if chosen.eager_only else (False, True):
        for data, times in WAYS:
            batch = bench.schedule.batch * times
            way = f"{'compiled' if compiled else 'eager'}, {data}, batch {batch}"
            found = bench.measure(compiled=compiled, data=data, batch=batch, steps=chosen.steps, repeats=chosen.repeats)
            if gpu is not None and data == "cached":
                seconds = statistics.median(found["seconds_per_step"])
                found["share_of_datasheet_bf16"] = round(flops[batch] / seconds / (gpu.bf16 * 1e12), 4)
            ways[way] = found
            print(
                f"{way:<26} {found['samples_per_second']:9.2f} samples/s  {found['tokens_per_second']:11.1f} tokens/s"
            )
            write_json_atomic(out, results)  # time on a GPU may end before the last way does
    print(f"results: {out}")
    return json.loads(json.dumps(results))


if __name__ == "__main__":
    main()
