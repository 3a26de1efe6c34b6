"""What alignment taught, before anything is asked: whether features say the names of things, and which they can't know.

    python benchmarks/aligned_names.py RUN [--scenes 200]

RUN is a run of the recipe `photo` or one like it; `fuse.steps=0 tune.steps=0` leaves the stage of alignment alone. Of
every thing in compositions of the validation split: whether a finding lies in its box (``covered``), and whether the
token of features of one that does is nearer to its name than to any other name of training (``named``), in per cent.
Of things that training never showed, and lie in the split ``new``: how often the cosine with the nearest name is lower
than that of a rightly named thing (``familiar_auc``: 0.5 = it tells nothing, 1 = always).

The results are kept in benchmarks/results/aligned_names.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from astrea.alignment.known_words import KnownWords, known_words, with_known
from astrea.alignment.phrase_ids import PhraseIds
from astrea.common.files import write_json_atomic
from astrea.common.provenance import commit, machine
from astrea.data.worlds import open_world
from astrea.language.labels import inside_a_sentence
from astrea.model.loading import load_model
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world.photographs.compositions import Compositions
from astrea.world.photographs.dataset import features_of
from astrea.world.photographs.scene import PhotoScene, Thing

RESULTS = Path(__file__).resolve().parent / "results" / "aligned_names.json"
BATCH = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """A thing, an expert, and the nearest name to the expert's first finding in its box: -1 and 0.0 without one."""

    thing: Thing
    expert: int
    name: int
    cosine: float


def findings(
    model: AstreaForConditionalGeneration, made: Compositions, known: KnownWords, split: str, count: int
) -> Iterator[Finding]:
    """Every thing of the first scenes of a split with every expert that has features."""
    for first in range(0, count, BATCH):
        scenes = [made.scene(split, number) for number in range(first, min(count, first + BATCH))]
        with torch.no_grad():
            matrix = model.model.alignment(features_of(model.experts, made, scenes))
            cosine, name = known.nearest(matrix.tokens)
        for row, scene in enumerate(scenes):
            for thing in scene.things:
                for expert in matrix.expert[matrix.features].unique().tolist():
                    mine = matrix.features & (matrix.expert == expert) & matrix.valid[row]
                    inside = (mine & within(matrix.places[row], thing, scene)).nonzero().flatten().tolist()
                    at = inside[0] if inside else None
                    yield Finding(
                        thing,
                        expert,
                        -1 if at is None else int(name[row, at]),
                        0.0 if at is None else float(cosine[row, at]),
                    )


def within(places_T2: torch.Tensor, thing: Thing, scene: PhotoScene) -> torch.Tensor:
    """Which places lie in a thing's box: (T,) bool."""
    x0, y0, x1, y1 = (edge / scene.spec.canvas for edge in thing.box)
    x, y = places_T2.unbind(-1)
    return (x > x0) & (x < x1) & (y > y0) & (y < y1)


def measured(run: Path, count: int) -> dict[str, Any]:
    """The figures of a run's model, by expert."""
    model, processor = load_model(run / "model")
    made: Compositions = open_world(load_recipe(Recipe, str(run / "recipe.yaml"))).made  # type: ignore[attr-defined]
    names = list(made.catalogue.trained)
    pieces = [inside_a_sentence(name, processor.tokenizer) for name in names]
    ids = with_known(PhraseIds.model_validate(model.config.phrase_ids), pieces, {})
    vocabulary = model.config.text_config.vocab_size
    known = known_words(ids, model.experts.names, model.get_input_embeddings(), vocabulary, torch.device("cpu"))
    seen = list(findings(model, made, known, "validation", count))
    new = [one for one in findings(model, made, known, "new", count) if one.thing.name in made.catalogue.held_out]
    found = {}
    for expert in sorted({one.expert for one in seen}):
        mine = [one for one in seen if one.expert == expert]
        right = [one.cosine for one in mine if one.name >= 0 and names[one.name] == one.thing.name]
        strange = [one.cosine for one in new if one.expert == expert and one.name >= 0]
        found[model.experts.names[expert]] = {
            "things": len(mine),
            "covered": round(100 * sum(one.name >= 0 for one in mine) / len(mine), 1),
            "named": round(100 * len(right) / len(mine), 1),
            "new_things": len(strange),
            "familiar_auc": round(area(torch.tensor(right), torch.tensor(strange)), 3),
        }
    return found


def area(high_N: torch.Tensor, low_M: torch.Tensor) -> float:
    """How often one of the first is larger than one of the second; NaN where either has none."""
    return float((high_N[:, None] > low_M).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    recipe = load_recipe(Recipe, str(given.run / "recipe.yaml"))
    results = {
        "experts": measured(given.run, given.scenes),
        "scenes": given.scenes,
        "trained": {"compositions": recipe.data.train_scenes, "align_steps": recipe.align.steps},
        "commit": commit(),
        "machine": machine(),
    }
    write_json_atomic(given.out, results)
    print(json.dumps(results["experts"], indent=1))


if __name__ == "__main__":
    main()
