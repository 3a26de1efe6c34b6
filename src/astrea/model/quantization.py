"""What stays as it is when a model is loaded quantised: everything but the language model's own layers.

Experts, adapters and fusion are small, hold linear layers of one column that no kernel takes, and compare vectors that
differ by a few hundredths; and the head's errors would go straight into the answer.
"""

from __future__ import annotations

from typing import Any

KEPT = (r"(model\.)?experts", r"(model\.)?alignment", r"(model\.)?fusion", "lm_head", r".*\.lora_")
"""Names of modules, or patterns of their beginnings, as transformers' quantisers take them."""

LISTS = ("modules_to_not_convert", "llm_int8_skip_modules")
"""What quantisation settings of transformers call their list of modules to leave alone: torchao, bitsandbytes."""


def leave_out_small_parts(settings: Any) -> None:
    """Add `KEPT` to the modules that quantisation settings leave alone. Changes them in place.

    Args:
        settings: a ``quantization_config`` of transformers; None and kinds without such a list are left as they are.
    """
    for name in LISTS:
        if hasattr(settings, name):
            given = getattr(settings, name) or []
            setattr(settings, name, [*given, *(kept for kept in KEPT if kept not in given)])
