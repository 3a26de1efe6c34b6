"""A model of the recipe `photo` on photographs that are no compositions: five questions about each of five pictures.

    python benchmarks/real_photographs.py RUN/model

The pictures are scikit-image's (chelsea, coffee, rocket, astronaut, page). Questions and the answers that count as
right stand below and were written before any model was asked; answers are kept as they come, right or wrong, with the
gate weights, in benchmarks/results/real_photographs.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image

from astrea.common.files import write_json_atomic
from astrea.common.provenance import commit, machine
from astrea.evaluation.metrics.vqa import normalise_answer
from astrea.model.loaded import load

RESULTS = Path(__file__).resolve().parent / "results" / "real_photographs.json"

ASKED: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "chelsea": (
        ("is there a cat?", ("yes",)),
        ("is there a car?", ("no",)),
        ("what is in the picture?", ("cat", "tabby", "egyptian cat", "kitten")),
        ("is there an animal?", ("yes",)),
        ("how many animals are there?", ("1", "one")),
    ),
    "coffee": (
        ("is there a cup?", ("yes",)),
        ("is there a dog?", ("no",)),
        ("what is in the picture?", ("cup", "coffee", "espresso", "coffee cup", "cup of coffee", "mug")),
        ("is there an animal?", ("no",)),
        ("is there a spoon?", ("yes",)),
    ),
    "rocket": (
        ("is there a rocket?", ("yes",)),
        ("is there a horse?", ("no",)),
        ("what is in the picture?", ("rocket", "missile")),
        ("is there a person?", ("no",)),
        ("is there a vehicle?", ("yes",)),
    ),
    "astronaut": (
        ("is there a person?", ("yes",)),
        ("is there a banana?", ("no",)),
        ("what is in the picture?", ("astronaut", "person", "woman")),
        ("what colour is the thing at the bottom left?", ("orange",)),
        ("is there a horse?", ("no",)),
    ),
    "page": (
        ("is there a cat?", ("no",)),
        ("is there a sign?", ("yes",)),
        ("what does the sign say?", ("region-based segmentation",)),
        ("is there a car?", ("no",)),
        ("can you read segmentation on the sign?", ("yes",)),
    ),
}


def photograph(name: str) -> Image.Image:
    """One of scikit-image's pictures."""
    from skimage import data

    return Image.fromarray(getattr(data, name)()).convert("RGB")


def measured(folder: Path) -> dict[str, Any]:
    """All answers of a model, and how many are right."""
    model = load(folder)
    pictures = {}
    for name, asked in ASKED.items():
        rows = []
        for question, right in asked:
            found = model.ask(photograph(name), question)
            shares = {expert: round(share, 3) for expert, share in found.shares.items()}
            rows.append(
                {
                    "question": question,
                    "answer": found.answer,
                    "right": normalise_answer(found.answer) in {normalise_answer(each) for each in right},
                    "shares": shares,
                }
            )
        pictures[name] = rows
    every = [row["right"] for rows in pictures.values() for row in rows]
    return {"right": sum(every), "asked": len(every), "pictures": pictures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    results = {**measured(given.model), "commit": commit(), "machine": machine()}
    write_json_atomic(given.out, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
