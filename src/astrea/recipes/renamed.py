"""Keys of recipes that had other names before: errors name the new one, and what was saved under old names is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from astrea.common.errors import AstreaError
from astrea.fusion.registry import first_name, renamed_strategy
from astrea.recipes.trail import Trail, dotted
from astrea.recipes.tree import Tree

STAGES = ("align", "fuse", "tune")

RENAMED: Mapping[str, str] = {
    "machines": "runtime",
    "runtime.language": "runtime.llm",
    "runtime.kept_features": "runtime.feature_cache_gb",
    "regular": "regularisation",
    "regularisation.lies": "regularisation.corruption",
    "language": "llm",
    "pretraining.language": "pretraining.llm",
    "pretraining.gate": "pretraining.min_accuracy",
    "model.allocator": "model.gate",
    "model.allocator_tau": "model.gate_tau",
    "model.allocator_question": "model.gate_question",
    "model.allocator_confidence": "model.gate_confidence",
    "model.trust": "model.reliability",
    "model.thrifty": "model.prune_share",
    "model.threshold": "model.keep_threshold",
    "model.warm_language": "model.pretrained_llm",
    **{f"{stage}.losses.trust": f"{stage}.losses.reliability" for stage in STAGES},
    **{f"{stage}.language_lr_scale": f"{stage}.llm_lr_scale" for stage in STAGES},
}
"""Old key -> new key. The mappings above a key have their present names in both: ``machines.language`` is found as
``runtime.language`` once ``machines`` has been."""

_OLD = {new: old for old, new in RENAMED.items()}


def refuse_old_keys(recipe: Tree, renamed: Mapping[str, str]) -> None:
    """Raises AstreaError if keys are written under their old names: each with its place and its new name."""
    found = {trail: new for trail in _trails(recipe.data) if (new := _present(trail, renamed))[-1:] != trail[-1:]}
    if found:
        lines = [
            f"{recipe.origin(trail)}: {dotted(trail)!r} is called {dotted(new)!r} now" for trail, new in found.items()
        ]
        names = ", ".join(f"{dotted(trail)} to {dotted(new)}" for trail, new in found.items())
        raise AstreaError("\n".join(lines), f"Rename {names}.")


def rename_old_keys(recipe: Tree, renamed: Mapping[str, str]) -> None:
    """Put keys that are written under old names under the present ones; `RENAMED` says which."""
    recipe.data = with_new_names(recipe.data, renamed)
    recipe.origins = {_present(trail, renamed): where for trail, where in recipe.origins.items()}


def with_new_names(data: Mapping[str, Any], renamed: Mapping[str, str] = RENAMED) -> dict[str, Any]:
    """A recipe's plain data that was saved under old names, or under the present ones, under the present ones.

    Every stage was once saved with two keys that only align reads; the others go without them.
    """
    return _strategy(_of_align_alone(_translated(data, lambda trail: _present(trail, renamed))), renamed_strategy)


def with_old_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain data as it was written before any key was renamed: what digests are taken of."""
    old = _translated(data, lambda trail: (*trail[:-1], _OLD.get(dotted(trail), dotted(trail)).split(".")[-1]))
    return _strategy(old, first_name)


def _translated(data: Mapping[str, Any], name: Callable[[Trail], Trail], trail: Trail = ()) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in data.items():
        inner = (*trail, key)
        made[str(name(inner)[-1])] = _translated(value, name, inner) if isinstance(value, dict) else value
    return made


def _strategy(
    data: dict[str, Any], name: Callable[[str, Mapping[str, Any]], tuple[str, dict[str, Any]]]
) -> dict[str, Any]:
    """The same with the fusion strategy by another name, and its options by that name."""
    model = data.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("strategy"), str):
        return data
    before = model.get("options") or {}
    if not isinstance(before, dict):
        return data
    strategy, options = name(model["strategy"], before)
    if (strategy, options) == (model["strategy"], before):
        return data
    rest = {key: value for key, value in model.items() if key != "options"}
    return data | {"model": rest | {"strategy": strategy} | ({"options": options} if options else {})}


def _of_align_alone(data: dict[str, Any]) -> dict[str, Any]:
    for stage in ("fuse", "tune"):
        if isinstance(data.get(stage), dict):
            data[stage] = {key: value for key, value in data[stage].items() if key not in ("kind", "progressive")}
    return data


def _present(trail: Trail, renamed: Mapping[str, str]) -> Trail:
    """A place by its present name."""
    now: Trail = ()
    for part in trail:
        other = renamed.get(dotted((*now, part)))
        now = (*now, part) if other is None else tuple(other.split("."))
    return now


def _trails(data: Any, trail: Trail = ()) -> Iterator[Trail]:
    """The places of all keys of nested mappings."""
    for key, value in data.items():
        yield (*trail, key)
        if isinstance(value, dict):
            yield from _trails(value, (*trail, key))
