"""Architectures that a recipe describes, and checkpoints that are or are not what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import Qwen3Config, RTDetrV2Config

from astrea.common.config_only import check_agreement, read_architecture
from astrea.common.errors import AstreaError

FOLDER = Path("somewhere")
DETR = {
    "model_type": "rt_detr_v2",
    "backbone_config": {"model_type": "rt_detr_resnet", "depths": [2, 2, 2, 2], "out_indices": [2, 3, 4]},
    "decoder_layers": 3,
    "num_labels": 80,
}


def test_what_is_left_out_is_as_transformers_has_it():
    config = read_architecture(DETR, "it")
    assert isinstance(config, RTDetrV2Config)
    assert (config.decoder_layers, config.num_labels, config.d_model) == (3, 80, RTDetrV2Config().d_model)
    assert config.backbone_config.depths == [2, 2, 2, 2]


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({}, "unknown to transformers"),
        ({"model_type": "sonar"}, "'sonar'"),
        ({"model_type": ["qwen3"]}, "unknown to transformers"),
        ({"model_type": "qwen3", "auto_map": {"AutoModel": "evil--evil.Evil"}}, "auto_map"),
        ({"model_type": "detr", "backbone": "someone/backbone"}, "fetches its backbone"),
        ({"model_type": "qwen3", "quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "qwen3", "hidden_size": "wide"}, "it describes no model"),
    ],
)
def test_what_describes_nothing_is_refused(described, said):
    with pytest.raises(AstreaError, match=said) as caught:
        read_architecture(described, "it")
    assert caught.value.message.startswith("it describes no model")
    assert "model_type" in caught.value.hint


def test_only_what_is_said_is_compared():
    found = RTDetrV2Config(**{**DETR, "dropout": 0.3, "num_queries": 100})
    check_agreement(DETR, found, "it", FOLDER)
    check_agreement(DETR | {"transformers_version": "4.0", "dtype": "bfloat16"}, found, "it", FOLDER)
    # A tuple is the same as a list, and a mapping of names as its length.
    check_agreement(DETR | {"feat_strides": (8, 16, 32)}, found, "it", FOLDER)


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"decoder_layers": 6}, "it.decoder_layers is 6"),
        ({"num_labels": 91}, "it.num_labels is 91"),
        ({"backbone_config": DETR["backbone_config"] | {"depths": [3, 4, 6, 3]}}, "it.backbone_config.depths"),
    ],
)
def test_a_contradiction_is_named(changed, key):
    with pytest.raises(AstreaError) as caught:
        check_agreement(DETR | changed, RTDetrV2Config(**DETR), "it", FOLDER)
    assert caught.value.message.startswith(key)
    assert str(FOLDER / "config.json") in caught.value.message


def test_another_kind_of_model_is_a_contradiction():
    with pytest.raises(AstreaError, match="model_type"):
        check_agreement({"model_type": "llama"}, Qwen3Config(), "it", FOLDER)
