"""Whether text in pictures is read by the whole model: signs in compositions, and pages, with and without tiles.

    python benchmarks/reading.py RUN [--questions 60]

RUN is a finished run of the recipe `photo`. It is asked, in the words that it was trained with,

* what the sign says, in compositions of the test split that have one: with all experts, without the one that reads, and
  without the picture (blind). Beside it stands what that expert read;
* what "the sign" says, and whether one can read a word there, of four pages (`pages.py`): scikit-image's and three of
  1,200 x 1,600 pixels. The model was trained with one line of six word pieces, which is no page, so the expert that
  reads is given `PAGES`, with and without tiles. Which line is meant nobody says: any one is right, word by word.

``exact``: the share of answers that are right word by word. ``words``: of the longer one of answer and line, how many
words stand in both in the same order; case and punctuation do not count. All answers are kept as they come, in
benchmarks/results/reading.json.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from astrea.common.progress import TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.data.worlds import open_world
from astrea.evaluation.generate import Features, Predictor, encode
from astrea.model.loading import load_model
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world.evaluation.tasks import asked_about
from astrea.world.photographs.dataset import features_of
from astrea.world.photographs.evaluate import source_of
from astrea.world.photographs.world import PhotographWorld
from pages import Page, pages
from result_files import write_results

RESULTS = Path(__file__).resolve().parent / "results" / "reading.json"
READER = "reading"
"""The recipe's name of the expert that reads."""

PAGES = {"lines": 32, "pieces": 24}
TILES = 64
ASKED, FOUND = "what does the sign say?", "can you read {} on the sign?"
LONGEST = 24
"""Word pieces of an answer: as many as of a line."""


def words_of(text: str) -> list[str]:
    """The words of a text, without case and punctuation."""
    return re.findall(r"[\w'-]+", text.lower())


def scored(said: str, lines: Sequence[str]) -> tuple[bool, float]:
    """Whether an answer is one of the lines, and the share of the words that it has in common with the one that is
    nearest to it."""
    words = words_of(said)
    best = 0.0
    for line in lines:
        there = words_of(line)
        shared = sum(block.size for block in SequenceMatcher(None, words, there, False).get_matching_blocks())
        best = max(best, shared / max(len(words), len(there), 1))
    return best == 1, best


def summed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``exact`` and ``words`` of rows, in per cent."""
    found = [scored(row["answer"], row["lines"]) for row in rows]
    return {
        "n": len(rows),
        "exact": 100 * fmean(exact for exact, _ in found),
        "words": 100 * fmean(words for _, words in found),
    }


def read_lines(model: AstreaForConditionalGeneration, tokenizer: Any, features: Features) -> list[list[str]]:
    """What the expert read in each picture, line by line, as the language model gets it."""
    text = slice(*model.experts[READER].slots["text"])
    part = features[READER]
    return [
        [
            tokenizer.decode([int(token) for token in line.tolist() if token >= 0]).strip()
            for line, sure in zip(lines, confidence.tolist(), strict=True)
            if sure > 0
        ]
        for lines, confidence in zip(part.tokens[..., text].round(), part.confidence, strict=True)
    ]


def of_signs(run: Path, questions: int, report: TerminalReporter) -> dict[str, Any]:
    """Signs in compositions: scores by who reads, and all answers."""
    model, processor = load_model(run / "model")
    world = open_world(load_recipe(Recipe, str(run / "recipe.yaml")))
    assert isinstance(world, PhotographWorld)
    makers = {"reading.word": world.made.questions.makers["reading.word"]}
    source = source_of(world.made, replace(world.made.questions, makers=makers, tasks=("reading",)))
    scenes, asked = asked_about(source, "test", questions, seed=source.seed + 4)
    features = features_of(model.experts, world.made, scenes, report=report)
    texts, picture = [item.question.text for item in asked], torch.tensor([item.scene for item in asked])
    ways = {"all experts": ((), picture), "without the reader": ((READER,), picture), "blind": ((), None)}
    said = {}
    for number, (way, (masked, shown)) in enumerate(ways.items()):
        report.track("signs", number, len(ways), way)
        predictor = Predictor(model, processor.tokenizer, masked=masked)
        said[way] = predictor.answer(texts, features, shown, longest=LONGEST).texts
    read = read_lines(model, processor.tokenizer, features)
    said["the expert itself"] = [" ".join(read[item.scene]) for item in asked]
    rows = {
        way: [{"answer": answer, "lines": [item.question.answer]} for answer, item in zip(answers, asked, strict=True)]
        for way, answers in said.items()
    }
    answers = [
        {"question": item.question.text, "sign": item.question.answer, **{way: said[way][row] for way in said}}
        for row, item in enumerate(asked)
    ]
    return {"scores": {way: summed(some) for way, some in rows.items()}, "answers": answers}


def questions_about(page: Page) -> list[tuple[str, tuple[str, ...]]]:
    """What is asked of a page, and which answers are right: its lines, and as many words that are on it as are not.
    The longest words, one of a line."""
    words = [max(line.strip(".,:").split(), key=len).strip(".,:").lower() for line in page.lines]
    here = words[:: max(1, len(words) // len(page.absent))][: len(page.absent)]
    there = [(FOUND.format(word), (answer,)) for some, answer in ((here, "yes"), (page.absent, "no")) for word in some]
    return [(ASKED, page.lines), *there]


def of_pages(
    folder: Path, options: dict[str, int] | None = None, masked: Sequence[str] = (), blind: bool = False
) -> dict[str, Any]:
    """Pages: scores of a model over all of them, and all answers.

    Args:
        options: of the expert that reads, instead of those that it was trained with.
    """
    model, processor = load_model(folder, expert_options={READER: options} if options else None)
    predictor = Predictor(model, processor.tokenizer, masked=masked)
    found = {}
    for page in pages():
        features = encode(model, processor, [page.picture])
        asked = questions_about(page)
        shown = None if blind else torch.zeros(len(asked), dtype=torch.long)
        answered = predictor.answer([question for question, _ in asked], features, shown, longest=LONGEST)
        found[page.name] = {
            "read": read_lines(model, processor.tokenizer, features)[0],
            "rows": [
                {"question": question, "lines": list(right), "answer": answer}
                for (question, right), answer in zip(asked, answered.texts, strict=True)
            ],
        }
    rows = [row for page in found.values() for row in page["rows"]]
    read = [scored(line, found[page.name]["read"])[0] for page in pages() for line in page.lines]
    return {
        "line": summed([row for row in rows if row["question"] == ASKED]),
        "word": summed([row for row in rows if row["question"] != ASKED]),
        "lines read by the expert": {"n": len(read), "exact": 100 * fmean(read)},
        "pages": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--questions", type=int, default=60, help="about signs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    folder, whole, tiled = given.run / "model", {**PAGES, "tiles": 0}, {**PAGES, "tiles": TILES}
    with TerminalReporter() as report:
        signs = of_signs(given.run, given.questions, report)
        report.say("pages")
        found = {
            "as trained": of_pages(folder),
            "no tiles": of_pages(folder, whole),
            "tiles": of_pages(folder, tiled),
            "tiles, without the reader": of_pages(folder, tiled, masked=[READER]),
            "blind": of_pages(folder, blind=True),
        }
    results = {
        "signs": signs,
        "pages": found,
        "options": tiled,
        "commit": commit(),
        "machine": machine(),
    }
    write_results(given.out, results)
    print(
        json.dumps({"signs": signs["scores"], "pages": {way: (row["line"], row["word"]) for way, row in found.items()}})
    )


if __name__ == "__main__":
    main()
