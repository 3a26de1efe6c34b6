"""One run on several processes: who one is among them, and how they come to one result.

Every process (rank) knows the plan of the whole batch, works on its own slice of the rows, and computes its *part* of
the whole batch's loss: parts add up, and so do gradients. So batches, data order and results are the same for every
number of processes, up to rounding; with one process nothing here costs anything or changes a bit.

Gradients are added up explicitly after the backward pass instead of by DistributedDataParallel. Objectives call several
methods of the model (a wrapper sees one forward), parts may be without gradient on one rank or on all of them (text
without pictures, say), and processes first agree on which gradients there are, so that none ever waits for one that
does not come. What that gives up is communication during the backward pass, which matters where the language model
itself learns and is large; there `runtime.llm: fsdp` is the better choice anyway, and it overlaps.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from astrea.common.devices import choose_device
from astrea.common.errors import AstreaError
from astrea.training.fsdp import is_sharded

if TYPE_CHECKING:
    from astrea.recipes.recipe import Runtime

BUCKET = 32 << 20
"""Bytes of gradient that travel together."""

PATIENCE = timedelta(days=7)
"""How long processes wait for one that prepares something for all (pretraining, features)."""


class Distributed:
    """One of ``world`` processes; by default the only one.

    Attributes:
        rank: its number; rank 0 leads: it alone prints, logs, writes and evaluates.
        world: how many there are.
        device: where its tensors live.
    """

    def __init__(
        self, rank: int = 0, world: int = 1, device: torch.device | str = "cpu", patient: Any | None = None
    ) -> None:
        self.rank, self.world, self.device = rank, world, torch.device(device)
        self.patient = patient

    @property
    def single(self) -> bool:
        """Whether there is nobody else."""
        return self.world == 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def local_slice(self, count: int, rank: int | None = None) -> slice:
        """The rows of ``count`` that are this rank's (or another's): contiguous, in the order of ranks."""
        rank = self.rank if rank is None else rank
        return slice(count * rank // self.world, count * (rank + 1) // self.world)

    def check_share(self, batch: int, key: str, chat: int = 0) -> None:
        """Whether every rank gets a sample of a batch.

        Args:
            chat: so many samples may give way to plain chat (``data.text_share``).

        Raises:
            AstreaError: there are fewer samples than ranks; names the recipe's ``key``.
        """
        if batch - chat < self.world:
            taken = f", {chat} of it may be plain chat" if chat else ""
            raise AstreaError(
                f"{key} is {batch}{taken}: a batch that small cannot be shared by {self.world} processes",
                f"set {key} to {self.world + chat} or more (batches are counted over all processes), or start fewer",
            )

    def gather(self, own: Tensor, count: int) -> Tensor:
        """All ranks' rows: (count, ...) from each one's `own` slice of them. A gradient finds its way back."""
        return own if self.single else _Gather.apply(own, count, self)  # type: ignore[no-untyped-call]

    def total(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Sums over the ranks, which must all name the same figures in the same order."""
        if self.single:
            return dict(figures)
        values = torch.tensor(list(figures.values()), dtype=torch.float64)
        dist.all_reduce(values)
        return dict(zip(figures, values.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether any rank says so."""
        if self.single:
            return flag
        said = torch.tensor(int(flag))
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said)

    def from_leader(self, number: int) -> int:
        """Rank 0's number, for everyone."""
        if self.single:
            return number
        said = torch.tensor(number)
        dist.broadcast(said, 0)
        return int(said)

    def check_equal(self, digest: str, what: str, hint: str) -> None:
        """Whether all ranks hold the same.

        Args:
            digest: hexadecimal, of what is compared.

        Raises:
            AstreaError: on every rank, when one differs from rank 0.
        """
        if self.single:
            return
        own = torch.tensor(list(bytes.fromhex(digest)))
        leaders = own.clone()
        dist.broadcast(leaders, 0)
        if self.any(not torch.equal(own, leaders)):
            raise AstreaError(f"not all of the {self.world} processes hold the same {what}", hint)

    @torch.no_grad()
    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Fill everyone's tensors with rank 0's."""
        for tensor in () if self.single else tensors:
            dist.broadcast(tensor, 0)

    @torch.no_grad()
    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up every rank's gradients; a parameter that has none on any rank keeps none.

        Sharded parameters are left alone: their gradients are added up as they are sharded.
        """
        if self.single:
            return
        plain = [p for p in parameters if not is_sharded(p)]
        learned = torch.tensor([p.grad is not None for p in plain], dtype=torch.int32)
        dist.all_reduce(learned, dist.ReduceOp.MAX)
        gradients = []
        for parameter, some in zip(plain, learned.tolist(), strict=True):
            if some:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        sent = []
        for bucket in buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in sent:
            work.wait()
            for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))

    def wait(self) -> None:
        """Until everyone is here, however long that takes."""
        if not self.single:
            dist.monitored_barrier(self.patient, timeout=PATIENCE)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Rank 0 goes through the body before the others do: what it has made, they find."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()


