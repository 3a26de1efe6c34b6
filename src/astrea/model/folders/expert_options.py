"""Other options for the experts of a finished model: a page has more lines than the signs that it learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astrea.common.errors import AstreaError
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor

ExpertOptions = Mapping[str, Mapping[str, Any]]
"""By expert's name: options of its kind, instead of those that it was trained with."""


def with_expert_options(described: Mapping[str, Any], options: ExpertOptions) -> dict[str, Any]:
    """The description of a model whose experts have other options.

    Raises:
        AstreaError: it has no expert of such a name.
    """
    experts: Mapping[str, Any] = described.get("experts") or {}
    if unknown := sorted(options.keys() - experts.keys()):
        raise AstreaError(f"the model has no expert {unknown[0]!r}", f"its experts are {', '.join(experts)}")
    changed = {
        name: {**experts[name], "options": {**(experts[name].get("options") or {}), **some}}
        for name, some in options.items()
    }
    return {**described, "experts": {**experts, **changed}}


def fit_processor(processor: AstreaProcessor, model: AstreaForConditionalGeneration) -> None:
    """Let a processor leave room for what experts tell of a picture now, and as much for text as before."""
    more = model.num_visual_tokens - processor.num_visual_tokens
    processor.num_visual_tokens += more
    processor.max_length += max(0, more)
