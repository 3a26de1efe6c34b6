"""A language model whose blocks are shared out over the processes (FSDP2) for as long as one stage lasts.

Only the blocks are sharded, each by itself: embeddings, last norm and output head are read by other parts of the model
too and stay whole on every rank. A stage begins with a freshly sharded model, because one that has run frozen cannot be
unfrozen later (torch issue 186998), and ends with a whole one.

Tensors are told apart by duck typing, so that this imports on builds of torch without distributed parts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from astrea.common.errors import AstreaError
from astrea.training.acceleration import repeated

if TYPE_CHECKING:
    from astrea.model.modeling import AstreaForConditionalGeneration
    from astrea.training.distributed import Distributed

HINT = "set runtime.llm=replicated"


def is_sharded(tensor: Tensor) -> bool:
    """Whether this rank holds only a part of a tensor."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor, sharded or not. Every rank must ask, in the same order."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, or all of one that is not sharded; writing to it changes the tensor."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def shard_like(full: Tensor, model: Tensor) -> Tensor:
    """A whole tensor that every rank holds, sharded as another one is; as it is where that one is not."""
    if not is_sharded(model):
        return full
    from torch.distributed.tensor import distribute_tensor

    # No source rank: everyone cuts its own part out, nothing is sent.
    return distribute_tensor(full, model.device_mesh, model.placements, src_data_rank=None)  # type: ignore[attr-defined]


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors; with ``keep`` false this rank only helps the others to theirs, and gets nothing."""
    found = {}
    for name, tensor in tensors.items():
        full = full_tensor(tensor)
        if keep:
            # To the processor one by one, or a GPU would have to hold the whole model at once.
            found[name] = full.cpu() if is_sharded(tensor) else full
    return found


@contextmanager
def sharded(model: AstreaForConditionalGeneration, ranks: Distributed, wanted: bool) -> Iterator[None]:
    """Shard the language model's blocks inside the block, if that is wanted, there are others, and blocks learn.

    After an error the model is left as it is.

    Raises:
        AstreaError: the language model does not say what its blocks are, or one mixes number types.
    """
    language = model.language_model
    blocks = blocks_of(language) if wanted and not ranks.single else []
    if not any(p.requires_grad for block in blocks for p in block.parameters()):
        yield
        return
    plain = meta_copy(language, blocks)
    shard(language, blocks, ranks)
    yield
    load_full(plain, language)
    model.language_model = plain


def blocks_of(language: PreTrainedModel) -> list[nn.Module]:
    """A language model's repeated blocks, which transformers models name for such a purpose.

    Raises:
        AstreaError: as `sharded`.
    """
    found = repeated(language)
    if not found:
        raise AstreaError(f"{type(language).__name__} does not name its blocks, so they cannot be sharded", HINT)
    for block in found:
        types = {p.dtype for p in block.parameters()}
        if len(types) > 1:
            raise AstreaError(
                f"a block of {type(language).__name__} mixes {', '.join(sorted(map(str, types)))}, and FSDP wants one",
                f"load the language model in one type (llm.dtype=float32), or {HINT}",
            )
    return found


def shard(language: PreTrainedModel, blocks: Sequence[nn.Module], ranks: Distributed) -> None:
    """Shard blocks in place; gradients are summed, as everywhere here."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    inside = {p for block in blocks for p in block.parameters()}
    for block in blocks:
        made: Any = fully_shard(block, mesh=mesh)
        made.set_gradient_divide_factor(1.0)
        # gloo has no operation that scales as it sums.
        made.set_force_sum_reduction_for_comms(True)
    # The root has nothing of its own to shard: it lets one block's parameters travel while another computes.
    fully_shard(language.base_model, mesh=mesh, ignored_params={p for p in language.parameters() if p not in inside})


def meta_copy(language: PreTrainedModel, blocks: Sequence[nn.Module]) -> PreTrainedModel:
    """A copy that shares every parameter outside the blocks; those inside are without memory, until `load_full`."""
    inside = {id(p) for block in blocks for p in block.parameters()}
    memo: dict[int, Any] = {}
    for parameter in language.parameters():
        if id(parameter) in inside:
            memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        else:
            memo[id(parameter)] = parameter
    return copy.deepcopy(language, memo)


@torch.no_grad()
def load_full(plain: PreTrainedModel, language: PreTrainedModel) -> None:
    """Put what the sharded model has learned into its `meta_copy`."""
    for (name, parameter), (_, target) in zip(language.named_parameters(), plain.named_parameters(), strict=True):
        if is_sharded(parameter):
            module, _, leaf = name.rpartition(".")
            full = nn.Parameter(full_tensor(parameter.detach()), requires_grad=target.requires_grad)
            plain.get_submodule(module)._parameters[leaf] = full
    for (_, buffer), (_, into) in zip(language.named_buffers(), plain.named_buffers(), strict=True):
        into.copy_(buffer)


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """`torch.nn.utils.clip_grad_norm_`, also where some parameters are sharded; returns the norm before clipping."""
    split = [p for p in parameters if p.grad is not None and is_sharded(p.grad)]
    if not split:
        return nn.utils.clip_grad_norm_(parameters, most)
    plain = [p.grad for p in parameters if p.grad is not None and not is_sharded(p.grad)]
    norms = [full_tensor(nn.utils.get_total_norm([p.grad for p in split if p.grad is not None]))]
    if plain:
        norms.append(nn.utils.get_total_norm(plain))
    norm: Tensor = torch.stack(norms).norm()
    scale = (most / (norm + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            local(parameter.grad).mul_(scale)
    return norm
