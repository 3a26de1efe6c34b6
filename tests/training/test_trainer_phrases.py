"""A whole run whose findings are phrases: phases with nothing to learn are left out, and an interrupted run goes on."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from astrea.model.loading import load_model
from astrea.training.assembly import assemble
from astrea.training.trainer import train
from listening import Said
from phrase_experts import EXPERTS
from small_runs import small_run

SMALL = {"steps": 4, "batch": 2, "lr": 1e-3, "warmup": 1, "save_every": 1}


class Stop(Exception):
    """Ends a run."""


def test_a_run_of_phrases_skips_idle_phases_and_resumes_bit_for_bit(language_checkpoint, tmp_path):
    learn = {"train": ["adapters", "heads", "fusion"], "losses": {"lm": 1.0, "itc": 0.1, "contribution": 0.1}}
    run = small_run(
        threads=1,
        experts=EXPERTS,
        model={"contrast_width": 16, "adapter_hidden": 24, "findings": "phrases"},
        regularisation={"phrase_dropout": 0.8, "contribution_every": 1},
        llm={"checkpoint": str(language_checkpoint("llama_tied"))},
        data={"train_scenes": 6},
        align={"train": ["adapters"], "losses": {"caption_words": 1.0}, **SMALL},
        fuse={**learn, **SMALL, "steps": 2},
        tune={**learn, **SMALL, "steps": 1},
    )
    said = Said()
    straight = train(run, tmp_path / "straight", cache=tmp_path / "cache", report=said)
    assert [line for line in said.lines if "nothing to learn" in line] == [
        "align/signs: nothing to learn, so no step is taken"
    ]
    rows = [json.loads(line) for line in (tmp_path / "straight" / "train.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows if "stage" in row] == [
        *("align/things", "align/lines", "align/joint"),
        *("fuse", "fuse", "tune"),
    ]

    def stop(ctx, stage, done, seconds) -> None:
        # The checkpoint that is gone on from points at the phase without steps.
        if stage == "align/lines":
            raise Stop

    with pytest.raises(Stop):
        train(run, tmp_path / "again", cache=tmp_path / "cache", observe=stop, report=Said())
    resumed = train(run, tmp_path / "again", resume=True, cache=tmp_path / "cache", report=Said())
    one, two = (load_file(folder / "model.safetensors") for folder in (straight, resumed))
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    model, processor = load_model(straight, trust_remote_code=True)
    assert model.config.findings == "phrases"
    spelled = model.config.phrase_ids
    assert set(spelled["least"]) == {"things"}
    assert len(spelled["known"]) > 5
    again, _ = load_model(resumed, trust_remote_code=True)
    assert again.config.phrase_ids == spelled
    assert processor.num_visual_tokens == model.num_visual_tokens == sum(model.alignment.counts)
    before = assemble(run, None)[0].state_dict()
    moved = {name for name in before if not torch.equal(before[name], one.get(name, before[name]))}
    for part in ("things.slots.feature", "things.residuals.1", "signs.residuals.0", "lines.adapter"):
        assert any(name.startswith(f"model.alignment.adapters.{part}") for name in moved), part
