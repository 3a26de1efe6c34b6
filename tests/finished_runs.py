"""What a finished run leaves behind for its report: results, and sample pictures with their answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from astrea.report.results import TASKS

EXPERTS = ("captioning", "classification", "segmentation", "detection")


def full_results() -> dict[str, Any]:
    share = dict(zip(EXPERTS, (0.4, 0.1, 0.2, 0.3), strict=True))
    conditions = ("clean", "night")
    return {
        "schema": 1,
        "strategy": "astrea",
        "seed": 0,
        "recipe": "tiny",
        "average": 77.1,
        "blind_average": 30.2,
        "tasks": {
            task: {"metric": "vqa_accuracy", "score": 60 + i, "n": 150, "blind": 50.1 - i, "secondary": {"bleu4": 12.5}}
            for i, task in enumerate(TASKS)
        },
        "experts": {expert: {"map50": 81.2} for expert in EXPERTS},
        "experts_by_condition": {expert: {c: {"map50": 41.7} for c in conditions} for expert in EXPERTS},
        "load": {"mean": share, "cv": 0.21, "max_over_mean": 1.6},
        "shares": dict.fromkeys(TASKS, share),
        "shares_by_condition": dict.fromkeys(conditions, share),
        "masking": dict(zip(EXPERTS, (-9.3, -4.1, 0.0, 1.2), strict=True)),
        "masking_by_task": {expert: dict.fromkeys(TASKS, -3.3) for expert in EXPERTS},
        "conditions": {"clean": 80.4, "night": 61.9},
        "seconds": {"align": 61.2, "fuse": 124.9},
        "params": {"total": 4_210_332, "trainable": 1_284_220},
    }


def write_samples(run: Path, rows: list[dict[str, Any]]) -> None:
    (run / "samples.json").write_text(json.dumps(rows))


def sample(**changes: Any) -> dict[str, Any]:
    return {
        "image": "samples/00.png",
        "panel": "samples/00-readings.png",
        "task": "attribute",
        "question": "what colour is the cat?",
        "answer": "red",
        "truth": "blue",
        "right": False,
        "condition": "night",
        "shares": dict(zip(EXPERTS, (0.4, 0.1, 0.2, 0.3), strict=True)),
    } | changes
