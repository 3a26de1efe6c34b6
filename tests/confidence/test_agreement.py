"""What a model folder keeps about agreement: there and back, and hostile files refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from astrea.common.errors import AstreaError
from astrea.confidence.agreement import FILE, read_agreement, save_agreement
from astrea.experts.corruption import of_the_next
from astrea.experts.word_agreement import WordAgreement, learn_agreement
from word_experts import LABELS, seen


@pytest.fixture(scope="module")
def agreement() -> WordAgreement:
    return learn_agreement(seen(100, 0), LABELS)


def test_there_and_back(agreement, tmp_path):
    assert read_agreement(tmp_path, LABELS) is None
    save_agreement(agreement, tmp_path)
    later = {"later": (None,), **LABELS}
    told = seen(50, 1)
    told["tags"] = of_the_next(told["tags"])
    for labels in (LABELS, later):
        back = read_agreement(tmp_path, labels)
        assert back is not None
        assert torch.equal(back.believed(told), agreement.believed(told))
    assert not agreement.believed(told).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("tags.mean"), r"tags\.mean is missing"),
        (lambda t: t.update({"tags.covariance": torch.zeros(3, 3)}), r"tags\.covariance is missing, or not \("),
        (lambda t: t.update({"tags.limits": torch.ones(5)}), r"tags\.limits is missing, or not \(4,\)"),
        (lambda t: t.update({"tags.limits": torch.tensor([1.0, 1, 1, 0])}), "limits holds numbers out of range"),
        (lambda t: t.update({"words.spread": t["words.spread"] * float("nan")}), "spread holds numbers out of range"),
        (lambda t: t.update({"words.mean": t["words.mean"].double()}), r"words\.mean"),
        (lambda t: t.update({"fourth.mean": torch.zeros(3)}), r"has fourth\.mean, which this model has no use for"),
        (lambda t: [t.pop(name) for name in list(t) if not name.startswith("tags.")], "is about 1 experts"),
    ],
)
def test_spoilt_files_are_named(agreement, tmp_path, change, said):
    save_agreement(agreement, tmp_path)
    tensors = load_file(tmp_path / FILE)
    change(tensors)
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(AstreaError, match=said) as caught:
        read_agreement(tmp_path, LABELS)
    assert str(tmp_path / FILE) in caught.value.message
    assert "remove it" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"x" * 40, b"\xff" * 8 + b"{}"])
def test_what_is_no_safetensors_file(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(AstreaError, match="damaged or no safetensors file"):
        read_agreement(tmp_path, LABELS)


def test_a_huge_file_is_not_read(tmp_path: Path):
    with open(tmp_path / FILE, "wb") as file:
        os.truncate(file.fileno(), 1 << 30)
    with pytest.raises(AstreaError, match="bytes; at most"):
        read_agreement(tmp_path, LABELS)
