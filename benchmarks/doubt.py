"""When to say "can't tell": 200 questions, half of them answerable, none of them as in training.

    python benchmarks/doubt.py [MODEL] [--earlier FOLDER]

Answerable: a hundred questions about scenes of the test split, in wordings that are held out of training. Not
answerable: twenty about pages of one colour, twenty-five about photographs (those that scikit-image brings), twenty
about things that the world does not have (giraffes), twenty that take for granted what is not there ("what colour is
the cat?" without a cat), all of them in held-out wordings, and fifteen that no picture of the world answers, none of
which is in the training data.

A decision is right if the model answers what can be answered (rightly or not) and says "can't tell" to the rest: it
refuses itself ("none", "cannot tell"), or its calibrated confidence is below the threshold in its folder. That was
chosen on the validation split (`astrea.world.confidence`); this script changes nothing of it.

What doubt costs on the twelve tasks is measured on their test questions, as `astrea evaluate` asks them: a question
that is declined counts as wrong. Captions and retrieval are never declined and keep the scores of the model's card.

--earlier: another model that answers the same questions, such as the one that was shipped before, for comparison.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from astrea.common.files import write_json_atomic
from astrea.common.provenance import commit, machine
from astrea.confidence.calibration import calibration_error
from astrea.confidence.estimator import ConfidenceEstimator
from astrea.confidence.signals import unknown_words
from astrea.data.images import to_square_array
from astrea.evaluation.generate import Predictor
from astrea.evaluation.signals import measure
from astrea.experts.protocol import concat_features
from astrea.model.components import CARD
from astrea.model.loading import load_model
from astrea.recipes.recipe import Data, World
from astrea.retrieval.doubtful import UNLIKE
from astrea.world.bundled import BUNDLED_MODEL
from astrea.world.confidence import Trial, features_of_pictures
from astrea.world.dataset import features_of, scene_at
from astrea.world.evaluation.runner import encode_test_sets
from astrea.world.evaluation.tasks import TASKS, build_test_sets
from astrea.world.scenes.paraphrases import PARAPHRASES, rendered, reworded
from astrea.world.scenes.questions import VQA_TASKS, Balancer
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.templates import MAKERS
from astrea.world.scenes.unanswerable import about_unknown, false_premise, out_of_scope
from astrea.world.scenes.vocabulary import COLOURS, KINDS

RESULTS = Path(__file__).resolve().parent / "results" / "doubt.json"
SEED, FIRST = 41, 50_000
"""The scenes come from far behind those that the twelve tasks are about."""

UNKNOWN = (
    "giraffe",
    "bicycle",
    "elephant",
    "banjo",
    "penguin",
    "scooter",
    "wardrobe",
    "pineapple",
    "kangaroo",
    "teapot",
)
PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock", "coffee", "coins", "grass", "gravel",
    "hubble_deep_field", "immunohistochemistry", "microaneurysms", "moon", "page", "retina", "rocket", "text",
)  # fmt: skip
PAGES = ((255, 255, 255), (0, 0, 0), (128, 128, 128), (250, 240, 220), (30, 60, 120))
OUT_OF_SCOPE = (
    "how many kilometres is it to rome?", "who painted the {0}?", "is the {0} asleep?", "what does the {0} dream of?",
    "when does the shop close?", "is it raining outside?", "how do i cook rice?", "what is the {0} worth?",
    "did somebody lose the {0}?", "what colour was the {0} yesterday?", "who is the author of hamlet?",
    "does the {0} have a brother?", "how loud is the {0}?", "what is the square root of nine?",
    "may i borrow the {0}?",
)  # fmt: skip
ASKED_OF_ANYTHING = (
    "attribute.colour",
    "attribute.kind",
    "attribute.size",
    "existence.kind",
    "counting.kind",
    "area.thing",
)


class Item(NamedTuple):
    """One question: its kind, its picture (a scene or an array of the model's size), and the truth ("" = none)."""

    kind: str
    text: str
    picture: Scene | np.ndarray
    answer: str


def answerable(world: World, count: int) -> list[Item]:
    """Questions in held-out wordings, as many of every template as of any other."""
    rng, balancer = random.Random(SEED), Balancer(strict=True)
    found: list[Item] = []
    names = list(MAKERS)
    index = FIRST
    while len(found) < count:
        scene = scene_at("test", index, world)
        index += 1
        wanted = names[len(found) % len(names)]
        fitting = [q for q in balancer.choose(scene, rng, [wanted.split(".")[0]], per_task=5) if q.template == wanted]
        if fitting:
            asked = reworded(fitting[0], rng, held_out=True)
            found.append(Item("answerable", asked.text, scene, asked.answer))
    return found


def about_strange_pictures(kind: str, pictures: Sequence[np.ndarray], count: int) -> list[Item]:
    """Questions of the world in held-out wordings about pictures that are not of it."""
    rng = random.Random(f"{SEED}/{kind}")
    found = []
    for number in range(count):
        template = ASKED_OF_ANYTHING[number % len(ASKED_OF_ANYTHING)]
        thing = rng.choice(KINDS)
        words = {"attribute.kind": rng.choice(COLOURS), "counting.kind": thing.plural}.get(template, thing.name)
        text = rendered(rng.choice(PARAPHRASES[template].held_out), (words,))
        found.append(Item(kind, text, pictures[number % len(pictures)], ""))
    return found


def unanswerable(world: World, most: int | None) -> list[Item]:
    """The hundred that have no answer, or at most so many of each kind."""
    rng = random.Random(SEED + 1)
    scenes = iter(scene_at("test", FIRST + 10_000 + number, world) for number in range(1000))
    found = about_strange_pictures("page", [np.full((world.canvas,) * 2 + (3,), c, np.uint8) for c in PAGES], 20)
    found += about_strange_pictures("photograph", photographs(world.canvas), 25)
    for _ in range(20):
        scene = next(scenes)
        asked = about_unknown(scene, random.Random(rng.random()), nouns=UNKNOWN, held_out=True, made_up=0.0)
        found.append(Item("unknown thing", asked.text, scene, ""))
    for _ in range(20):
        scene = next(scenes)
        found.append(Item("false premise", false_premise(scene, rng, held_out=True).text, scene, ""))
    for text in OUT_OF_SCOPE:
        scene = next(scenes)
        found.append(Item("out of scope", out_of_scope(scene, rng, (text,)).text, scene, ""))
    kinds = {item.kind: [other for other in found if other.kind == item.kind] for item in found}
    return [item for some in kinds.values() for item in some[:most]]


def photographs(size: int) -> list[np.ndarray]:
    """The pictures of scikit-image, squared."""
    from skimage import data

    found = []
    for name in PHOTOGRAPHS:
        array = getattr(data, name)()
        array = (array.astype(np.float64) / max(1, array.max()) * 255).astype(np.uint8)
        found.append(to_square_array(Image.fromarray(array).convert("RGB"), size))
    return found


def trial_of(model: Any, items: Sequence[Item]) -> Trial:
    """The questions with what the experts see of their pictures."""
    parts = [
        features_of(model.experts, [item.picture])
        if isinstance(item.picture, Scene)
        else features_of_pictures(model, item.picture[None])
        for item in items
    ]
    answers, known = [item.answer for item in items], [item.answer != "" for item in items]
    return Trial(concat_features(parts), [item.text for item in items], list(range(len(items))), answers, known)


def figures(folder: str, items: Sequence[Item]) -> dict[str, Any]:
    """Decisions, answers and calibration of one model on the 200 questions."""
    model, processor = load_model(folder)
    doubt = model.confidence_estimator or ConfidenceEstimator({})
    trial = trial_of(model, items)
    found = measure(
        Predictor(model, processor.tokenizer), dict(doubt.familiar), trial.features, trial.questions, trial.pictures
    )
    unknown = [unknown_words(text, processor.tokenizer) for text in trial.questions]
    verdicts = doubt.judge(found.signs, unknown, model.experts.names)
    right = trial.right(found.answers)
    given = torch.tensor([verdict.answerable for verdict in verdicts])
    known = torch.tensor(trial.answerable)
    stated = found.signs.likelihood.exp()
    sure = torch.tensor(
        [p if v.confidence is None else v.confidence for v, p in zip(verdicts, stated.tolist(), strict=True)]
    )
    decided = given == known
    kinds = {
        kind: [i for i, item in enumerate(items) if item.kind == kind] for kind in dict.fromkeys(i.kind for i in items)
    }
    return {
        "decision_accuracy": percent(decided),
        "by_kind": {kind: percent(decided[rows]) for kind, rows in kinds.items()},
        "called_unlike": {
            kind: percent(torch.tensor([any(UNLIKE in doubt for doubt in verdicts[row].doubts) for row in rows]))
            for kind, rows in kinds.items()
        },
        "refused_by_the_model": {kind: percent(found.signs.refused[rows]) for kind, rows in kinds.items()},
        "answers_right_of_answerable": percent(right[known]),
        "answers_right_of_those_given": percent(right[given & known]),
        "calibration_error": {
            "probability_of_the_words": 100 * calibration_error(stated, right),
            "confidence": 100 * calibration_error(sure, right),
        },
        "reasons_named": percent(torch.tensor([bool(v.doubts) for v in verdicts])[~given]),
        "items": [
            {"kind": i.kind, "question": i.text, "truth": i.answer, "answer": a, "confidence": round(s, 3), "given": g,
             "doubts": list(v.doubts)}
            for i, a, s, g, v in zip(items, found.answers, sure.tolist(), given.tolist(), verdicts, strict=True)
        ],
    }  # fmt: skip


def percent(values: torch.Tensor) -> float | None:
    """Share of true values in per cent; None of nothing."""
    return round(100 * float(values.float().mean()), 2) if len(values) else None


def cost(folder: str, world: World, data: Data, card: dict[str, Any]) -> dict[str, Any]:
    """The twelve scores, and what is left of them where declined questions count as wrong."""
    model, processor = load_model(folder)
    encoded = encode_test_sets(model, build_test_sets(world, data))
    predictor = Predictor(model, processor.tokenizer)
    doubt = model.confidence_estimator or ConfidenceEstimator({})
    kept: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    for task in VQA_TASKS:
        items = [item for item in encoded.sets.questions if item.question.task == task]
        texts, places = [item.question.text for item in items], [item.scene for item in items]
        answers = [item.question.answer for item in items]
        found = measure(predictor, dict(doubt.familiar), encoded.questions, texts, places)
        right = Trial(encoded.questions, texts, places, answers, [True] * len(items)).right(found.answers)
        unknown = [unknown_words(text, processor.tokenizer) for text in texts]
        given = torch.tensor([v.answerable for v in doubt.judge(found.signs, unknown, model.experts.names)])
        raw[task], kept[task] = percent(right), percent(right & given)
    others = {task: card["scores"]["tasks"][task]["score"] for task in TASKS if task not in VQA_TASKS}
    return {
        "average": mean({**raw, **others}),
        "average_with_declined_as_wrong": mean({**kept, **others}),
        "tasks": {**raw, **others},
        "tasks_with_declined_as_wrong": {**kept, **others},
    }


def mean(scores: dict[str, float]) -> float:
    """The average over the tasks."""
    return sum(scores.values()) / len(scores)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, write, and return what was written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", default="shipped")
    parser.add_argument("--earlier", help="folder of another model, for comparison")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--answerable", type=int, default=100, help="how many; 100 by default")
    parser.add_argument("--each", type=int, default=None, help="most of each kind of the others; all by default")
    parser.add_argument("--test-questions", type=int, default=None, help="of each task; as the card says by default")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    card = json.loads(((BUNDLED_MODEL if options.model == "shipped" else Path(options.model)) / CARD).read_text())
    world, data = World.model_validate(card["recipe"]["world"]), Data.model_validate(card["recipe"]["data"])
    if options.test_questions is not None:
        data = data.model_copy(update={"test_questions": options.test_questions, "test_captions": 1})
    items = answerable(world, options.answerable) + unanswerable(world, options.each)
    results = {
        "command": "python benchmarks/doubt.py" + (" --earlier FOLDER" if options.earlier else ""),
        "commit": commit(),
        "machine": machine(),
        "questions": len(items),
        "sha256": card["sha256"],
        **figures(options.model, items),
        "twelve_tasks": cost(options.model, world, data, card),
    }
    if options.earlier:
        earlier = figures(options.earlier, items)
        results["earlier"] = {key: value for key, value in earlier.items() if key != "items"}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(options.out, results)
    print(json.dumps({key: value for key, value in results.items() if key != "items"}, indent=1))
    return results


if __name__ == "__main__":
    main()
