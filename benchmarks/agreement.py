"""What a faulty expert costs the answers, with and without leaving out whom the others contradict.

    python benchmarks/agreement.py

One expert is wrong about every picture, in each way of `astrea.experts.corruption_names` in turn; questions of the
eight VQA tasks are answered as the model is, and with ``config.agreement`` on (`astrea.experts.word_agreement`, learned
from sound experts' training pictures alone). Both once more without the reliability head, where there is one; and with
the faulty expert taken away, which is what the best judge could do by leaving experts out. Losses are points below the
same model with sound experts. In conflict: questions about a word that one expert, the faulty one among them, says and
another contradicts.

Other models are given as NAME=FOLDER; ``--write FOLDER`` writes what was learned into a model's folder.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astrea.common.progress import Reporter, TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.confidence.agreement import save_agreement
from astrea.confidence.signals import reliable_experts
from astrea.evaluation.generate import Features, Predictor
from astrea.evaluation.metrics.vqa import vqa_accuracy
from astrea.experts.corruption_kinds import FUNCTIONS, applies, channels_of
from astrea.experts.corruption_names import KINDS
from astrea.experts.word_agreement import MARGIN, WordAgreement, learn_agreement
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe, World
from astrea.world.dataset import features_of, scenes_of
from astrea.world.evaluation.conflict import conflict_items
from astrea.world.evaluation.tasks import VqaItem, asked_about, drawn_source
from result_files import write_results

RESULTS = Path(__file__).resolve().parent / "results" / "agreement"
KNOWN = ("swapped", "stuck_slots")
"""What recipes train the reliability head on."""
LEFT_OUT = "faulty left out"
TRIALS = {
    "as it is": (True, False),
    "agreement": (True, True),
    "no head": (False, False),
    "no head, agreement": (False, True),
    LEFT_OUT: (False, False),
}
"""Whether the head, and whether agreement, judges."""

Known = dict[tuple[int, tuple[bool, ...]], float]


@dataclass(frozen=True)
class Bench:
    """A model and the questions that it is asked.

    head: its reliability head, if it has one. sound: points of answers that sound experts alone led to, by question and
    by who was heard.
    """

    model: Any
    tokenizer: Any
    items: list[VqaItem]
    head: Any
    sound: Known = field(default_factory=dict)

    @property
    def trials(self) -> list[str]:
        """Those that the model has something to switch for."""
        return [name for name in TRIALS if self.head is not None or not name.startswith("no head")]

    def switch(self, head: bool, agreement: bool) -> None:
        """Turn the head and agreement on or off."""
        self.model.config.agreement = agreement
        if self.head is not None:
            self.model.fusion.trust = self.head if head else None

    @torch.inference_mode()
    def right(self, features: Features, present_NE: Tensor, which: np.ndarray) -> np.ndarray:
        """Whether each question is answered rightly, 0..100; only those of ``which``, in its order."""
        predictor, items = Predictor(self.model, self.tokenizer), [self.items[at] for at in which]
        found = []
        for start in range(0, len(items), predictor.batch):
            part = items[start : start + predictor.batch]
            rows = torch.tensor([item.scene for item in part])
            prompts = predictor.prompts([item.question.text for item in part], pictures=True)
            seen = {"features": predictor.rows(features, rows), "present": present_NE[rows]}
            made = self.model.generate(**prompts, **seen, max_new_tokens=6, do_sample=False)
            texts = self.tokenizer.batch_decode(made[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
            found += [vqa_accuracy(t.strip(), [i.question.answer]) for t, i in zip(texts, part, strict=True)]
        return 100 * np.array(found, dtype=float)

    def measure(self, features: Features, faulty: int | None = None) -> dict[str, tuple[np.ndarray, Tensor]]:
        """By trial: the points of each question, and the share of pictures (E,) about which an expert is believed."""
        count, experts = len(next(iter(features.values())).tokens), len(features)
        own: Known = {}
        found = {}
        for trial in self.trials:
            self.switch(*TRIALS[trial])
            present = torch.ones(count, experts, dtype=torch.bool)
            if trial == LEFT_OUT and faulty is not None:
                present[:, faulty] = False
            heard = reliable_experts(self.model, features, present) & present
            found[trial] = self.points(features, heard, faulty, own), heard.double().mean(0)
        return found

    def points(self, features: Features, heard_NE: Tensor, faulty: int | None, own: Known) -> np.ndarray:
        """Of each question, by those who are heard; asked once for each who are.

        Args:
            own: points of answers in which the faulty expert had a part.
        """
        self.switch(False, False)
        keys = [(at, tuple(heard_NE[item.scene].tolist())) for at, item in enumerate(self.items)]
        known = [own if faulty is not None and heard[faulty] else self.sound for _, heard in keys]
        new = np.array([at for at, key in enumerate(keys) if key not in known[at]], dtype=int)
        for at, value in zip(new.tolist(), self.right(features, heard_NE, new), strict=True):
            known[at][keys[at]] = float(value)
        return np.array([known[at][key] for at, key in enumerate(keys)])


def compare(bench: Bench, features: Features, report: Reporter) -> dict[str, Any]:
    """Of one model: what each fault costs in each trial, in points below the same trial with sound experts."""
    names = tuple(features)
    labels = {name: bench.model.experts[name].labels for name in names}
    sound = bench.measure(features)
    kinds: dict[str, Any] = {kind: {} for kind in KINDS}
    for number, kind in enumerate(KINDS):
        report.track("faults", number, len(KINDS), kind)
        for index, name in enumerate(names):
            channels = channels_of(labels[name])
            if not applies(kind, features[name], channels):
                continue
            wrong = FUNCTIONS[kind](features[name], channels, torch.Generator().manual_seed(1))
            broken = {**features, name: wrong}
            split = conflict_items(bench.items, broken, labels)
            kinds[kind][name] = {"conflict_items": int(split.sum())} | {
                trial: {
                    "loss": float((sound[trial][0] - points).mean()),
                    "conflict_loss": float((sound[trial][0] - points)[split].mean()) if split.any() else None,
                    "believed": float(believed_E[index]),
                }
                for trial, (points, believed_E) in bench.measure(broken, index).items()
            }
    unknown = [kind for kind in KINDS if kind not in KNOWN]
    return {
        "sound": {
            trial: {"accuracy": float(points.mean()), "believed": dict(zip(names, believed_E.tolist(), strict=True))}
            for trial, (points, believed_E) in sound.items()
            if trial != LEFT_OUT
        },
        "kinds": kinds,
        "mean": {kind: mean_of(kinds, [kind], bench.trials) for kind in KINDS}
        | {"all": mean_of(kinds, KINDS, bench.trials), "never trained on": mean_of(kinds, unknown, bench.trials)},
    }


def mean_of(kinds: dict[str, Any], chosen: Sequence[str], trials: Sequence[str]) -> dict[str, Any]:
    """The mean over kinds of the mean over experts, by trial."""
    found: dict[str, Any] = {}
    for trial in trials:
        found[trial] = {}
        for key in ("loss", "conflict_loss", "believed"):
            rows = [[row[trial][key] for row in kinds[kind].values() if row[trial][key] is not None] for kind in chosen]
            found[trial][key] = float(np.mean([np.mean(row) for row in rows if row]))
    return found


def usual_of(model: Any, world: World, count: int) -> WordAgreement:
    """What is usual in training pictures."""
    labels = {name: model.experts[name].labels for name in model.experts.names}
    return learn_agreement(features_of(model.experts, list(scenes_of("train", count, world))), labels)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["bundled=shipped"], help="NAME=FOLDER")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--train", type=int, default=1600, help="pictures to learn from")
    parser.add_argument("--questions", type=int, default=75, help="of each task")
    parser.add_argument("--margin", type=float, default=MARGIN, help="times the limit up to which one is believed")
    parser.add_argument("--write", type=Path, help="only write what was learned into this folder of the first model")
    parser.add_argument("--out", type=Path, help="by default results/agreement/SPLIT.json")
    chosen = parser.parse_intermixed_args(words)
    recipe = load_recipe(Recipe, "tiny")
    torch.set_num_threads(1)
    pairs = [one.split("=", 1) for one in chosen.models]
    if chosen.write is not None:
        save_agreement(usual_of(load_model(pairs[0][1])[0], recipe.world, chosen.train), chosen.write)
        return {}
    world = recipe.world
    scenes, items = asked_about(drawn_source(world), chosen.split, chosen.questions, seed=world.seed + 1)
    found = {}
    with TerminalReporter() as report:
        for name, folder in pairs:
            model, processor = load_model(folder)
            model.model.word_agreement = usual_of(model, world, chosen.train)
            model.model.word_agreement.margin = chosen.margin
            bench = Bench(model, processor.tokenizer, items, getattr(model.fusion, "trust", None))
            found[name] = compare(bench, features_of(model.experts, scenes), report)
    results = {
        "command": shlex.join(["python", "benchmarks/agreement.py", *words]),
        "commit": commit(),
        **machine(),
        "split": chosen.split,
        "margin": chosen.margin,
        "pictures": len(scenes),
        "questions": len(items),
        "models": found,
    }
    for name, model_found in found.items():
        print(f"{name}: sound { ({t: round(each['accuracy'], 2) for t, each in model_found['sound'].items()}) }")
        for kind, row in model_found["mean"].items():
            cells = (f"{t} {r['loss']:.1f}/{r['conflict_loss']:.1f} ({r['believed']:.0%})" for t, r in row.items())
            print(f"  {kind}: {'; '.join(cells)}")
    return write_results(chosen.out or RESULTS / f"{chosen.split}.json", results)


if __name__ == "__main__":
    main()
