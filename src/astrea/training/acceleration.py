"""How the language model computes: in bfloat16 where that is faster, and compiled if asked for.

Only the language model's passes are changed. Adapters and fusion stay in float32: a reliable and a corrupted expert
differ by a few hundredths of a cosine, which bfloat16 does not resolve.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from astrea.common.progress import SILENT, Reporter

if TYPE_CHECKING:
    from astrea.recipes.recipe import Recipe, Runtime


def with_compiler(recipe: Recipe, device: torch.device, report: Reporter = SILENT) -> Recipe:
    """The recipe with ``runtime.compile`` decided: "auto" is tried on a small function, and said where it fails."""
    if recipe.runtime.compile != "auto":
        return recipe
    try:
        torch.compile(_probe)(torch.ones(8, device=device))
    except (RuntimeError, OSError) as error:
        # Of whatever went wrong in finding or running a compiler, torch says the cause first.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        report.say(f"nothing is compiled, which takes longer: {reason[:200]}")
        works = False
    else:
        works = True
    runtime = recipe.runtime.model_copy(update={"compile": works})
    return recipe.model_copy(update={"runtime": runtime})


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() * 2 + 1


@contextmanager
def accelerated(language: PreTrainedModel, runtime: Runtime, device: torch.device) -> Iterator[None]:
    """Inside the block the language model computes as the recipe's ``runtime`` says; its weights stay as they are."""
    autocast = functools.partial(torch.autocast, device.type, torch.bfloat16)
    compiled = repeated(language) or [language] if runtime.compile is True else []
    with forward_under(language, autocast) if in_half(runtime, device) else nullcontext():
        for module in compiled:
            module.compile(dynamic=True)
        try:
            yield
        finally:
            for module in compiled:
                module._compiled_call_impl = None


@contextmanager
def forward_under(language: PreTrainedModel, context: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Inside the block every forward pass of a language model runs in a ``context()`` of its own."""
    # Captions are read by the inner model alone, answers through the outer one.
    changed: set[nn.Module] = {language, language.base_model}
    before = {module: vars(module).get("forward") for module in changed}
    for module in changed:
        module.forward = run_under(module.forward, context)
    try:
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def run_under(forward: Callable[..., Any], context: Callable[[], AbstractContextManager[Any]]) -> Callable[..., Any]:
    """A forward pass that runs in a ``context()`` of its own."""

    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with context():
            return forward(*args, **kwargs)

    return wrapped


def in_half(runtime: Runtime, device: torch.device) -> bool:
    """Whether a recipe's language model computes in bfloat16 on a device."""
    return runtime.precision == "bf16" or (runtime.precision == "auto" and device.type == "cuda")


def repeated(language: PreTrainedModel) -> list[nn.Module]:
    """Blocks that are compiled one by one: the compiler then has one block to look at instead of all of them, and
    captions, which do not pass the outer model, are read by compiled blocks too. None where the model names none."""
    names = set(language._no_split_modules or ())
    return [module for module in language.modules() if type(module).__name__ in names]
