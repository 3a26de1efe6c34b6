"""Which keys of a recipe are of one fusion strategy alone.

Astrea's own settings are keys of ``model`` (``model.gate``), those of others stand in ``model.options``. A key that the
chosen strategy does not read is an error. What a base recipe says for its own strategy is left behind where the recipe
on top of it, or the command line, chooses another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from astrea.common.errors import AstreaError
from astrea.fusion.registry import ASTREA, REGISTRY, RENAMED, STRATEGIES, check_options, strategy_class
from astrea.recipes.part import BadKey
from astrea.recipes.trail import Trail
from astrea.recipes.tree import Tree

MODEL_KEYS = (
    *("word_match", "mixer", "residual", "residual_start", "residual_end", "gate", "gate_tau", "gate_question"),
    *("gate_confidence", "gate_targets", "reliability", "reliability_kinds", "prune_share", "keep_threshold"),
)
"""Keys of `astrea.recipes.model.Model` that Astrea's fusion alone reads."""

LOSSES = ("contribution", "reliability")
"""Losses that a strategy computes itself, if it has them (`FusionStrategy.weighted_losses`)."""

STAGES = ("fuse", "tune")

SKIPPING = "expert_skipping"

REGULARISATION_KEYS = ("load_rate", "contribution_every", SKIPPING)
"""Keys of `astrea.recipes.model.Regularisation` that only a strategy with a contribution loss reads; the last one only
Astrea's."""


def check_model(strategy: str, options: Mapping[str, Any], written: set[str]) -> None:
    """Refuse options and keys of ``model`` that a strategy does not read.

    Args:
        written: the keys that the recipe states.

    Options of a "module:Class" are checked when the model is built: reading a recipe imports nothing that it names.

    Raises:
        BadKey: a key that another strategy reads, or an option that this one does not have.
    """
    if strategy == ASTREA:
        if options:
            raise BadKey(("options",), f"Astrea's own settings are keys of model: {', '.join(MODEL_KEYS)}")
        return
    for key in MODEL_KEYS:
        if key in written:
            raise BadKey((key,), f"the strategy {strategy!r} does not read it; its settings stand in model.options")
    if strategy in REGISTRY.known():
        try:
            check_options(strategy, strategy_class(strategy, allow_import=False), options)
        except AstreaError as error:
            raise BadKey(("options",), f"{error.message} -> {error.hint}") from None
    elif strategy in RENAMED:
        now, more = RENAMED[strategy]
        pairs = {**more, **options}.items()
        said = ", ".join(f"{key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in pairs)
        raise BadKey(
            ("strategy",), f"{strategy!r} is called {now!r} now; write model.strategy={now} model.options={{{said}}}"
        )
    elif ":" not in strategy:
        raise BadKey(("strategy",), f"unknown strategy {strategy!r}; known: {', '.join(REGISTRY.known())}")


def check_losses(strategy: str, weights: Mapping[str, Mapping[str, float]], written: set[str]) -> None:
    """Refuse weights of losses, and settings of regularisation, that a strategy does not have.

    Args:
        weights: of every loss, by stage. written: the keys of ``regularisation`` that the recipe states.

    Raises:
        BadKey: one that has no effect.
    """
    if strategy == ASTREA or strategy not in REGISTRY.known():
        return
    own = strategy_class(strategy, allow_import=False).weighted_losses
    for stage, losses in weights.items():
        for name in LOSSES:
            if losses.get(name) and name not in own:
                raise BadKey((stage, "losses", name), f"the strategy {strategy!r} has no such loss; give it no weight")
    for key in REGULARISATION_KEYS:
        if key in written and (key == SKIPPING or "contribution" not in own):
            raise BadKey(("regularisation", key), f"the strategy {strategy!r} does not read it; leave it out")


def leave_behind(below: Tree, strategy: Any) -> None:
    """Take out of a tree what it says for its own strategy, if the one that is laid on top chooses another."""
    if strategy is None or strategy == (strategy_of(below) or ASTREA):
        return
    for trail in _own_keys():
        if _has(below.data, trail):
            below.forget(trail)


def forget_unread(saved: Tree) -> None:
    """Take out what a built-in strategy does not read: runs of earlier versions wrote every key down."""
    if strategy_of(saved) in STRATEGIES and strategy_of(saved) != ASTREA:
        for trail in _own_keys():
            if trail != ("model", "options") and _has(saved.data, trail):
                saved.forget(trail)


def strategy_of(tree: Tree) -> Any:
    """The strategy that a tree states; None where it states none."""
    model = tree.data.get("model")
    return model.get("strategy") if isinstance(model, dict) else None


def _own_keys() -> Iterator[Trail]:
    yield from (("model", key) for key in (*MODEL_KEYS, "options"))
    yield from ((stage, "losses", name) for stage in STAGES for name in LOSSES)
    yield from (("regularisation", key) for key in REGULARISATION_KEYS)


def _has(data: Any, trail: Trail) -> bool:
    for part in trail:
        if not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True
