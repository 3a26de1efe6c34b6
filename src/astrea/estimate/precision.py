"""Computing in bfloat16 without numbers: what torch's autocast would do on a GPU, for tensors that are not there.

Autocast knows no meta device. What it does to a language model is little: matrix products and attention get bfloat16
copies of their arguments, softmax and norms float32 ones, and all else takes types as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel

from astrea.recipes.recipe import Runtime
from astrea.training.acceleration import forward_under

LOW: frozenset[Callable[..., Any]] = frozenset(
    {F.linear, F.scaled_dot_product_attention, torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm,
     torch.einsum, F.conv1d, F.conv2d, Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm}
)  # fmt: skip
FULL: frozenset[Callable[..., Any]] = frozenset(
    {F.softmax, torch.softmax, Tensor.softmax, F.log_softmax, F.layer_norm, F.group_norm, F.cross_entropy}
)


def computes_low(runtime: Runtime) -> bool:
    """Whether a recipe's language model computes in bfloat16, as on a GPU it does if nothing else is said."""
    return runtime.precision == "bf16" or (runtime.precision == "auto" and runtime.device != "cpu")


@contextmanager
def lowered(language: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """Inside, if that is wanted, the language model computes as `astrea.training.acceleration.accelerated` has it."""
    with forward_under(language, Autocast) if wanted else nullcontext():
        yield


def recomputing() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For gradient checkpointing: a block is computed again when `lowered` does not see it, and must be what it was."""
    return nullcontext(), Autocast()


class Autocast(TorchFunctionMode):
    """The rule itself. Unlike torch's it keeps no copies of weights between two uses."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in LOW or func in FULL:
            wanted = torch.bfloat16 if func in LOW else torch.float32
            args, kwargs = tree_map_only(
                Tensor, lambda t: t.to(wanted) if t.is_floating_point() else t, (tuple(args), kwargs)
            )
        return func(*args, **kwargs)
