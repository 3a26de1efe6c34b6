"""What the stages share: where its experts are."""

from __future__ import annotations

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.training.context import TrainingContext
from astrea.training.distributed import Distributed
from own_contexts import SEEING, fresh

ON_A_GPU = {name: {**entry, "device": "cuda" if name == "detection" else "auto"} for name, entry in SEEING.items()}
ON_THE_CPU = {name: {**entry, "device": "cpu" if name == "detection" else "auto"} for name, entry in SEEING.items()}


def devices(ctx: TrainingContext) -> dict[str, str]:
    bank = ctx.model.experts
    return {name: next(bank[name].parameters()).device.type for name in bank.names}


def test_an_expert_stays_where_its_entry_says(make_run, world_data, monkeypatch):
    run = make_run(experts=ON_THE_CPU)
    model, tokenizer = fresh(run)
    calls: list[tuple[str, str]] = []
    for name in model.experts.names:
        expert = model.experts[name]
        monkeypatch.setattr(expert, "to", lambda device, name=name: calls.append((name, device)))
    TrainingContext(run, model, tokenizer, world_data, Distributed(device="cpu"))
    assert calls == [("detection", "cpu")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(make_run, world_data):
    run = make_run(experts=ON_A_GPU)
    with pytest.raises(AstreaError, match=r"experts\.detection\.device is cuda"):
        TrainingContext(run, *fresh(run), world_data)


def test_an_entry_without_a_device_is_written_as_before(make_run):
    entries = make_run(experts=ON_THE_CPU).model_dump()["experts"]
    assert entries["detection"]["device"] == "cpu"
    assert "device" not in entries["captioning"]
