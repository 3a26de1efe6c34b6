"""Which model made an index: another one's vectors mean nothing to this one."""

from __future__ import annotations

import hashlib

from astrea.common.fingerprint import tensors_fingerprint
from astrea.data.feature_cache import canonical_json
from astrea.model.modeling import AstreaForConditionalGeneration

FORMAT = 1
"""Of what becomes of a picture; to be raised whenever code makes other vectors of the same weights."""


def model_fingerprint(model: AstreaForConditionalGeneration) -> str:
    """64 hex digits from the weights, and from the settings that decide what a picture's vector is."""
    config = model.config
    about = {
        "format": FORMAT,
        "weights": tensors_fingerprint(model.state_dict()),
        "experts": config.experts,
        "order": config.expert_names,
        "strategy": config.strategy,
        "fusion": config.fusion,
        "image_size": config.image_size,
        "text": config.text_config.model_type,
    }
    if model.experts.wants_originals:
        about["pictures"] = "original"  # before, such experts were given squares here
    return hashlib.sha256(canonical_json(about).encode()).hexdigest()
