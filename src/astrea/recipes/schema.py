"""Which models and keys of a configuration could stand at a place of a recipe."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from astrea.recipes.trail import Trail, inside


def models_at(annotation: Any, trail: Trail, data: Any) -> Iterator[type[BaseModel]]:
    """The models that could stand at this place; of a tagged union only the one whose tag the data has."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType, Annotated):
        branches = get_args(annotation)
        for branch in [b for b in branches if _tag_fits(b, data)] or branches:
            yield from models_at(branch, trail, data)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not trail:
            yield annotation
        for name, field in annotation.model_fields.items():
            if trail and trail[0] in (name, field.alias, field.validation_alias):
                yield from models_at(field.annotation, trail[1:], inside(data, trail[0]))
    elif origin is not None and trail:
        for argument in get_args(annotation):
            yield from models_at(argument, trail[1:], inside(data, trail[0]))


def is_entry(model: type[BaseModel], trail: Trail, data: Any) -> bool:
    """Whether this is an entry of a mapping of models: one of any number, where null can only mean "not this one"."""
    return (
        isinstance(trail[-1], str)
        and not any(True for _ in models_at(model, trail[:-1], data))
        and any(True for _ in models_at(model, trail, data))
    )


def _tag_fits(branch: Any, data: Any) -> bool:
    fields = getattr(branch, "model_fields", {})
    tags = {n: get_args(f.annotation) for n, f in fields.items() if "Literal" in str(get_origin(f.annotation))}
    return any(isinstance(data, dict) and data.get(name) in values for name, values in tags.items())


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys of a model as a recipe writes them."""
    return [field.alias or name for name, field in model.model_fields.items()]
