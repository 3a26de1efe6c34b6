"""Which device computes. torch is imported late: the command line names devices before it needs one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from astrea.common.errors import AstreaError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]
"""auto = a GPU if there is one, otherwise the processor."""


def choose_device(wanted: Device, local: int = 0, processes: int = 1) -> torch.device:
    """The device of this machine's ``local``-th of so many processes: a GPU of its own where there are any.

    Raises:
        AstreaError: there is no GPU though one is wanted, or not one for each process.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and not count):
        return torch.device("cpu")
    if not count:
        raise AstreaError("torch finds no GPU on this machine", "choose the device cpu, or install torch for your GPU")
    if count < processes:
        raise AstreaError(
            f"{processes} processes on this machine share {count} GPUs",
            "start one process per GPU (--nproc-per-node), or set runtime.device=cpu",
        )
    return torch.device("cuda", local)
