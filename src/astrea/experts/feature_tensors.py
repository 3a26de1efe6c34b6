"""An expert's features as named tensors, the way safetensors keeps them and sends them."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from astrea.experts.protocol import ExpertFeatures


def feature_tensors(features: ExpertFeatures) -> dict[str, Tensor]:
    """The parts that there are, by name; each contiguous and with memory of its own, or safetensors would refuse it.
    ``ExpertFeatures(**parts)`` is the way back."""
    parts = {field.name: getattr(features, field.name) for field in fields(features)}
    return {name: part.clone(memory_format=torch.contiguous_format) for name, part in parts.items() if part is not None}
