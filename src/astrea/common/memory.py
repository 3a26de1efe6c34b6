"""How much memory this process has needed so far, and giving back what it no longer needs."""

from __future__ import annotations

import ctypes
import sys


def peak_bytes() -> int | None:
    """The most main memory that this process has held, in bytes; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def peak_gpu_bytes() -> int:
    """The most memory that torch has held on a GPU, in bytes; 0 where it has used none."""
    torch = sys.modules.get("torch")  # whoever has not loaded it has used no GPU
    if torch is None or not torch.cuda.is_initialized():
        return 0
    found: int = max(torch.cuda.max_memory_reserved(device) for device in range(torch.cuda.device_count()))
    return found


def peak_text() -> str:
    """Both in words, such as "peak 1.2 GB" or "peak 3.1 GB, GPU 14.0 GB"; "" where nothing is known."""
    main, gpu = peak_bytes(), peak_gpu_bytes()
    figures = [] if main is None else [f"peak {main / 1e9:.1f} GB"]
    return ", ".join(figures + ([f"GPU {gpu / 1e9:.1f} GB"] if gpu else []))


def give_back() -> bool:
    """Hand memory that was freed back to the system; returns whether there was any, False where the C library keeps
    nothing or cannot be told (all but glibc).

    glibc keeps freed blocks of up to 32 MB for later ones of such sizes. Between phases that need memory for different
    things that is a gigabyte which nobody uses: the next phase's large tensors are mapped beside it.
    """
    if sys.platform != "linux":
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(trim is not None and trim(0))
