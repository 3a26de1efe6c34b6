"""`astrea estimate` against the memory of a whole run: the recipe `small` at reduced width, from checkpoints to scores.

    python benchmarks/estimate_run.py

The checkpoints that `small` names are made here, with random weights, of the architectures that it describes (BLIP,
SigLIP, SegFormer, RT-DETR v2, Qwen3), narrower and shallower (`NARROW`), and saved as transformers saves them, in the
types of the public ones. Then one process does all that `astrea train small` does, on the processor: it loads and
assembles them, encodes pictures, asks the language model plain questions, takes two steps of every stage, each with the
experts' contributions measured, saves, loads what it saved, learns what is familiar and how sure to be, and answers all
tasks with pictures and blind. Left out are the passes without each expert, which are those with fewer of them.

Measured is what the kernel counts: the high-water mark of the process's resident memory, put back to what is resident
now at the beginning of each phase (``/proc/self/clear_refs``), with the allocator as it is by default.

Estimated is each phase with the libraries. In the table both are also given without them: what was resident when the
recipe had been read is taken off what was measured, and the estimate's own constant off the estimate.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from astrea.common.config_only import read_architecture
from astrea.common.progress import Reporter, TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.common.quiet import quiet
from astrea.data.worlds import open_world
from astrea.estimate.process import LIBRARIES
from astrea.estimate.table import Estimate, estimate
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe, World
from astrea.training import trainer
from astrea.training.plain_chat import plain_questions
from astrea.training.plan import plan_stages
from astrea.world.dataset import scenes_of
from astrea.world.scenes.captions import captions
from astrea.world.scenes.questions import Balancer
from process_memory import forget_peak, status_bytes
from result_files import read_results, write_results

RESULTS = Path(__file__).resolve().parent / "results" / "estimate.json"
TOWER = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
NARROW: dict[str, dict[str, Any]] = {
    "captioning": {
        "text_config": {**TOWER, "encoder_hidden_size": 256, "num_hidden_layers": 4},
        "vision_config": {**TOWER, "num_hidden_layers": 6, "image_size": 192},
    },
    "scene": {
        "text_config": {**TOWER, "num_hidden_layers": 4, "vocab_size": 32000, "projection_size": 256},
        "vision_config": {**TOWER, "num_hidden_layers": 6},
    },
    "segmentation": {"hidden_sizes": [16, 32, 80, 128], "decoder_hidden_size": 256},
    "detection": {
        "backbone_config": {"embedding_size": 32, "hidden_sizes": [32, 64, 128, 256]},
        "encoder_in_channels": [64, 128, 256],
        "decoder_in_channels": [128, 128, 128],
        "encoder_hidden_dim": 128,
        "encoder_ffn_dim": 512,
        "decoder_ffn_dim": 512,
        "d_model": 128,
    },
}
"""What is smaller than the recipe's own ``architecture`` says, expert by expert."""
NARROW_LANGUAGE = {
    "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 32768, "max_position_embeddings": 4096,
}  # fmt: skip
CLASSES = {
    "captioning": ("BlipForConditionalGeneration", torch.float32),
    "scene": ("SiglipModel", torch.float32),
    "segmentation": ("SegformerForSemanticSegmentation", torch.float32),
    "detection": ("RTDetrV2ForObjectDetection", torch.float32),
}
"""Class and type of numbers of the public checkpoints."""
PROCESSORS: dict[str, tuple[str, int]] = {
    "captioning": ("BlipImageProcessorPil", 192),
    "scene": ("SiglipImageProcessorPil", 224),
    "segmentation": ("SegformerImageProcessorPil", 256),
    "detection": ("RTDetrImageProcessorPil", 256),
}
"""Image processor, and side of the pictures that it makes."""
CHAT = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHANGES = (
    "threads=1", "runtime.device=cpu", "world.canvas=256", "model.adapter_hidden=512",
    "data.train_scenes=60", "data.test_questions=11", "data.test_captions=4", "data.test_retrieval_groups=4",
    "regularisation.contribution_every=1", "align.steps=10", "fuse.steps=2", "tune.steps=2",
    "fuse.accumulate=1", "tune.accumulate=2", "tune.save_every=0",
)  # fmt: skip
"""Of the recipe: what makes it short. Of batches, losses and what learns nothing is changed."""


