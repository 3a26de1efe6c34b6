"""What a model folder keeps about doubt: there and back, hostile files refused by name, and verdicts in words."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from astrea.common.errors import AstreaError
from astrea.confidence.calibration import Calibration
from astrea.confidence.estimator import FILE, ConfidenceEstimator, read_estimator, save_estimator
from astrea.confidence.familiarity import learn_familiar
from astrea.confidence.signals import SIGNS, Signs
from astrea.experts.protocol import ExpertFeatures

WIDTHS = {"one": 6, "two": 4}


@pytest.fixture(scope="module")
def doubt() -> ConfidenceEstimator:
    generator = torch.Generator().manual_seed(0)
    familiar = {
        name: learn_familiar(ExpertFeatures(torch.randn(40, 3, width, generator=generator), torch.ones(40, 3)))
        for name, width in WIDTHS.items()
    }
    size = len(SIGNS)
    weights = torch.tensor([[1.0, 0, -5, 0, 0], [0.0] * size])
    calibration = Calibration(torch.zeros(size), torch.ones(size), weights, torch.zeros(2), torch.tensor(0.4))
    return ConfidenceEstimator(familiar, calibration)


def signs(*, strange: float = -1.0, refused: bool = False, believed: bool = True) -> Signs:
    return Signs(
        torch.tensor([refused]),
        torch.tensor([-0.2]),
        torch.tensor([[strange, -1.0]]),
        torch.tensor([[True, believed]]),
        torch.tensor([0.0]),
    )


def test_there_and_back(doubt, tmp_path):
    save_estimator(doubt, tmp_path)
    back = read_estimator(tmp_path, WIDTHS)
    assert back is not None
    assert back.calibration is not None
    for one, two in ((doubt.calibration, back.calibration), (doubt.familiar["two"], back.familiar["two"])):
        assert all(torch.equal(tensor, two.tensors()[name]) for name, tensor in one.tensors().items())
    assert back.judge(signs(), [[]], list(WIDTHS)) == doubt.judge(signs(), [[]], list(WIDTHS))


def test_a_folder_without_it(tmp_path):
    assert read_estimator(tmp_path, WIDTHS) is None


def test_without_calibration(doubt, tmp_path):
    save_estimator(replace(doubt, calibration=None), tmp_path)
    back = read_estimator(tmp_path, WIDTHS)
    assert back is not None
    [fine] = back.judge(signs(), [[]], list(WIDTHS))
    assert (fine.confidence, fine.answerable, fine.doubts) == (None, True, ())
    [strange] = back.judge(signs(strange=0.5), [[]], list(WIDTHS))
    assert (strange.confidence, strange.answerable) == (None, False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("familiar.one.mean"), "mean is missing"),
        (lambda t: t.update({"familiar.one.mean": torch.zeros(3)}), r"mean is missing, or not \(16,\)"),
        (lambda t: t.update({"familiar.one.axes": torch.zeros(())}), "axes"),
        (lambda t: t.update({"familiar.two.limit": torch.tensor(0.0)}), "limit holds numbers out of range"),
        (lambda t: t.update({"familiar.two.spread": t["familiar.two.spread"] * float("nan")}), "spread holds numbers"),
        (lambda t: t.update({"calibration.weights": torch.zeros(2, 99)}), "weights"),
        (lambda t: t.update({"calibration.bias": torch.zeros(2, dtype=torch.int64)}), "bias"),
        (lambda t: t.update({"familiar.three.mean": torch.zeros(3)}), r"familiar\.three\.mean"),
    ],
)
def test_spoilt_files_are_named(doubt, tmp_path, change, said):
    save_estimator(doubt, tmp_path)
    tensors = load_file(tmp_path / FILE)
    change(tensors)
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(AstreaError, match=said) as caught:
        read_estimator(tmp_path, WIDTHS)
    assert str(tmp_path / FILE) in caught.value.message
    assert "remove it" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"x" * 40, b"\xff" * 8 + b"{}"])
def test_what_is_no_safetensors_file(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(AstreaError, match="damaged or no safetensors file"):
        read_estimator(tmp_path, WIDTHS)


def test_a_huge_file_is_not_read(tmp_path: Path):
    with open(tmp_path / FILE, "wb") as file:
        os.truncate(file.fileno(), 1 << 30)
    with pytest.raises(AstreaError, match="bytes; at most"):
        read_estimator(tmp_path, WIDTHS)


def test_reasons_are_named(doubt):
    [sure] = doubt.judge(signs(), [[]], list(WIDTHS))
    assert sure.answerable
    assert sure.doubts == ()
    [strange] = doubt.judge(signs(strange=0.9, believed=False), [["banjo", "oboe"]], list(WIDTHS))
    assert not strange.answerable
    assert strange.doubts == (
        "this picture is unlike what I was trained on (one)",
        "I do not know the words 'banjo', 'oboe'",
        "what two saw does not fit what the others saw",
    )
    [refused] = doubt.judge(signs(refused=True), [[]], list(WIDTHS))
    assert (refused.answerable, refused.doubts) == (False, ("the picture does not say",))
    assert strange.confidence is not None
    assert sure.confidence is not None
    assert strange.confidence < 0.4 < sure.confidence
