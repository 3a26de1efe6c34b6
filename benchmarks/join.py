"""What a fifth expert that joins a trained model changes, and what it says of real photographs.

    PYTHONPATH=docs/examples python benchmarks/join.py threads=1 data.train_scenes=600 align.steps=200

The model that ships takes in docs/examples/photo_expert.py (ImageNet weights) by alignment alone. Then both models
answer the twelve tasks at the recipe's full test sizes, on the same pictures, and the three photographs that
scikit-image brings of things that ImageNet has a class for.

A score moves by chance, too: beside each difference stands its standard error over the paired items.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from astrea.common.progress import Reporter, TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.evaluation.generate import Predictor
from astrea.model.explanation import explain
from astrea.model.loading import load_model
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import ExpertEntry, Recipe
from astrea.training.add_expert import SHARE, add_expert
from astrea.world.evaluation.runner import METRIC, Outcome, encode_test_sets, run_tasks
from astrea.world.evaluation.tasks import TASKS, build_test_sets
from result_files import write_results

RESULTS = Path(__file__).resolve().parent / "results" / "join.json"
PHOTOGRAPHS = {"chelsea": "cat", "coffee": "cup", "rocket": "rocket"}
QUESTION = "what is in the picture?"
WANTED = 0.5
"""Points that the average may move by."""


def photographs() -> dict[str, Image.Image]:
    """The photographs, which lie in the package itself."""
    from skimage import data

    return {name: Image.fromarray(getattr(data, name)()) for name in PHOTOGRAPHS}


def compared(before: Outcome, after: Outcome) -> dict[str, Any]:
    """Score before and after, per task and on average, with the paired standard error and how many items moved."""
    tasks = {}
    for task in before.scores:
        moved = 100 * (after.per_item[task] - before.per_item[task])
        tasks[task] = {
            "metric": METRIC[task],
            "before": before.scores[task],
            "after": after.scores[task],
            "moved": after.scores[task] - before.scores[task],
            "standard_error": float(moved.std() / np.sqrt(len(moved))),
            "items": len(moved),
            "items_moved": int((np.abs(moved) > 1e-9).sum()),
        }
    errors = [row["standard_error"] for row in tasks.values()]
    return {
        "average": {
            "before": before.average,
            "after": after.average,
            "moved": after.average - before.average,
            "standard_error": float(np.sqrt(np.square(errors).sum()) / len(errors)),
            "wanted": WANTED,
        },
        "tasks": tasks,
    }


@torch.inference_mode()
def said(
    model: AstreaForConditionalGeneration, processor: AstreaProcessor, name: str, picture: Image.Image, known: int
) -> dict[str, Any]:
    """What the newcomer says of a photograph: its tags, its share, and the known words nearest to its first token."""
    why = explain(model, processor, picture, QUESTION)
    pixels = processor.image_processor([picture])["pixel_values"]
    token_D = model.alignment.adapters[name](model.encode_images(pixels)[name].tokens)[0, 0]
    cosine_V = F.cosine_similarity(token_D, model.get_input_embeddings().weight[:known], dim=-1)
    pieces = processor.tokenizer.convert_ids_to_tokens(list(range(known)))
    whole_V = torch.tensor([piece.isalpha() and len(piece) > 1 for piece in pieces])
    near = cosine_V.masked_fill(~whole_V, -1).topk(5)
    words = [pieces[index] for index in near.indices.tolist()]
    return {
        "tags": dict(zip(why.readings[name].labels, why.readings[name].scores, strict=True)),
        "share": why.shares[name],
        "shares": why.shares,
        "answer": why.answer,
        "answer_without": why.masking[name].answer,
        "nearest_known_words": dict(zip(words, near.values.tolist(), strict=True)),
    }


def measure(
    recipe: Recipe, model: str, entry: ExpertEntry, name: str, share: float, report: Reporter
) -> dict[str, Any]:
    """Join, evaluate before and after, ask about photographs."""
    old, processor = load_model(model)
    with tempfile.TemporaryDirectory() as work:
        joined = add_expert(old, processor, recipe, name, entry, Path(work) / "model", share=share, report=report)
        new, new_processor = load_model(Path(work) / "model", trust_remote_code=True)
    state = new.state_dict()
    unchanged = all(torch.equal(state[key], value) for key, value in old.state_dict().items() if
                    state[key].shape == value.shape)  # fmt: skip
    encoded = encode_test_sets(new, build_test_sets(recipe.world, recipe.data))
    outcomes = [
        run_tasks(Predictor(m, p.tokenizer), encoded, TASKS, blind=False, label=label, report=report)
        for m, p, label in ((old, processor, "before"), (new, new_processor, "after"))
    ]
    shares_E = torch.cat(list(outcomes[1].shares.values())).mean(0)
    return {
        **compared(*outcomes),
        "share_on_training_questions": joined.share,
        "shares": dict(zip(new.experts.names, shares_E.tolist(), strict=True)),
        "tensors_of_the_same_shape_are_bit_equal": unchanged,
        "new_words": joined.words,
        "visual_tokens": {"before": old.num_visual_tokens, "after": new.num_visual_tokens},
        "photographs": {
            photo: said(new, new_processor, name, picture, len(processor.tokenizer))
            for photo, picture in photographs().items()
        },
    }


def table(figures: dict[str, Any]) -> str:
    """What was measured, for a terminal."""
    lines = [f"{'task':<16}{'before':>8}{'after':>8}{'moved':>8}{'error':>8}"]
    for task, row in [*figures["tasks"].items(), ("average", figures["average"])]:
        numbers = (row[key] for key in ("before", "after", "moved", "standard_error"))
        lines.append(f"{task:<16}" + "".join(f"{number:8.2f}" for number in numbers))
    for photo, row in figures["photographs"].items():
        tags = ", ".join(f"{tag} {score:.2f}" for tag, score in row["tags"].items())
        lines.append(f"{photo}: {tags}; share {row['share']:.2%}; near {', '.join(row['nearest_known_words'])}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write the results; returns what was written."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description="What an expert that joins a trained model changes.")
    parser.add_argument("--model", default="shipped", help="model folder")
    parser.add_argument("--expert", default="photo_expert:PhotoExpert", help="the newcomer's class, module:Class")
    parser.add_argument("--share", type=float, default=SHARE)
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the recipe")
    chosen = parser.parse_intermixed_args(words)
    recipe = load_recipe(Recipe, "tiny", chosen.overrides)
    with TerminalReporter() as report:
        figures = measure(recipe, chosen.model, ExpertEntry(kind=chosen.expert), "photo", chosen.share, report)
    results = {
        "command": shlex.join(["python", "benchmarks/join.py", *words]),
        "commit": commit(),
        **machine(),
        "model": chosen.model,
        "expert": chosen.expert,
        "share_asked_for": chosen.share,
        "train_scenes": recipe.data.train_scenes,
        "align_steps": recipe.align.steps,
        "seed": recipe.seed,
        **figures,
    }
    print(table(figures))
    return write_results(chosen.out, results)


if __name__ == "__main__":
    main()
