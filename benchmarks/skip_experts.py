"""What it costs and gains not to run experts whose gate weight is expected to be small (`astrea serve --skip-below`).

    python benchmarks/skip_experts.py

The shipped model answers the twelve tasks of its recipe's test sets. For every question the experts whose expected part
of the weights is below the threshold are masked, as the server does; pictures are embedded with all experts, because no
question is asked then. Vision time: processor seconds to run the experts that are needed, batched per expert, for
pictures that are not cached, in batches of ``--batch`` with questions of all tasks mixed.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astrea.common.files import write_json_atomic
from astrea.common.progress import TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.data.packing import CAPTION_PROMPT
from astrea.evaluation.generate import Answered, Features, Predictor
from astrea.model.loaded import load
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.serving.features import FeatureCache, Picture
from astrea.serving.job import Prompt
from astrea.serving.skipping import ExpectedWeights, thresholds
from astrea.world.evaluation.runner import encode_test_sets, run_tasks
from astrea.world.evaluation.tasks import RETRIEVAL_TASKS, TASKS, build_test_sets

RESULTS = Path(__file__).resolve().parent / "results" / "skip_experts.json"
THRESHOLDS = ("0", "0.1", "0.15", "0.18", "0.2", "0.22")


class Skipping(Predictor):
    """Answers each question without the experts that it is not expected to need, and notes which those were."""

    def __init__(self, expected: ExpectedWeights, processor: Any) -> None:
        super().__init__(expected.model, processor.tokenizer)
        self.expected, self.skips = expected, []
        self.known: dict[str, frozenset[str]] = {}

    def skipped(self, question: str) -> frozenset[str]:
        """The experts that a question skips."""
        if question not in self.known:
            made = self.packer.prompts([question], pictures=True)
            prompt = Prompt(made["input_ids"][0], made["question_mask"][0], (Picture("", torch.zeros(0)),))
            self.known[question] = frozenset(self.expected.skipped(prompt))
        return self.known[question]

    def answer(
        self, questions: Sequence[str], features: Features | None, pictures: Tensor | None, **more: Any
    ) -> Answered:
        groups: dict[frozenset[str], list[int]] = defaultdict(list)
        for place, question in enumerate(questions):
            groups[self.skipped(question)].append(place)
        self.skips += [self.skipped(question) for question in questions]
        texts = [""] * len(questions)
        shares = torch.zeros(len(questions), len(self.model.experts.names))
        for left_out, places in groups.items():
            alone = Predictor(self.model, self.tokenizer, masked=sorted(left_out))
            rows = None if pictures is None else pictures[places]
            found = alone.answer([questions[place] for place in places], features, rows, **more)
            shares[places] = found.shares
            for place, text in zip(places, found.texts, strict=True):
                texts[place] = text
        return Answered(texts, shares)

    def likelihood(self, features: Features | None, wanted: Any, texts: Sequence[str], **more: Any) -> list[Tensor]:
        alone = Predictor(self.model, self.tokenizer, masked=sorted(self.skipped(CAPTION_PROMPT)))
        return alone.likelihood(features, wanted, texts, **more)


@torch.inference_mode()
def vision_seconds(model: Any, pixels: Tensor, skips: Sequence[frozenset[str]], batch: int) -> float:
    """Processor time for the experts to see pictures (N, 3, S, S), of each of which a question skips some."""
    cache = FeatureCache(model.experts, pixels.shape[-1], model.device, 0)
    pictures = [Picture(str(number), one) for number, one in enumerate(pixels)]
    began = time.process_time()
    for start in range(0, len(pictures), batch):
        cache.of(pictures[start : start + batch], skips[start : start + batch])
    return time.process_time() - began


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", nargs="*", default=[], help="changes of the recipe, such as data.test_questions=20")
    parser.add_argument(
        "--thresholds",
        nargs="*",
        default=THRESHOLDS,
        help="P, or EXPERT=P,EXPERT=P; the first is what others are compared with",
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--timed", type=int, default=192, help="pictures whose vision time is measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    model, processor = load()
    recipe = load_recipe(Recipe, "tiny", options.set)
    rows: list[dict[str, Any]] = []
    with TerminalReporter() as report:
        sets = build_test_sets(recipe.world, recipe.data)
        encoded = encode_test_sets(model, sets)
        images = [scene.image for scene in (sets.scenes * options.timed)[: options.timed]]
        pixels = processor(images=images)["pixel_values"]
        skips: dict[str, list[frozenset[str]]] = {}
        found_by: dict[frozenset[str], dict[str, float]] = {}
        for threshold in options.thresholds:
            predictor = Skipping(ExpectedWeights(model, thresholds(threshold.split(","))), processor)
            asked = [task for task in TASKS if task not in RETRIEVAL_TASKS]
            outcome = run_tasks(predictor, encoded, asked, blind=False, label=f"below {threshold}", report=report)
            # Retrieval asks one question of every picture, so it is the same for all thresholds that skip the same.
            if (left_out := predictor.skipped(CAPTION_PROMPT)) not in found_by:
                found = run_tasks(predictor, encoded, RETRIEVAL_TASKS, blind=False, label="retrieval", report=report)
                found_by[left_out] = found.scores
            scores = {**outcome.scores, **found_by[left_out]}
            skips[threshold] = random.Random(0).choices(predictor.skips, k=options.timed)
            run = 1 - sum(map(len, predictor.skips)) / (len(predictor.skips) * len(model.experts.names))
            average = sum(scores.values()) / len(scores)
            rows.append({"below": threshold, "average": average, "tasks": scores, "run": round(run, 4)})
        # In turns, so that what else the machine does falls on all of them.
        lots = [list(skips.values())] * options.repeats
        seconds = [[vision_seconds(model, pixels, some, options.batch) for some in lot] for lot in lots]
    for number, row in enumerate(rows):
        row["vision_seconds"] = round(min(lot[number] for lot in seconds), 3)
        row["times_faster"] = round(min(lot[0] for lot in seconds) / row["vision_seconds"], 2)
        print(
            f"below {row['below']}: average {row['average']:.2f} ({row['average'] - rows[0]['average']:+.2f}), "
            f"{row['run']:.0%} of experts run, vision x{row['times_faster']:.2f}"
        )
    command = shlex.join(["python", "benchmarks/skip_experts.py", *(sys.argv[1:] if given is None else given)])
    found = {"command": command, "commit": commit(), "machine": machine(), "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(options.out, found)
    return json.loads(options.out.read_text())


if __name__ == "__main__":
    main()
