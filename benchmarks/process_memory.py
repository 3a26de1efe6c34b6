"""The kernel's own count of a process's memory. Linux only."""

from __future__ import annotations

from pathlib import Path

SELF = Path("/proc/self")


def status_bytes(field: str, process: Path = SELF) -> int:
    """A size in bytes that the kernel tells of a process: VmRSS, what is resident; VmHWM, the most that was.

    Raises:
        RuntimeError: it does not tell. OSError: the process is gone.
    """
    for line in (process / "status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"this system does not tell {field}; the measurement needs Linux")


def forget_peak() -> None:
    """Put this process's high-water mark back to what is resident now."""
    (SELF / "clear_refs").write_text("5")
