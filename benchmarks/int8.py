"""What a language model in eight bits (torchao, weights only) loses on the twelve tasks.

pip install torchao
python benchmarks/int8.py shipped data.test_questions=40 data.test_captions=20 data.test_retrieval_groups=8
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from astrea import AstreaForConditionalGeneration
from astrea.common.files import write_json_atomic
from astrea.common.progress import Reporter, TerminalReporter
from astrea.common.provenance import commit, machine
from astrea.evaluation.generate import Predictor
from astrea.model.loading import load_model
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world.evaluation.runner import encode_test_sets, run_tasks
from astrea.world.evaluation.tasks import TASKS, build_test_sets

RESULTS = Path(__file__).resolve().parent / "results" / "int8.json"


def in_eight_bits(model: AstreaForConditionalGeneration) -> AstreaForConditionalGeneration:
    """The same model, loaded as a user loads it."""
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        settings = TorchAoConfig(Int8WeightOnlyConfig())
        loaded: AstreaForConditionalGeneration = AstreaForConditionalGeneration.from_pretrained(
            folder, quantization_config=settings
        )
    return loaded.eval()


def measure(recipe: Recipe, folder: str, report: Reporter) -> dict[str, Any]:
    """Scores on the test split at the recipe's test sizes; the experts look once, for they are the same."""
    model, processor = load_model(folder)
    sets = build_test_sets(recipe.world, recipe.data)
    encoded = encode_test_sets(model, sets)
    found: dict[str, Any] = {}
    for name, one in (("float32", model), ("int8", in_eight_bits(model))):
        outcome = run_tasks(Predictor(one, processor.tokenizer), encoded, TASKS, blind=False, label=name, report=report)
        found[name] = {"average": outcome.average, "scores": outcome.scores}
    found["lost"] = found["float32"]["average"] - found["int8"]["average"]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Eight bits against float32 on the twelve tasks.")
    parser.add_argument("model", help='a model folder, or "shipped"')
    parser.add_argument("changes", nargs="*", help="changes of the tiny recipe, such as data.test_questions=40")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    args = parser.parse_intermixed_args(argv)
    torch.set_num_threads(1)
    found = measure(load_recipe(Recipe, "tiny", args.changes), args.model, TerminalReporter())
    about = {"commit": commit(), "machine": machine(), "torchao": version("torchao"), "changes": args.changes}
    write_json_atomic(args.out, about | found)
    json.dump(found, sys.stdout, indent=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
