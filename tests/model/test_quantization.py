"""Loading quantised, and loading with parts left on the disk: the language model's layers alone are concerned."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from astrea import AstreaForConditionalGeneration
from astrea.common.errors import AstreaError
from astrea.model.quantization import KEPT, leave_out_small_parts

SMALL = ("model.experts", "model.alignment", "model.fusion")
LANGUAGE = ("model.language_model", "lm_head")


@torch.no_grad()
def logits_of(model, processor, picture):
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}]
    text = processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    return model.eval()(**processor(images=[picture], text=[text], return_tensors="pt")).logits


@pytest.mark.parametrize("name", ["modules_to_not_convert", "llm_int8_skip_modules"])
def test_small_parts_are_left_out_beside_what_is_asked(name):
    settings = SimpleNamespace(**{name: None})
    leave_out_small_parts(settings)
    leave_out_small_parts(settings)  # loading again from the same settings
    assert getattr(settings, name) == list(KEPT)
    own = SimpleNamespace(**{name: ["model.language_model.layers.0", "lm_head"]})
    leave_out_small_parts(own)
    assert getattr(own, name)[:2] == ["model.language_model.layers.0", "lm_head"]
    assert set(getattr(own, name)) >= set(KEPT)
    assert len(getattr(own, name)) == len(set(getattr(own, name)))
    leave_out_small_parts(None)
    leave_out_small_parts(SimpleNamespace())


def test_in_eight_bits_only_the_language_models_layers_change(tiny_folder, tiny_model, tiny_processor, pictures):
    pytest.importorskip("torchao")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    settings = TorchAoConfig(Int8WeightOnlyConfig())
    model = AstreaForConditionalGeneration.from_pretrained(tiny_folder, quantization_config=settings)
    changed = {name for name, part in model.named_parameters() if type(part.data) is not torch.Tensor}
    linear = {
        f"{name}.weight"
        for name, part in model.model.language_model.named_modules(prefix="model.language_model")
        if isinstance(part, nn.Linear)
    }
    assert changed == linear
    wanted = logits_of(tiny_model, tiny_processor, pictures[0])
    found = logits_of(model, tiny_processor, pictures[0])
    assert 0 < float((found - wanted).abs().max()) < 0.1 * float(wanted.abs().max())


def test_the_language_model_may_stay_on_the_disk(tiny_folder, tiny_model, tiny_processor, pictures, tmp_path):
    pytest.importorskip("accelerate")
    places = dict.fromkeys(SMALL, "cpu") | dict.fromkeys(LANGUAGE, "disk")
    model = AstreaForConditionalGeneration.from_pretrained(tiny_folder, device_map=places, offload_folder=tmp_path)
    assert all(parameter.is_meta for parameter in model.language_model.parameters())
    wanted = logits_of(tiny_model, tiny_processor, pictures[0])
    # Some processors multiply otherwise where weights lie elsewhere in memory, so the last bits may differ.
    torch.testing.assert_close(logits_of(model, tiny_processor, pictures[0]), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("part", SMALL)
def test_other_parts_may_not(tiny_folder, tmp_path, part):
    pytest.importorskip("accelerate")
    places = dict.fromkeys((*SMALL, *LANGUAGE), "cpu") | {part: "disk"}
    with pytest.raises(AstreaError, match=f"offloads {part.removeprefix('model.')}, and only the language model"):
        AstreaForConditionalGeneration.from_pretrained(tiny_folder, device_map=places, offload_folder=tmp_path)
