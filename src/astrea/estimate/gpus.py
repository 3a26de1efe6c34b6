"""What there is to rent: memory and dense matrix rates of some GPUs, as their makers state them.

Where a datasheet gives only the rate with structured sparsity, half of it is the dense one. Memory is the datasheet's
GB, taken as 10^9 bytes, which is a little less than the driver shows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """memory: GB (10^9 bytes). bf16, fp32: dense TFLOP/s with tensor cores and without. source: a public datasheet."""

    name: str
    memory: int
    bf16: float
    fp32: float
    source: str


GPUS = (
    Gpu("L4", 24, 121.0, 30.3, "NVIDIA L4 Tensor Core GPU datasheet"),
    Gpu("RTX 4090", 24, 165.2, 82.6, "NVIDIA Ada GPU Architecture whitepaper, appendix A"),
    Gpu("A100 40GB", 40, 312.0, 19.5, "NVIDIA A100 Tensor Core GPU datasheet"),
    Gpu("L40S", 48, 362.0, 91.6, "NVIDIA L40S GPU datasheet"),
    Gpu("A100 80GB", 80, 312.0, 19.5, "NVIDIA A100 Tensor Core GPU datasheet"),
    Gpu("H100 SXM", 80, 989.0, 67.0, "NVIDIA H100 Tensor Core GPU datasheet"),
    Gpu("H200 SXM", 141, 989.0, 67.0, "NVIDIA H200 Tensor Core GPU datasheet"),
    Gpu("B200", 180, 2250.0, 75.0, "NVIDIA HGX B200 datasheet, per GPU"),
)
"""From the smallest memory to the largest; of equal ones the slower first."""

OVERHEAD = 1_000_000_000
"""Bytes that the driver, the libraries' workspaces and the kernels themselves take."""

FRAGMENTATION = 1.1
"""What the allocator reserves over what tensors use."""


def needed(peak: int) -> int:
    """Bytes of GPU memory for tensors of ``peak`` bytes."""
    return int(peak * FRAGMENTATION) + OVERHEAD


def smallest(peak: int) -> Gpu | None:
    """The first GPU of the table that holds tensors of ``peak`` bytes; None if none does."""
    return next((gpu for gpu in GPUS if gpu.memory * 10**9 >= needed(peak)), None)


def seconds(flops: float, gpu: Gpu, *, half: bool, utilisation: float) -> float:
    """How long ``flops`` operations take at a share of the dense rate."""
    return flops / ((gpu.bf16 if half else gpu.fp32) * 1e12 * utilisation)
