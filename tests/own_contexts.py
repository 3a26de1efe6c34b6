"""Training contexts on data files of one's own, for tests: fresh models whose experts have a say, and steps on them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from astrea.data.packing import Packer
from astrea.data.readers.sources import open_sources
from astrea.data.streaming import FileDataset
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe, Schedule
from astrea.training.assembly import assemble
from astrea.training.context import TrainingContext
from astrea.training.distributed import SINGLE
from astrea.training.loop import Objective, build_optimizer, run_steps
from astrea.training.stages.instruct import InstructObjective
from astrea.training.trainable import train_only
from astrea.world.scenes.draw import split_scene
from listening import Said

SEEING = {
    "captioning": {"kind": "captioning"},
    "classification": {"kind": "classification"},
    # Untrained heads believe in nothing; with a low threshold these two say something.
    "segmentation": {"kind": "segmentation", "options": {"threshold": 0.05}},
    "detection": {"kind": "detection", "options": {"threshold": 0.02}},
}


def fresh(recipe: Recipe) -> tuple[Any, Any]:
    """The model of a recipe, nothing of it trained, and its tokenizer."""
    model, tokenizer = assemble(recipe, None)
    with torch.no_grad():
        for parameter in model.experts.parameters():
            # Fresh convolutions let next to nothing of the picture through.
            parameter.mul_(2.5 if parameter.ndim == 4 else 1.0)
    return model.train(), tokenizer


def data_of(paths: list[Path], model: Any, tokenizer: Any, *, max_tokens: int = 512, **options: Any) -> FileDataset:
    sources = [source for path in paths for source in open_sources(str(path))]
    packer = Packer(tokenizer, model.num_visual_tokens)
    options = {"report": Said(), "ranks": SINGLE, **options}
    return FileDataset(sources, model.experts, packer, image_size=64, max_tokens=max_tokens, **options)


def fusing(ctx: TrainingContext, name: str = "fuse") -> InstructObjective:
    return InstructObjective(ctx, name, getattr(ctx.recipe, name), offset=0)


def only_learning(ctx: TrainingContext, objective: Objective) -> set[str]:
    """Freeze the rest; the names of what learns."""
    promised = {name: p for name, p, _ in objective.trainable()}
    train_only(promised.values(), (ctx.model, ctx.contrast, ctx.words))
    return set(promised)


def learned(ctx: TrainingContext, objective: Objective, steps: int = 2, batch: int = 8) -> set[str]:
    """Real steps with finite figures; the names of what ever had a gradient."""
    only_learning(ctx, objective)
    reached: set[str] = set()

    def on_step(step: int, figures: dict[str, float]) -> None:
        assert all(math.isfinite(value) for value in figures.values()), figures
        reached.update(n for n, p, _ in objective.trainable() if p.grad is not None and p.grad.abs().sum() > 0)

    schedule = Schedule(steps=steps, batch=batch, lr=1e-3, warmup=1)
    run_steps(objective, schedule, build_optimizer(objective, schedule), on_step=on_step)
    assert all(torch.isfinite(value).all() for value in ctx.model.state_dict().values())
    return reached


def context_for(folder: Path, count: int, overrides: list[str]) -> TrainingContext:
    """A fresh model and so many pictures of one question each, written into the folder."""
    rows = []
    for number in range(count):
        Image.fromarray(split_scene("train", number, 0).image).save(folder / f"{number}.png")
        said = [{"from": "human", "value": "<image>is it red?"}, {"from": "gpt", "value": "yes"}]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": said})
    path = folder / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    recipe = load_recipe(Recipe, "tiny", [*overrides, f"data.train={path}", f"experts={json.dumps(SEEING)}"])
    model, tokenizer = fresh(recipe)
    return TrainingContext(recipe, model, tokenizer, data_of([path], model, tokenizer))
