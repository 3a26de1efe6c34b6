"""Draw README's photograph: the picture, a question, the answer, each expert's gate weight and reading.

    python benchmarks/photograph.py MODEL "what animal is there?" [--picture chelsea]

MODEL is a model folder, or "shipped-photo". --picture is a photograph that scikit-image brings (chelsea, by Stefan van
der Walt, and coffee, by Rachel Michetti: both CC0; rocket, by SpaceX, and astronaut, by NASA: both in the public
domain), or the path of one. What is drawn is written to benchmarks/results/photograph.json too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from PIL import Image

import astrea
from astrea.cli.actions.ask import explanation_json, verdict_lines
from astrea.common.files import finite_or_null, write_json_atomic
from astrea.common.paths import is_file
from astrea.common.provenance import commit
from astrea.data.image_sources import read_image
from astrea.experts.drawing import draw_readings
from astrea.model.explanation import Explanation

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "photograph.json"
IMAGE = ROOT / "docs" / "images" / "photograph.png"
WIDTH, DPI = 9.0, 110
LINE = 0.24
"""Inches that a line of text, or a bar, takes."""


def photograph(name: str) -> Image.Image:
    """A file, or a photograph of scikit-image by its name."""
    if is_file(name):
        return read_image(name)
    from skimage import data

    return Image.fromarray(np.asarray(getattr(data, name)())).convert("RGB")


def draw(picture: Image.Image, question: str, why: Explanation, path: Path) -> None:
    """Readings above; question, answer and doubts with the gate weights beneath."""
    readings = draw_readings(picture, why.readings)
    said = [str(line) for line in verdict_lines(why)]
    shares = {**why.shares, "(any of them)": max(0.0, 1 - sum(why.shares.values()))}
    above = WIDTH * readings.height / readings.width
    below = LINE * (len(said) + 2 + len(shares) + 1)
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(WIDTH, above + below), dpi=DPI, height_ratios=(above, LINE * (len(said) + 1), LINE * len(shares))
    )
    top.imshow(readings)
    middle.text(0, 1, "\n".join([f"» {question}", *said]), va="top", fontsize=9, linespacing=1.5, wrap=True)
    for axes in (top, middle):
        axes.axis("off")
    draw_weights(bottom, shares, why)
    figure.tight_layout(pad=0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def draw_weights(axes: Axes, shares: dict[str, float], why: Explanation) -> None:
    """A bar for each expert's gate weight, and beside it what would be answered without the expert."""
    names = list(shares)[::-1]
    axes.barh(names, [shares[name] for name in names], color="#2b62c0", height=0.6)
    axes.set_xlim(0, 1)
    for place, name in enumerate(names):
        effect = why.masking.get(name)
        note = "" if effect is None else f"   without it: {effect.answer or '(no answer)'}"
        axes.text(shares[name] + 0.01, place, f"gate weight {shares[name]:.0%}{note}", va="center", fontsize=8)
    axes.tick_params(labelsize=8, left=False, bottom=False, labelbottom=False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Ask, draw, write, and return what was written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("question")
    parser.add_argument("--picture", default="chelsea")
    parser.add_argument("--out", type=Path, default=IMAGE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    picture = photograph(options.picture)
    why = astrea.load(options.model, device="cpu").explain(picture, options.question)
    draw(picture, options.question, why, options.out)
    results = finite_or_null(
        {
            "command": f'python benchmarks/photograph.py MODEL "{options.question}" --picture {options.picture}',
            "commit": commit(),
            "picture": options.picture,
            "question": options.question,
            **explanation_json(why),
        }
    )
    write_json_atomic(options.results, results)
    print(f"{options.question} {why.answer}\n{options.out}\n{options.results}")
    return results


if __name__ == "__main__":
    main()
