"""Which rule says best what experts a question can do without, by what the bundled model answers without them.

    python benchmarks/skip_designs.py

Every question of the validation sets (eight tasks of questions, two of captions) is answered with every set of
experts; what a rule costs and gains follows from that table. Rules read the gate weights that are expected from the
question alone (`astrea.serving.skipping`):

* ``one threshold``: experts whose weight is less are skipped;
* ``threshold of parts``: the same for the part of all experts' weights, in which the null expert does not count;
* ``threshold by cost``: the same for the weight divided by the expert's share of the processor time;
* ``mass``: the cheapest experts that together have at least such a part of all weights;
* ``threshold per expert``: a threshold for each, `astrea serve --skip-below EXPERT=P`, chosen by trying all of a grid:
  the fastest ones that lose no more than so many points.

Points are those of the average of twelve tasks; retrieval is taken as unchanged. Times: processor time in batches
of 16. What is chosen here is then measured on the test sets by ``benchmarks/skip_experts.py``.
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astrea.common.files import write_json_atomic
from astrea.common.progress import TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.data.packing import CAPTION_PROMPT
from astrea.evaluation.generate import Predictor
from astrea.model.loaded import load
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.serving.features import Picture
from astrea.serving.job import Prompt
from astrea.serving.skipping import ExpectedWeights
from astrea.world.evaluation.runner import encode_test_sets, run_tasks
from astrea.world.evaluation.tasks import CAPTION_TASKS, TASKS, build_test_sets
from astrea.world.scenes.questions import VQA_TASKS

RESULTS = Path(__file__).resolve().parent / "results" / "skip_designs.json"
ASKED = (*VQA_TASKS, *CAPTION_TASKS)
ONE = (0.06, 0.07, 0.075, 0.08, 0.09, 0.1, 0.11)
PARTS = (0.1, 0.15, 0.17, 0.18, 0.19, 0.2, 0.21, 0.22)
MASS = (0.9, 0.8, 0.75, 0.7, 0.65)
GRID = (0.0, 0.05, 0.06, 0.07, 0.075, 0.08, 0.085, 0.09, 0.1, 0.11, 0.12, 0.14)
LOSSES = (0.0, 0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Table:
    """What is answered without which experts. Letters: I items (questions), E experts, S = 2^E sets of skipped experts
    (bit e of a set's number: expert e is skipped).

    weights: (I, E) expected gate weights. points: (S, I) what an item adds to the average. cost: (E,) seconds.
    """

    names: tuple[str, ...]
    weights: np.ndarray
    points: np.ndarray
    cost: np.ndarray

    def outcome(self, skip_IE: np.ndarray) -> tuple[float, float]:
        """Points lost or won, and how many times faster experts are."""
        sets = skip_IE @ (1 << np.arange(len(self.names)))
        every = np.arange(len(sets))
        change = self.points[sets, every].sum() - self.points[0].sum()
        return float(change), float(self.cost.sum() * len(sets) / ((~skip_IE) @ self.cost).sum())

    @property
    def parts(self) -> np.ndarray:
        """(I, E) parts of all experts' weights."""
        return np.asarray(self.weights / self.weights.sum(1, keepdims=True))

    def below(self, thresholds: Sequence[float], weights: np.ndarray | None = None) -> np.ndarray:
        """(I, E) bool: the experts whose weight is less than their threshold, never the one with the largest weight."""
        weights = self.weights if weights is None else weights
        return np.asarray(weights < np.minimum(np.array(thresholds), weights.max(1, keepdims=True)))

    def lightest(self, mass: float) -> np.ndarray:
        """(I, E) bool: what the cheapest sets that have such a part of the weights leave out."""
        kept = np.array([[not set_ >> e & 1 for e in range(len(self.names))] for set_ in range(len(self.points))])
        price = np.where(kept @ self.parts.T >= mass, (kept @ self.cost)[:, None], np.inf)
        price[-1] = np.inf
        return ~kept[price.argmin(0)]


def expected_weights(expected: ExpectedWeights, predictor: Predictor, question: str) -> list[float]:
    """The weights that a question gives the experts."""
    made = predictor.packer.prompts([question], pictures=True)
    prompt = Prompt(made["input_ids"][0], made["question_mask"][0], (Picture("", torch.zeros(0)),))
    return list(expected.of(prompt).values())


def table_of(model: Any, processor: Any, recipe: Recipe, report: TerminalReporter) -> Table:
    """Answer everything with every set of experts."""
    sets = build_test_sets(recipe.world, recipe.data, split="validation")
    encoded, names = encode_test_sets(model, sets), tuple(model.experts.names)
    expected, predictor = ExpectedWeights(model, 1.0), Predictor(model, processor.tokenizer)
    known: dict[str, list[float]] = {}
    weights, points = [], []
    for task in ASKED:
        asked = [item.question.text for item in sets.questions if item.question.task == task]
        for question in asked or [CAPTION_PROMPT] * len(sets.described[task]):
            known[question] = known.get(question) or expected_weights(expected, predictor, question)
            weights.append(known[question])
    for number in range((1 << len(names)) - 1):
        masked = [name for place, name in enumerate(names) if number >> place & 1]
        without = Predictor(model, processor.tokenizer, masked=masked)
        outcome = run_tasks(without, encoded, ASKED, blind=False, label=f"without {masked}", report=report)
        rows = [np.array(outcome.per_item[task], float) for task in ASKED]
        points.append(np.concatenate([100 * row / len(row) / len(TASKS) for row in rows]))
    points.append(np.zeros_like(points[0]))
    scenes = [scene.image for scene in (sets.scenes * 64)[:64]]
    cost = costs(model, processor(images=scenes)["pixel_values"])
    return Table(names, np.array(weights), np.array(points), cost)


@torch.inference_mode()
def costs(model: Any, pixels: torch.Tensor, repeats: int = 3) -> np.ndarray:
    """Processor seconds per picture for each expert, the least of several times."""
    found = np.full((repeats, len(model.experts.names)), np.inf)
    for lot in range(repeats):
        for place, name in enumerate(model.experts.names):
            began = time.process_time()
            for start in range(0, len(pixels), 16):
                model.experts(pixels[start : start + 16], [name])
            found[lot, place] = (time.process_time() - began) / len(pixels)
    return np.asarray(found.min(0))


def rules(table: Table) -> list[dict[str, Any]]:
    """Every rule at every strength."""
    found: list[dict[str, Any]] = []

    def note(rule: str, strength: Any, skip_IE: np.ndarray) -> None:
        change, faster = table.outcome(skip_IE)
        found.append({"rule": rule, "strength": strength, "points": round(change, 2), "times_faster": round(faster, 2)})

    dear = table.cost / table.cost.mean()
    for threshold in ONE:
        note("one threshold", threshold, table.below([threshold] * len(table.names)))
        by_cost = table.weights / dear
        note("threshold by cost", threshold, table.below([threshold] * len(table.names), by_cost))
    for threshold in PARTS:
        note("threshold of parts", threshold, table.below([threshold] * len(table.names), table.parts))
    for mass in MASS:
        note("mass", mass, table.lightest(mass))
    tried = [(each, *table.outcome(table.below(each))) for each in itertools.product(GRID, repeat=len(table.names))]
    for loss in LOSSES:
        each = max((one for one in tried if one[1] >= -loss), key=lambda one: one[2])[0]
        note(f"threshold per expert, at most {loss} lost", dict(zip(table.names, each, strict=True)), table.below(each))
    return found


def main(given: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", nargs="*", default=[], help="changes of the recipe, such as data.test_questions=20")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_intermixed_args(given)
    torch.set_num_threads(1)
    model, processor = load()
    with TerminalReporter() as report:
        table = table_of(model, processor, load_recipe(Recipe, "tiny", options.set), report)
    cost = {name: round(float(1000 * each), 3) for name, each in zip(table.names, table.cost, strict=True)}
    command = shlex.join(["python", "benchmarks/skip_designs.py", *(sys.argv[1:] if given is None else given)])
    head = {"command": command, "commit": commit(), "machine": machine()}
    found = {**head, "items": len(table.weights), "milliseconds": cost, "rules": rules(table)}
    for row in found["rules"]:
        print(f"{row['rule']} {row['strength']}: {row['points']:+.2f} points, x{row['times_faster']}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(options.out, found)
    return found


if __name__ == "__main__":
    main()