SINGLE = Distributed()
"""One process on its processor."""


class _Gather(torch.autograd.Function):
    """Rows of all ranks. Backward: every rank's part of the loss may depend on a row, so its gradients are summed."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, count: int, ranks: Distributed) -> Tensor:
        ctx.rows, ctx.ranks = (count, len(own)), ranks
        parts = [ranks.local_slice(count, rank) for rank in range(ranks.world)]
        most = max(part.stop - part.start for part in parts)
        # Collectives want equal shapes: short slices are filled up.
        full = own.new_zeros(most, *own.shape[1:])
        full[: len(own)] = own
        found = [torch.empty_like(full) for _ in parts]
        dist.all_gather(found, full)
        return torch.cat([rows[: part.stop - part.start] for rows, part in zip(found, parts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[ctx.ranks.local_slice(ctx.rows[0])], None, None


def buckets(tensors: Sequence[Tensor], size: int = BUCKET) -> Iterator[list[Tensor]]:
    """The same tensors in their order, in groups of one type and of at most ``size`` bytes (or of one tensor)."""
    group: list[Tensor] = []
    taken = 0
    for tensor in tensors:
        if group and (tensor.dtype != group[0].dtype or taken + tensor.nbytes > size):
            yield group
            group, taken = [], 0
        group.append(tensor)
        taken += tensor.nbytes
    if group:
        yield group


def is_main_process() -> bool:
    """Whether this process is rank 0, or the only one; known before `process_group` is entered."""
    return int(os.environ.get("RANK", 0)) == 0


def restarts() -> int:
    """How often torchrun has restarted the processes on this machine; 0 without torchrun."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


@contextmanager
def process_group(runtime: Runtime) -> Iterator[Distributed]:
    """Become one of the processes that torchrun started; without torchrun, the only one.

    Raises:
        AstreaError: the recipe asks for a GPU and there is none, or there are fewer GPUs than processes.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = choose_device(runtime.device, local, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world == 1:
        yield Distributed(device=device)
        return
    timeout = timedelta(minutes=runtime.timeout)
    store, rank, _ = next(iter(dist.rendezvous("env://", timeout=timeout)))  # type: ignore[attr-defined]
    # torchrun may keep its store over a restart, and in it the addresses of processes that are gone.
    life = dist.PrefixStore(f"life-{restarts()}", store)  # type: ignore[attr-defined]
    # Both: counts and flags are agreed on between processors, without making a GPU wait.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=life, rank=rank, world_size=world, timeout=timeout)
    patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    # Rank 0 keeps the store in which the others find each other: it must not end on an error before they have.
    dist.monitored_barrier(patient, timeout=timeout)
    yield Distributed(rank, world, device, patient)
    # Not after an error: taking leave waits for the others, who may be waiting for this one.
    dist.destroy_process_group()
