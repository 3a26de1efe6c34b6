"""How the language model computes: in bfloat16 where that is faster, and compiled if asked for.

Only the language model's passes are changed. Adapters, fusion and trust stay in float32: an honest and a lying expert
differ by a few hundredths of a cosine, which bfloat16 does not resolve.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

if TYPE_CHECKING:
    from astrea.recipes.recipe import Runtime


@contextmanager
def accelerated(language: PreTrainedModel, runtime: Runtime, device: torch.device) -> Iterator[None]:
    """Inside the block the language model computes as the recipe's ``runtime`` says; its weights stay as they are."""
    low = in_half(runtime, device)
    # Captions are read by the inner model alone, answers through the outer one.
    changed: set[nn.Module] = {language, language.base_model} if low else set()
    before = {module: vars(module).get("forward") for module in changed}
    for module in changed:
        module.forward = in_bfloat16(module.forward, device.type)
    compiled = repeated(language) or [language] if runtime.compile else []
    for module in compiled:
        module.compile(dynamic=True)
    try:
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward
        for module in compiled:
            module._compiled_call_impl = None


def in_half(runtime: Runtime, device: torch.device) -> bool:
    """Whether a recipe's language model computes in bfloat16 on a device."""
    return runtime.precision == "bf16" or (runtime.precision == "auto" and device.type == "cuda")


def repeated(language: PreTrainedModel) -> list[nn.Module]:
    """Blocks that are compiled one by one: the compiler then has one block to look at instead of all of them, and
    captions, which do not pass the outer model, are read by compiled blocks too. None where the model names none."""
    names = set(language._no_split_modules or ())
    return [module for module in language.modules() if type(module).__name__ in names]


def in_bfloat16(forward: Any, kind: str) -> Any:
    """A forward pass under autocast."""

    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(kind, torch.bfloat16):
            return forward(*args, **kwargs)

    return wrapped
