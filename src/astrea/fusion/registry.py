"""Every fusion strategy by the name that recipes use. Nothing of a strategy is imported before it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from astrea.common.errors import AstreaError
from astrea.common.lazy import load_object
from astrea.common.registry import Registry

if TYPE_CHECKING:
    from astrea.fusion.protocol import FusionStrategy, Layout

ASTREA = "astrea"

STRATEGIES: Mapping[str, str] = {
    ASTREA: "astrea.fusion.astrea:AstreaFusion",
    "single": "astrea.fusion.peers.single:SingleExpert",
    "average": "astrea.fusion.peers.average:UniformAverage",
    "sequence_concat": "astrea.fusion.peers.sequence_concat:SequenceConcat",
    "channel_concat": "astrea.fusion.peers.channel_concat:ChannelConcat",
    "routed": "astrea.fusion.peers.routed:Routed",
    "mova": "astrea.fusion.peers.mova:MoVA",
    "moai": "astrea.fusion.peers.moai:MoAI",
    "spatial_sampler": "astrea.fusion.peers.spatial_sampler:SpatialSampler",
}
"""The built-in ones."""

RENAMED: Mapping[str, tuple[str, Mapping[str, Any]]] = {"switch": ("routed", {"policy": "top_k", "k": 1})}
"""Strategies that are another one with some options now: what was saved under the old name is read."""

REGISTRY = Registry("fusion strategy", STRATEGIES, "astrea.strategies")
"""Those of other packages too: by name where a package registered them, or as "module:Class"."""


MISTAKES = {"extra_forbidden": "there is none of this name", "missing": "it has no default, so give it"}


def renamed_strategy(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A strategy's present name and options."""
    new, more = RENAMED.get(name, (name, {}))
    return new, {**more, **options}


def first_name(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and options by which a strategy was saved before it was another one."""
    for old, (new, more) in RENAMED.items():
        if name == new and more.items() <= options.items():
            return old, {key: value for key, value in options.items() if key not in more}
    return name, dict(options)


def strategy_class(name: str, *, allow_import: bool) -> type[FusionStrategy]:
    """The class of a strategy.

    Args:
        allow_import: whether "module:Class" may be imported, see `astrea.common.registry.Registry.find`.

    Raises:
        AstreaError: an unknown name, an import that fails or is not allowed, or what is no strategy.
    """
    found = REGISTRY.find(name, allow_import=allow_import)
    wanted = load_object("astrea.fusion.protocol:FusionStrategy")
    if not (isinstance(found, type) and issubclass(found, wanted)):
        raise AstreaError(
            f"fusion strategy {name!r} is not a subclass of astrea.FusionStrategy",
            "derive it from astrea.FusionStrategy",
        )
    return found


def options_of(strategy: type[FusionStrategy], given: Mapping[str, Any] | None = None) -> type[BaseModel]:
    """The pydantic model of a strategy's options: its own (`FusionStrategy.options_model`), or one made of its
    constructor's keyword arguments, with their types and defaults. Unknown keys are an error in both.

    Args:
        given: the options, where one of them decides which others there are.
    """
    own = strategy.options_model(given or {})
    if own is not None:
        return own
    constructor = strategy.__init__
    try:
        hints = get_type_hints(constructor)
    except NameError:  # types that are imported for type checkers alone
        hints = {}
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if one.default is one.empty else one.default)
        for name, one in inspect.signature(constructor).parameters.items()
        if one.kind is one.KEYWORD_ONLY
    }
    return create_model(f"{strategy.__name__}Options", __config__=ConfigDict(extra="forbid", frozen=True), **fields)


def check_options(name: str, strategy: type[FusionStrategy], options: Mapping[str, Any]) -> None:
    """Raises AstreaError for an option that the strategy does not have, that it must have, or of another type."""
    model = options_of(strategy, options)
    try:
        model.model_validate(dict(options), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        said = MISTAKES.get(first["type"], str(first["msg"]))
        known = ", ".join(model.model_fields) or "none"
        raise AstreaError(f"option {key!r} of the fusion strategy {name!r}: {said}", f"its options: {known}") from error


def build_strategy(
    name: str, layout: Layout, options: Mapping[str, Any], *, allow_import: bool = False
) -> FusionStrategy:
    """The strategy of a name.

    Args:
        layout: what there is to fuse. options: of its constructor. allow_import: as in `strategy_class`.

    Raises:
        AstreaError: as `strategy_class` and `check_options`; and what the constructor refuses.
    """
    found = strategy_class(name, allow_import=allow_import)
    check_options(name, found, options)
    try:
        return found(layout, **options)  # type: ignore[call-arg]
    except TypeError as error:
        raise AstreaError(f"fusion strategy {name!r}: {error}", "check model.options in the recipe") from error
