from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from astrea.common.memory import give_back


def resident() -> int:
    """Bytes of this process that are in main memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what was freed and can be told")
def test_memory_below_what_is_still_used_is_given_back():
    # Blocks too small for a mapping of their own; the last one holds on to the heap below it.
    blocks = [torch.ones(16_000) for _ in range(1600)]
    last = torch.ones(16_000)
    del blocks
    before = resident()
    assert give_back()
    assert before - resident() > 50_000_000
    assert float(last.sum()) == 16_000


def test_where_the_c_library_cannot_be_told_nothing_is_given_back(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    assert give_back() is False
