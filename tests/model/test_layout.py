"""Names of tensors: those of earlier folders become today's, wherever they are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from astrea.common.errors import AstreaError
from astrea.model.backbone import AstreaModel
from astrea.model.layout import current_names, split_head
from astrea.model.loading import load_model
from repository import FIXTURES

OLD = FIXTURES / "old_models"


@pytest.mark.parametrize("name", ["fused", "peer"])
def test_an_old_folder_is_saved_with_todays_names(name, tmp_path: Path):
    model, processor = load_model(OLD / name)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert {key.split(".")[0] for key in saved} <= {"model", "lm_head"}
    assert current_names(saved, model.config.text_config) == {key: key for key in saved}
    again, _ = load_model(tmp_path)
    state = model.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.state_dict().items())


def test_an_old_folder_in_several_files_loads(tmp_path: Path):
    folder = shutil.copytree(OLD / "fused", tmp_path / "sharded")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {key: f"model-{number % 2}.safetensors" for number, key in enumerate(sorted(tensors))}
    for place in set(places.values()):
        own = {key: tensor for key, tensor in tensors.items() if places[key] == place}
        save_file(own, folder / place, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    one, two = load_model(folder)[0].state_dict(), load_model(OLD / "fused")[0].state_dict()
    assert all(torch.equal(one[key], two[key]) for key in two)


def test_an_old_folder_loads_without_its_head():
    inner = AstreaModel.from_pretrained(OLD / "peer")
    wanted = load_model(OLD / "peer")[0].model.state_dict()
    assert inner.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in inner.state_dict().items())


def test_tensors_with_old_names_are_taken():
    model, _ = load_model(OLD / "fused")
    tensors = {key: tensor + 1 for key, tensor in load_file(OLD / "fused" / "model.safetensors").items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    assert torch.equal(model.lm_head.weight, tensors["language_model.model.embed_tokens.weight"])


def test_a_language_model_with_weights_elsewhere_is_refused():
    small = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    model = AutoModelForCausalLM.from_config(small)
    assert split_head(model) == (model.model, "lm_head")
    model.more = torch.nn.Linear(2, 2)
    with pytest.raises(AstreaError, match=r"more\.weight"):
        split_head(model)
