"""What it costs and gains not to run experts whose gate weight is expected to be small (`astrea serve --skip-below`).

    python benchmarks/skip_experts.py

The shipped model, or that of ``--model``, answers the twelve tasks of its recipe's test sets. For every question the
experts whose expected weight is below the threshold are masked, as the server does; with ``P:SURE`` they look after
all, one by one, while the first token of the answer is less probable (`--skip-sure`). Pictures are embedded with all
experts, because no question is asked then.

Vision time: processor seconds to run the experts that are needed, batched per expert, for pictures that are not cached,
in batches of ``--batch`` an expert with questions of all tasks mixed, those who look again among them. Reading
time: processor seconds in which the language model reads the prompts, again after every look.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from astrea.common.files import write_json_atomic
from astrea.common.progress import TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.data.packing import CAPTION_PROMPT
from astrea.evaluation.generate import Answered, Features, Predictor, encode
from astrea.model.loaded import load
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.serving.features import FeatureCache, Picture
from astrea.serving.job import Prompt
from astrea.serving.skipping import ExpectedWeights, thresholds
from astrea.world.evaluation.runner import encode_test_sets, run_tasks
from astrea.world.evaluation.tasks import RETRIEVAL_TASKS, TASKS, build_test_sets

RESULTS = Path(__file__).resolve().parent / "results" / "skip_experts.json"
CLIENTS = 16
"""Pictures that have come before somebody who looks again."""
THRESHOLDS = ("0", "0.06", "0.07", "0.08", "0.09", "0.07:0.85", "0.08:0.85", "0.09:0.85")


class Skipping(Predictor):
    """Answers each question without the experts that it is not expected to need, and notes which those were.

    Args:
        sure: the least probability of an answer's first token; below it skipped experts look after all, one by one.

    Attributes:
        asked: of every question, its text and, per look at the picture, the experts that do not run.
    """

    def __init__(self, expected: ExpectedWeights, processor: Any, sure: float = 0.0) -> None:
        super().__init__(expected.model, processor.tokenizer)
        self.expected, self.sure = expected, sure
        self.asked: list[tuple[str, list[frozenset[str]]]] = []
        self.known: dict[str, tuple[frozenset[str], Prompt]] = {}

    def skipped(self, question: str) -> frozenset[str]:
        """The experts that a question skips at first."""
        if question not in self.known:
            made = self.packer.prompts([question], pictures=True)
            prompt = Prompt(made["input_ids"][0], made["question_mask"][0], (Picture("", torch.zeros(0)),))
            self.known[question] = frozenset(self.expected.skipped(prompt)), prompt
        return self.known[question][0]

    def answer(
        self, questions: Sequence[str], features: Features | None, pictures: Tensor | None, **more: Any
    ) -> Answered:
        assert features is not None
        assert pictures is not None
        left_out = [self.skipped(question) for question in questions]
        looks = [[one] for one in left_out]
        unsure = [place for place, one in enumerate(left_out) if one and self.sure]
        while unsure:
            here = [left_out[place] for place in unsure]
            first = self.first_tokens([questions[place] for place in unsure], features, pictures[unsure], here)
            unsure = [place for place, sure in zip(unsure, first, strict=True) if sure < self.sure]
            for place in unsure:
                wanted = self.expected.next(self.known[questions[place]][1], left_out[place])
                left_out[place] -= {wanted}
                looks[place].append(frozenset(self.model.experts.names) - {wanted})
            unsure = [place for place in unsure if left_out[place]]
        self.asked += zip(questions, looks, strict=True)
        groups: dict[frozenset[str], list[int]] = defaultdict(list)
        for place, one in enumerate(left_out):
            groups[one].append(place)
        texts = [""] * len(questions)
        shares = torch.zeros(len(questions), len(self.model.experts.names))
        for one, places in groups.items():
            alone = Predictor(self.model, self.tokenizer, masked=sorted(one))
            found = alone.answer([questions[place] for place in places], features, pictures[places], **more)
            shares[places] = found.shares
            for place, text in zip(places, found.texts, strict=True):
                texts[place] = text
        return Answered(texts, shares)

    @torch.inference_mode()
    def first_tokens(
        self, questions: Sequence[str], features: Features, pictures: Tensor, left_out: Sequence[frozenset[str]]
    ) -> list[float]:
        """How probable the likeliest first token of each answer is."""
        found: list[float] = []
        names = self.model.experts.names
        for start in range(0, len(questions), self.batch):
            part = slice(start, start + self.batch)
            present = torch.tensor([[name not in one for name in names] for one in left_out[part]])
            inputs = self.prompts(questions[part], pictures=True)
            out = self.model(**inputs, features=self.rows(features, pictures[part]), present=present, use_cache=False)
            found += out.logits[:, -1].float().softmax(-1).amax(-1).tolist()
        return found

    def likelihood(self, features: Features | None, wanted: Any, texts: Sequence[str], **more: Any) -> list[Tensor]:
        alone = Predictor(self.model, self.tokenizer, masked=sorted(self.skipped(CAPTION_PROMPT)))
        return alone.likelihood(features, wanted, texts, **more)


Asked = Sequence[tuple[str, Sequence[frozenset[str]]]]
"""Questions, and the experts that do not run at each look at their pictures."""


def in_turn(asked: Asked, names: Sequence[str], batch: int) -> Iterator[list[tuple[int, int]]]:
    """Batches of (which question, which look), as a server makes them: until an expert has so many pictures. Who looks
    again waits where the next 16 pictures have been let in."""
    waiting = deque((number, 0) for number in range(len(asked)))
    while waiting:
        now, pictures = [], dict.fromkeys(names, 0)
        while waiting:
            number, look = waiting[0]
            for name in set(names) - asked[number][1][look]:
                pictures[name] += 1
            if now and max(pictures.values()) > batch:
                break
            now.append(waiting.popleft())
        yield now
        again = [(number, look + 1) for number, look in now if look + 1 < len(asked[number][1])]
        for place, one in enumerate(again):
            waiting.insert(min(len(waiting), CLIENTS + place), one)


@torch.inference_mode()
def vision_seconds(model: Any, pixels: Tensor, asked: Asked, batch: int) -> float:
    """Processor time for the experts to see pictures (N, 3, S, S), about each of which a question is asked."""
    cache = FeatureCache(model.experts, pixels.shape[-1], model.device, 0)
    pictures = [Picture(str(number), one) for number, one in enumerate(pixels)]
    began = time.process_time()
    for now in in_turn(asked, model.experts.names, batch):
        cache.each([pictures[number] for number, _ in now], [asked[number][1][look] for number, look in now])
    return time.process_time() - began


def reading_seconds(predictor: Skipping, features: Features, asked: Asked, batch: int) -> float:
    """Processor time for the language model to read their prompts, once for every look."""
    began = time.process_time()
    for now in in_turn(asked, predictor.model.experts.names, batch):
        rows = torch.tensor([number for number, _ in now])
        predictor.first_tokens([asked[number][0] for number, _ in now], features, rows, [frozenset()] * len(now))
    return time.process_time() - began


def row_of(threshold: str, scores: dict[str, float], predictor: Skipping) -> dict[str, Any]:
    """What is known of a threshold before times are measured. run: share of experts. looks: at each picture."""
    experts = len(predictor.model.experts.names)
    looks = [one for _, each in predictor.asked for one in each]
    run = sum(experts - len(one) for one in looks) / (len(predictor.asked) * experts)
    average = sum(scores.values()) / len(scores)
    looked = round(len(looks) / len(predictor.asked), 3)
    return {"below": threshold, "average": average, "tasks": scores, "run": round(run, 4), "looks": looked}


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", nargs="*", default=[], help="changes of the recipe, such as data.test_questions=20")
    parser.add_argument(
        "--thresholds",
        nargs="*",
        default=THRESHOLDS,
        help="P, or EXPERT=P,EXPERT=P, and behind a colon --skip-sure; the first is what others are compared with",
    )
    parser.add_argument("--model", default=None, help="a folder; the model of the package if none is named")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--timed", type=int, default=192, help="pictures whose vision time is measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_intermixed_args(given)
    torch.set_num_threads(1)
    model, processor = load(*([] if options.model is None else [options.model]))
    recipe = load_recipe(Recipe, "tiny", options.set)
    rows: list[dict[str, Any]] = []
    with TerminalReporter() as report:
        sets = build_test_sets(recipe.world, recipe.data, split=options.split)
        encoded = encode_test_sets(model, sets)
        images = [scene.image for scene in (sets.scenes * options.timed)[: options.timed]]
        pixels = processor(images=images)["pixel_values"]
        drawn: list[Asked] = []
        found_by: dict[frozenset[str], dict[str, float]] = {}
        for threshold in options.thresholds:
            below, _, sure = threshold.partition(":")
            predictor = Skipping(ExpectedWeights(model, thresholds(below.split(","))), processor, float(sure or 0))
            asked = [task for task in TASKS if task not in RETRIEVAL_TASKS]
            outcome = run_tasks(predictor, encoded, asked, blind=False, label=f"below {threshold}", report=report)
            # Retrieval asks one question of every picture, so it is the same for all thresholds that skip the same.
            if (left_out := predictor.skipped(CAPTION_PROMPT)) not in found_by:
                found = run_tasks(predictor, encoded, RETRIEVAL_TASKS, blind=False, label="retrieval", report=report)
                found_by[left_out] = found.scores
            scores = {**outcome.scores, **found_by[left_out]}
            drawn.append(random.Random(0).choices(predictor.asked, k=options.timed))
            rows.append(row_of(threshold, scores, predictor))
        features = encode(model, processor, images)
        # In turns, so that what else the machine does falls on all of them.
        lots = [drawn] * options.repeats
        vision = [[vision_seconds(model, pixels, some, options.batch) for some in lot] for lot in lots]
        reading = [[reading_seconds(predictor, features, some, options.batch) for some in lot] for lot in lots]
    for number, row in enumerate(rows):
        row["vision_seconds"] = round(min(lot[number] for lot in vision), 3)
        row["reading_seconds"] = round(min(lot[number] for lot in reading), 3)
        row["times_faster"] = round(min(lot[0] for lot in vision) / row["vision_seconds"], 2)
        print(
            f"below {row['below']}: average {row['average']:.2f} ({row['average'] - rows[0]['average']:+.2f}), "
            f"{row['run']:.0%} of experts run, vision x{row['times_faster']:.2f}, {row['looks']} looks, "
            f"{row['reading_seconds']} s of reading"
        )
    command = shlex.join(["python", "benchmarks/skip_experts.py", *(sys.argv[1:] if given is None else given)])
    found = {"command": command, "commit": commit(), "machine": machine(), "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(options.out, found)
    return json.loads(options.out.read_text())


if __name__ == "__main__":
    main()
