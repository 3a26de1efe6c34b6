"""Draw the pictures of README from committed result files: ``python benchmarks/pictures.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from astrea.lab.arena.variants import CURVES

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
IMAGES = ROOT / "docs" / "images"


def draw_arena(arena: dict[str, Any], path: Path) -> None:
    """Every strategy's average with its deviation over seeds, and two averages against training seconds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), dpi=110, width_ratios=(1.35, 1))
    names = list(arena["strategies"])[::-1]
    averages = [arena["strategies"][name]["average"] for name in names]
    left.barh(
        [name.replace("_", " ") for name in names],
        [row["mean"] for row in averages],
        xerr=[row["std"] or 0 for row in averages],
        color=["#2b62c0" if name == "astrea" else "#b9c9e6" for name in names],
        ecolor="#333333",
        capsize=2,
    )
    left.set_xlim(0, 100)
    left.set_xlabel("average over twelve tasks", fontsize=8)
    left.tick_params(labelsize=8)
    for name, colour in zip(CURVES, ("#2b62c0", "#c0392b"), strict=True):
        for number, curve in enumerate(arena["curves"][name].values()):
            label = name.replace("_", " ") if number == 0 else None
            right.plot(*zip(*curve, strict=True), color=colour, linewidth=1, marker=".", label=label)
    right.set_xlim(0)
    right.set_ylim(0, 100)
    right.set_xlabel("training seconds, alignment included", fontsize=8)
    right.set_ylabel("average on validation", fontsize=8)
    right.tick_params(labelsize=8)
    right.legend(frameon=False, fontsize=8, loc="lower right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


def draw(results: dict[str, Any], path: Path) -> None:
    """Bars per task, the blind score as a mark."""
    names = list(results["tasks"])
    scores = [results["tasks"][name]["score"] for name in names]
    blind = [results["tasks"][name]["blind"] for name in names]
    figure, axes = plt.subplots(figsize=(8, 3.4), dpi=110)
    axes.bar(names, scores, color="#2b62c0", width=0.7, label="with four experts")
    axes.bar(names, blind, color="#b9c9e6", width=0.7, label="blind (no picture)")
    axes.axhline(results["average"], color="#c0392b", linewidth=1, label=f"average {results['average']:.1f}")
    axes.set_ylim(0, 100)
    axes.set_ylabel("score, 0 to 100", fontsize=8)
    axes.tick_params(axis="x", rotation=35, labelsize=8)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.14))
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Draw both."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    draw(json.loads((RESULTS / "quickstart.json").read_text()), IMAGES / "quickstart.png")
    draw_arena(json.loads((RESULTS / "arena" / "arena.json").read_text()), IMAGES / "arena.png")


if __name__ == "__main__":
    main()
