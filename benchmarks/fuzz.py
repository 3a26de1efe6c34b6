"""Hostile recipes, records, model folders and pictures, each in a child of its own: what falls?

    python benchmarks/fuzz.py --folders 500 --recipes 2000 --records 2000 --pictures 1000

Writes benchmarks/results/fuzz.json: for each kind how many ended well, how many in an `AstreaError`, and every offence
(a traceback, more than 10 s, more than 1 GB over the parent, a read outside, anything executed) by the case's name.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("folders", "recipes", "records", "pictures")

# Children are forked: a parent of one thread forks safely.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[name] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "language")]


def tried(kind: str, count: int, seed: int) -> dict[str, Any]:
    """So many cases of a kind; prints how far it is."""
    from fuzz.harness import run_case, summary

    target = importlib.import_module(f"fuzz.{kind}")
    outcomes, start, last = [], time.monotonic(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        for case in target.cases(count, seed, Path(folder)):
            outcomes.append(run_case(case))
            if outcomes[-1].offences:
                print(f"  {kind}: {outcomes[-1]}", flush=True)
            if time.monotonic() - last > 30:
                last = time.monotonic()
                print(f"{kind}: {len(outcomes)} of {count}, {last - start:.0f} s", flush=True)
    found = summary(outcomes)
    return {"seed": seed, "seconds": round(time.monotonic() - start, 1), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "fuzz.json")
    chosen = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    counts = {kind: getattr(chosen, kind) for kind in KINDS if getattr(chosen, kind)}
    found: dict[str, Any] = {"command": " ".join(["python", "benchmarks/fuzz.py", *sys.argv[1:]])}
    found |= {"python": platform.python_version(), "torch": torch.__version__}
    for kind, count in counts.items():
        found[kind] = tried(kind, count, chosen.seed)
        print(f"{kind}: {json.dumps(found[kind])}", flush=True)
        chosen.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
