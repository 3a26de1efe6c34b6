"""Training on one's own files: the same rows in another format give the same batches, and the model answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from astrea import AstreaForConditionalGeneration, AstreaProcessor
from astrea.common.progress import Reporter
from astrea.experts.protocol import ExpertFeatures
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.training.context import TrainingContext
from astrea.training.stages.align import AlignObjective
from astrea.training.trainer import train
from astrea.world.scenes.scene import Scene
from own_contexts import data_of, fresh, fusing
from own_files import (
    Row,
    asked_about,
    drawn,
    llava_row,
    mixed_rows,
    save_pictures,
    write_jsonl,
    write_parquet,
    write_shards,
)

ROWS = 800
SAY = {"yes": "there", "no": "nothing"}
"""The user's own way to answer, which no pretrained part knows."""

TASKS = ("existence", "attribute")


def rows_about(scenes: list[Scene], paths: list[str]) -> list[Row]:
    """One row per picture: what is asked about it, answered in the user's way."""
    questions = zip(paths, asked_about(scenes, TASKS), strict=True)
    turns = [(path, [(q.text, SAY.get(q.answer, q.answer)) for q in asked]) for path, asked in questions]
    return [
        llava_row(f"row-{number}", [path], said or [("is there a cat?", "nothing")])
        for number, (path, said) in enumerate(turns)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 pictures, and the same rows about them as LLaVA and as chat messages."""
    folder = tmp_path_factory.mktemp("own")
    scenes = drawn(ROWS)
    rows = rows_about(scenes, save_pictures(scenes, folder))
    write_jsonl(folder / "train.jsonl", rows)
    write_parquet(folder / "train.parquet", rows)
    return folder


class Eye(torch.nn.Module):
    """Stands for the experts: sees every bit of the picture and hands it on."""

    names = ("eye",)
    wants_originals = False

    def forward(self, pixels_N3SS: Tensor, names: Any = None, originals: Any = None) -> dict[str, ExpertFeatures]:
        seen = pixels_N3SS.flatten(1).unsqueeze(1)
        return {"eye": ExpertFeatures(seen, torch.ones(seen.shape[:2]))}


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a batch, with where it is; of what the experts will see too."""
    if isinstance(value, Tensor):
        yield name, value
    elif is_dataclass(value):
        for field in fields(value):
            if field.name == "encode":
                yield from tensors_in(value.encode(), f"{name}.encode")
            elif field.name not in ("content", "names"):
                yield from tensors_in(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from tensors_in(one, f"{name}.{key}")
    elif isinstance(value, (tuple, list)) and not isinstance(value, str):
        for number, one in enumerate(value):
            yield from tensors_in(one, f"{name}.{number}")


@pytest.mark.slow
def test_800_rows_as_llava_and_as_messages_give_the_same_batches(folder, make_run):
    run = make_run()
    model, tokenizer = fresh(run)
    contexts = []
    for name in ("train.jsonl", "train.parquet"):
        data = data_of([folder / name], model, tokenizer)
        data.bank = Eye()
        contexts.append(TrainingContext(run, model, tokenizer, data))
        assert len(data) == ROWS
    seen: dict[str, set[str]] = {"align": set(), "fuse and tune": set()}
    half = ROWS // 400
    plan = [("align", range(2 * half)), ("fuse", range(half)), ("tune", range(half, 2 * half))]
    for stage, steps in plan:
        one, two = (
            AlignObjective(ctx, joining=None, aligned=[], offset=0) if stage == "align" else fusing(ctx, stage)
            for ctx in contexts
        )
        for step in steps:
            pair = [objective.batch(step, 0, 200) for objective in (one, two)]
            first, second = (dict(tensors_in(batch)) for batch in pair)
            assert first.keys() == second.keys()
            assert [name for name in first if not torch.equal(first[name], second[name])] == [], (stage, step)
            mine, theirs = (batch[0] if stage == "align" else batch.samples for batch in pair)
            assert list(mine.texts) == list(theirs.texts)
            seen["align" if stage == "align" else "fuse and tune"].update(name.split()[-1] for name in mine.names)
            wanted = {"ids", "first"} | ({"input_ids", "labels", "present"} if stage != "align" else set())
            assert wanted <= {name.rsplit(".", 1)[-1] for name in first}
            assert any(".encode.eye.tokens" in name for name in first)
    every = {f"row-{number}" for number in range(ROWS)}
    assert seen == {"align": every, "fuse and tune": every}
    told = [list(dict(tensors_in(vars(ctx.words))).values()) for ctx in contexts]
    assert all(torch.equal(a, b) for a, b in zip(*told, strict=True))


@pytest.mark.slow
def test_a_model_trained_on_files_answers_about_other_pictures(folder, tmp_path):
    stages = ["align.steps=5", "align.batch=8", "fuse.steps=2", "fuse.batch=8", "tune.steps=36", "tune.batch=8"]
    losses = [f"{stage}.losses={{lm: 1.0, itc: 0.1}}" for stage in ("fuse", "tune")]
    own = ["threads=1", f"data.train={folder / 'train.jsonl'}", *stages, *losses, "tune.warmup=4"]
    path = train(load_recipe(Recipe, "tiny", own), tmp_path / "run", report=Reporter())
    seconds = json.loads((tmp_path / "run" / "seconds.json").read_text())
    assert {"features", "waiting", "align", "fuse", "tune"} == seconds.keys()

    model = AstreaForConditionalGeneration.from_pretrained(path).eval()
    processor = AstreaProcessor.from_pretrained(path)
    scenes = drawn(60, "test")
    asked = [(scene, q) for scene, some in zip(scenes, asked_about(scenes, TASKS), strict=True) for q in some]
    prompts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": q.text}]}],
            add_generation_prompt=True,
        )
        for _, q in asked
    ]
    inputs = processor(text=prompts, images=[[Image.fromarray(scene.image)] for scene, _ in asked])
    said = processor.post_process_image_text_to_text(model.generate(**inputs, max_new_tokens=3, do_sample=False))
    right, most = Counter[str](), dict[str, Counter[str]]()
    for (_, q), answer in zip(asked, said, strict=True):
        true = SAY.get(q.answer, q.answer)
        right[q.task] += answer.strip() == true
        most.setdefault(q.task, Counter())[true] += 1
    for task, margin in (("existence", 0.15), ("attribute", 0.2)):
        count = sum(most[task].values())
        blind = max(most[task].values()) / count
        assert count > 40
        assert right[task] / count > blind + margin, (task, right[task] / count, blind)


