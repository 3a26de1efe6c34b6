"""A model without memory, built from a description that anybody may have written, to see what it would hold.

Tensors on the device "meta" cost nothing, but modules do, and so do tables that a network makes for itself and saves
nowhere. Both are held against the weights that the folder really has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules import module as registration

from astrea.common.errors import AstreaError
from astrea.common.foreign_files import AGAIN, foreign

MOST_EXPERTS, MOST_NUMBER, MOST_LISTED = 64, 1 << 31, 1 << 16
MOST_SIDE = 512
SPARE_MODULES, MODULES_PER_TENSOR = 2000, 20
SPARE_VALUES = 1 << 27
"""Values that a model may keep in tables beside its weights: 512 MB."""

Model = TypeVar("Model", bound=nn.Module)


def check_description(path: str, described: Mapping[str, Any]) -> None:
    """Whether a config.json is within the limits of any model.

    Raises:
        AstreaError: it is not; names the key.
    """
    if described.get("quantization_config") is not None:
        raise AstreaError(
            f"{path} describes a quantised model", "load one with plain weights, and quantise it while it loads"
        )
    experts = described.get("experts")
    if not isinstance(experts, dict) or len(experts) > MOST_EXPERTS:
        many = f"{len(experts):,} experts; at most {MOST_EXPERTS}" if isinstance(experts, dict) else "no experts"
        raise AstreaError(f"{path} describes {many}", AGAIN)
    for name, entry in experts.items():
        options = entry.get("options") if isinstance(entry, dict) else None
        if not (isinstance(entry, dict) and isinstance(entry.get("kind"), str) and isinstance(options, dict | None)):
            raise AstreaError(f"{path}: experts.{name:.80} is no kind with options", AGAIN)
    side = described.get("image_size", 64)
    if type(side) is not int or not 16 <= side <= MOST_SIDE or side % 8:
        raise AstreaError(f"{path}: image_size is {side!r:.80}", f"it is a multiple of 8 in 16..{MOST_SIDE}; " + AGAIN)
    for where, value in _values(described, "config"):
        if isinstance(value, int) and abs(value) > MOST_NUMBER:
            raise AstreaError(f"{path}: {where} is a number of {len(str(value))} digits", AGAIN)
        if isinstance(value, list) and len(value) > MOST_LISTED:
            raise AstreaError(f"{path}: {where} lists {len(value):,} values", AGAIN)
        name = where.rpartition(".")[2]
        # transformers makes a name for each label, and without dictionaries nothing here reads what it returns.
        if name == "num_labels" and not (type(value) is int and 0 <= value <= MOST_LISTED):
            raise AstreaError(f"{path}: {where} is {value!r:.80}", AGAIN)
        if name == "sliding_window" and not (value is None or (type(value) is int and value > 0)):
            raise AstreaError(f"{path}: {where} is {value!r:.80}", AGAIN)
        if name in ("return_dict", "use_return_dict") and value is False:
            raise AstreaError(f"{path}: {where} is false", "take it out of the file")


def _values(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    yield where, value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from _values(inner, f"{where}.{key!s:.80}")


def build_skeleton(path: str, build: Callable[[], Model], tensors: int, values: int) -> Model:
    """What ``build`` makes, without memory.

    Args:
        path: of the file that describes it.
        tensors, values: how many the folder's weights have.

    Raises:
        AstreaError: nothing can be built, or something much larger than the weights.
    """
    with foreign(f"{path} describes no model that can be built"), _at_most(path, tensors):
        with torch.device("meta"):
            model = build()
        tables = sum(buffer.numel() for buffer in model.buffers())
    if tables > values + SPARE_VALUES:
        raise AstreaError(
            f"{path} describes a model with tables of {tables:,} values, the weights beside it have {values:,}", AGAIN
        )
    return model


@contextmanager
def _at_most(path: str, tensors: int) -> Iterator[None]:
    """Not many more modules than a model with so many tensors has."""
    left = [SPARE_MODULES + MODULES_PER_TENSOR * tensors]

    def count(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise AstreaError(f"{path} describes a model of many more parts than the weights beside it have", AGAIN)

    hooks = [
        registration.register_module_module_registration_hook(count),
        registration.register_module_parameter_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