def merged(described: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A description with some of its values changed, part by part."""
    return {
        key: merged(described.get(key) or {}, changes[key])
        if isinstance(changes.get(key), dict)
        else changes.get(key, described.get(key))
        for key in {**described, **changes}
    }


def make_checkpoints(recipe: Recipe, work: Path) -> list[str]:
    """Write all checkpoints of the recipe, narrow; returns the changes that make it use them."""
    torch.manual_seed(0)
    changes = []
    with quiet():
        for name, entry in recipe.experts.items():
            folder = work / name
            kind, dtype = CLASSES[name]
            config = read_architecture(merged(entry.architecture or {}, NARROW[name]), name)
            getattr(transformers, kind)(config).to(dtype).save_pretrained(folder)
            processor, side = PROCESSORS[name]
            size = {"size": {"height": side, "width": side}}
            getattr(transformers, processor)(**size).save_pretrained(folder)
            if name == "captioning":
                words(["[PAD]", "[UNK]", "[CLS]", "[SEP]"], 1000).save_pretrained(folder)
            changes += [f"experts.{name}.{key}" for key in (f"checkpoint={folder}", "revision=null")]
            changes.append(f"experts.{name}.architecture=null")
        changes += language_checkpoint(recipe, work / "language")
    return changes


@torch.no_grad()
def language_checkpoint(recipe: Recipe, folder: Path) -> list[str]:
    """The language model's checkpoint, with a tokenizer of its own."""
    tokenizer = words(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], 2000)
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    tokenizer.chat_template = CHAT
    described = merged(recipe.llm.architecture or {}, NARROW_LANGUAGE)
    config = read_architecture(described, "llm")
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model = transformers.AutoModelForCausalLM.from_config(config)
    # Rows beyond the tokenizer's words are never the likeliest, so that it answers in words.
    model.get_input_embeddings().weight[len(tokenizer) :] = 0
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return [f"llm.checkpoint={folder}", "llm.revision=null", "llm.architecture=null"]


def words(special: list[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of the embedded world's texts and plain questions."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    scenes = list(scenes_of("train", 60, World()))
    asked = [question for scene in scenes for question in Balancer().choose(scene, random.Random(0))]
    texts = [text for number, scene in enumerate(scenes) for text in captions(scene, 3, number)]
    core.train_from_iterator([*texts, *(f"{q.text} {q.answer}" for q in asked), *plain_questions()], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token=special[1] if special[0] == "[PAD]" else None)


class Phases(Reporter):
    """Notes the most memory of each phase of a run, which begins where the run tells of its first work.

    Args:
        stages: names of the recipe's stages.
    """

    def __init__(self, stages: Sequence[str]) -> None:
        self.stages, self.now = stages, "libraries"
        self.peaks: dict[str, int] = {}

    def begin(self, phase: str) -> None:
        """From here on it is another phase."""
        if phase == self.now:
            return
        self.peaks[self.now] = max(self.peaks.get(self.now, 0), status_bytes("VmHWM"))
        print(f"{self.now}: {self.peaks[self.now] / 1e6:.0f} MB", file=sys.stderr)
        forget_peak()
        self.now = phase

    def track(self, label: str, done: int, total: int, note: str = "") -> None:
        if label == "loading the model":
            self.begin("loading")
        elif label == "drawing scenes" or label.startswith("encoding with"):
            self.begin("encoding")
        elif label.startswith("asking"):
            self.begin("asking")
        elif label.startswith(("evaluate", "without")):
            self.begin("evaluation: tasks")
        elif label in self.stages and done == total:
            self.begin("saving")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)
        stage = next((name for name in self.stages if text.startswith(f"{name} ")), None)
        if stage is not None:
            self.begin(stage)


def measured(recipe: Recipe, work: Path) -> dict[str, Any]:
    """Bytes of each phase of a whole run in this process."""
    phases = Phases([plan.name for plan in plan_stages(recipe)])
    standing = status_bytes("VmRSS")
    folder = work / "run"
    trainer.train(recipe, folder, cache=work / "cache", report=phases)
    phases.begin("evaluation: loading")
    model, processor = load_model(folder / "model")
    phases.begin("evaluation: confidence")
    world = open_world(recipe)
    model.confidence_estimator = world.learn_confidence(model, processor.tokenizer)
    phases.begin("evaluation: encoding")
    world.measure(model, processor, report=phases)
    phases.begin("end")
    return {
        "libraries_bytes": standing,
        "phases": phases.peaks,
        "peak_bytes": max(phases.peaks.values()),
        "seconds": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime, 1),
    }