# Whole runs of seconds, on rows of every kind


SHORT = (
    "align.progressive=false",
    "align.steps=2",
    "fuse.steps=2",
    "tune.steps=3",
    "regularisation.expert_dropout=0.5",
    "regularisation.corruption=0.3",
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of every kind, in every format."""
    folder = tmp_path_factory.mktemp("mixed")
    scenes = drawn(8)
    rows = mixed_rows(scenes, save_pictures(scenes, folder))
    write_jsonl(folder / "train.jsonl", rows)
    write_parquet(folder / "train.parquet", rows)
    write_shards(folder, rows, 3)
    return folder


def trained(overrides: list[str], out: Path, *own: str) -> dict[str, Tensor]:
    train(load_recipe(Recipe, "tiny", [*overrides, *SHORT, *own]), out, report=Reporter())
    return load_file(out / "model" / "model.safetensors")


@pytest.mark.parametrize(("kind", "loaders"), [("parquet", 1), ("jsonl", 4)])
def test_neither_the_format_nor_more_decoding_threads_change_a_bit(
    kind, loaders, mixed, plain, small_overrides, tmp_path
):
    own = (f"data.train={mixed / f'train.{kind}'}", f"runtime.loaders={loaders}")
    one, two = load_file(plain / "model" / "model.safetensors"), trained(small_overrides, tmp_path / "run", *own)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert (plain / "train.jsonl").read_bytes() == (tmp_path / "run" / "train.jsonl").read_bytes()


@pytest.fixture(scope="module")
def plain(mixed: Path, small_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the JSONL with one decoding thread."""
    out = tmp_path_factory.mktemp("plain")
    trained(small_overrides, out, f"data.train={mixed / 'train.jsonl'}", "runtime.loaders=1")
    return out
