"""Losses by the names that recipes use: built in, by entry point, or "module:Class"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from astrea.common.errors import AstreaError
from astrea.common.registry import Registry
from astrea.recipes.stages import LOSSES
from astrea.training.context import TrainingContext
from astrea.training.losses.protocol import AlignLoss, InstructLoss, Loss

REGISTRIES: Mapping[type[Loss], Registry] = {
    AlignLoss: Registry(
        "loss of align",
        {
            "itc": "astrea.training.losses.alignment:PictureCaptionContrast",
            "agree": "astrea.training.losses.alignment:AlignedAgreement",
            "word": "astrea.training.losses.alignment:CaptionWords",
            "caption_words": "astrea.training.losses.whole_words:WholeWordContrast",
        },
        LOSSES.group,
    ),
    InstructLoss: Registry(
        "loss of fuse and tune",
        {
            "itc": "astrea.training.losses.fused_contrast:FusedContrast",
            "caption_words": "astrea.training.losses.whole_words:WholeWordsKept",
        },
        LOSSES.group,
    ),
}

ELSEWHERE = {
    AlignLoss: frozenset({"lm", "contribution", "reliability"}),
    InstructLoss: frozenset({"lm", "word", "agree", "contribution", "reliability"}),
}
"""Names in recipes that are no plug-in of such a stage: the model's own loss, and those of fusion strategies, which
compute the ones that they have (`FusionStrategy.losses`)."""

L = TypeVar("L", bound=Loss)


def build_losses(kind: type[L], weights: Mapping[str, float], ctx: TrainingContext) -> dict[str, L]:
    """The losses of a stage that have a weight, by name; without those that the model or its strategy computes.

    Args:
        kind: `AlignLoss` or `InstructLoss`, which such a stage takes.

    Raises:
        AstreaError: a loss is not known, cannot be imported, or is of the other kind.
    """
    # Built-in ones in the order of the table, so that a sum does not depend on how a recipe is written.
    names = dict.fromkeys([*REGISTRIES[kind].built_in, *weights])
    return {n: loss_class(kind, n)(ctx) for n in names if weights.get(n) and n not in ELSEWHERE[kind]}


def loss_class(kind: type[L], name: str) -> type[L]:
    """The class of a loss.

    Raises:
        AstreaError: see `build_losses`.
    """
    # A recipe is the user's own word: what it names may be imported.
    found = REGISTRIES[kind].find(name, allow_import=True)
    if not (isinstance(found, type) and issubclass(found, kind)):
        stages = "align" if kind is AlignLoss else "fuse and tune"
        raise AstreaError(
            f"loss {name!r} is not a subclass of astrea.training.losses.protocol.{kind.__name__}",
            f"the losses of {stages} are derived from it",
        )
    if missing := getattr(found, "__abstractmethods__", ()):
        raise AstreaError(f"loss {name!r} lacks {', '.join(sorted(missing))}", "write that method")
    return found