def compare(cost: Estimate, found: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of the table: what is done -> estimate, measurement, ratio, and the ratio without the libraries."""
    process, peaks = cost.process, found["phases"]
    rows = {"loading": process.resident("loading"), "encoding": process.resident("encoding")}
    for stage in cost.stages:
        rows[stage.name] = LIBRARIES + stage.peak + stage.moving + process.training.beside
    rows["evaluation"] = process.resident("evaluation")
    evaluating = max(peak for phase, peak in peaks.items() if phase.startswith("evaluation"))
    there = peaks | {"evaluation": evaluating}
    compared = {what: row(bytes_, there[what], found["libraries_bytes"]) for what, bytes_ in rows.items()}
    return compared | {"whole run": row(process.peak, found["peak_bytes"], found["libraries_bytes"])}


def row(estimated: int, there: int, libraries: int) -> dict[str, Any]:
    """One row."""
    return {
        "estimate_bytes": estimated,
        "measured_bytes": there,
        "ratio": round(estimated / there, 4),
        "ratio_without_libraries": round((estimated - LIBRARIES) / (there - libraries), 4),
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Make the checkpoints, estimate, measure, print, and write the results; returns what was written."""
    parser = argparse.ArgumentParser(description="Estimated against measured memory of a whole run.")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write, beside what it holds")
    parser.add_argument("--work", type=Path, help="folder for checkpoints and the run; a temporary one by default")
    parser.add_argument("--measure", action="store_true", help="only measure, in this process, and print")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="further changes to the recipe")
    chosen = parser.parse_intermixed_args(arguments)
    if chosen.measure:
        found = measured(load_recipe(Recipe, "small", [*CHANGES, *chosen.overrides]), chosen.work)
        print(json.dumps(found))
        return found
    with tempfile.TemporaryDirectory() as temporary:
        work = chosen.work or Path(temporary)
        made = make_checkpoints(load_recipe(Recipe, "small", []), work)
        with TerminalReporter() as report:
            cost = estimate(load_recipe(Recipe, "small", [*CHANGES, *made, *chosen.overrides]), report=report)
        command = [sys.executable, __file__, "--measure", "--work", str(work), *made, *chosen.overrides]
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
    rows = compare(cost, found)
    for what, figures in rows.items():
        print(
            f"{what:<18} estimate {figures['estimate_bytes'] / 1e6:7.0f} MB  measured "
            f"{figures['measured_bytes'] / 1e6:7.0f} MB  ratio {figures['ratio']:.3f}  "
            f"({figures['ratio_without_libraries']:.3f} without the libraries)"
        )
    results = read_results(chosen.out)
    results["run"] = {
        "command": "python benchmarks/estimate_run.py", "commit": commit(), "machine": machine(),
        "overrides": [*CHANGES, *chosen.overrides], "narrow": NARROW | {"language": NARROW_LANGUAGE},
        "parameters": sum(total for total, _ in cost.parameters.values()),
        "process": cost.process.as_dict(), "measured": found, "rows": rows,
    }  # fmt: skip
    return write_results(chosen.out, results)


if __name__ == "__main__":
    main()
