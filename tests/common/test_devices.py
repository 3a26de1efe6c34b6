"""Which device computes."""

from __future__ import annotations

import pytest
import torch

from astrea.common.devices import choose_device
from astrea.common.errors import AstreaError


def test_each_process_has_a_gpu_of_its_own_or_there_is_none(monkeypatch):
    assert choose_device("cpu", 1, 2) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto", 1, 2) == torch.device("cuda", 1)
    assert choose_device("cpu", 1, 2) == torch.device("cpu")
    with pytest.raises(AstreaError, match="3 processes on this machine share 2 GPUs"):
        choose_device("auto", 0, 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto", 0, 3) == torch.device("cpu")
    with pytest.raises(AstreaError, match="no GPU"):
        choose_device("cuda", 0, 1)
