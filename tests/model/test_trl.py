"""TRL's supervised fine-tuning trainer, with the model and processor as they are: messages with pictures, prompts with
completions, the answers' loss alone, and text alone, packed. Each learns, and its model evaluates."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.questions import candidates

trl = pytest.importorskip("trl", reason="needs the extra trl")
datasets = pytest.importorskip("datasets")

ROWS = 8
COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "learning_rate": 3e-3,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
}


def asked_and_answered() -> list[tuple[Any, str, str]]:
    """Pictures of the drawn world, a question about each, and its answer."""
    found = []
    for index in range(ROWS):
        scene = split_scene("train", index, 5)
        one = candidates(scene, random.Random(index))[0]
        found.append((Image.fromarray(scene.image), one.text, one.answer))
    return found


def rows(form: str) -> list[dict[str, Any]]:
    made = []
    for image, question, answer in asked_and_answered():
        user, assistant = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
        if form == "messages":
            made.append({"images": [image], "messages": [user, assistant]})
        elif form == "completions":
            made.append({"images": [image], "prompt": [user], "completion": [assistant]})
        elif form == "texts":
            text = f"<bos><image><user>{question}<assistant>{answer}<eos>"
            made.append({"images": [image], "text": text})
        else:
            made.append({"messages": [user, assistant]})
    return made


WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "messages and pictures": ("messages", {}),
    "prompt and completion": ("completions", {}),
    # TRL would take the column of texts away where there are pictures.
    "texts and pictures": ("texts", {"remove_unused_columns": False}),
    "loss of answers alone": ("messages", {"assistant_only_loss": True}),
    "text alone": ("language", {"assistant_only_loss": True}),
    "text alone, packed": ("language", {"packing": True, "packing_strategy": "wrapped", "max_length": 64}),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_learns_and_evaluates(way, tiny_model, tiny_processor, tmp_path: Path):
    form, options = WAYS[way]
    model = copy.deepcopy(tiny_model).train()
    model.config.question_span = tiny_processor.chat.question_span
    data = datasets.Dataset.from_list(rows(form))
    config = trl.SFTConfig(output_dir=str(tmp_path), max_steps=6, per_device_eval_batch_size=4, **{**COMMON, **options})
    trainer = trl.SFTTrainer(model, args=config, train_dataset=data, eval_dataset=data, processing_class=tiny_processor)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    assert after < 0.9 * before


def test_preferences_from_a_path(tiny_folder: Path, tmp_path: Path):
    """As TRL itself loads a model, which knows no class of ours by name; and its reference model."""
    answer, other = ([{"role": "assistant", "content": text}] for text in ("it is red", "no"))
    data = [{**row, "chosen": answer, "rejected": other} for row in rows("completions")]
    for row in data:
        del row["completion"]
    config = trl.DPOConfig(output_dir=str(tmp_path), max_steps=3, **COMMON)
    trainer = trl.DPOTrainer(str(tiny_folder), args=config, train_dataset=datasets.Dataset.from_list(data))
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0] == pytest.approx(0.6931, abs=1e-3)
