"""The student as an expert: what it declares, where its tokens look, what of it a person can see."""

from __future__ import annotations

import pytest
import torch

from astrea.experts.bank import ExpertBank, expert_class
from astrea.world.experts.compact import COMPACT
from astrea.world.experts.student import COLUMNS, ROWS, StudentExpert


@pytest.fixture(scope="module")
def student() -> StudentExpert:
    torch.manual_seed(0)
    return StudentExpert().eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_it_is_built_in_and_not_one_of_the_four():
    assert expert_class("student", allow_import=False) is StudentExpert
    assert "student" not in COMPACT
    assert StudentExpert.num_tokens == sum(cls.num_tokens for cls in COMPACT.values())


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_its_features_are_what_it_declares(size):
    bank = ExpertBank({"eye": {"kind": "student"}})
    found = bank(torch.rand(2, 3, *size))["eye"]
    assert found.tokens.shape == (2, 28, 96)
    assert len(StudentExpert.labels) == 96
    assert set(StudentExpert.labels) == {None}
    assert found.confidence.eq(1).all()
    assert found.tokens.isfinite().all()


@torch.no_grad()
def test_places_are_the_centres_of_a_grid_row_by_row(student, pixels):
    places = student(pixels).places
    assert places.shape == (3, 28, 2)
    assert places[0, 0].tolist() == pytest.approx([0.5 / 7, 0.5 / 4])
    assert places[2, 8].tolist() == pytest.approx([1.5 / 7, 1.5 / 4])
    assert places[1, 27].tolist() == pytest.approx([6.5 / 7, 3.5 / 4])


@torch.no_grad()
def test_a_token_hears_most_of_its_own_place(student, pixels):
    # One layer of context carries news everywhere, so that no token is deaf; its own cell counts most.
    altered = pixels.clone()
    altered[:, :, :16, 55:] = 1 - altered[:, :, :16, 55:]
    change = (student(altered).tokens - student(pixels).tokens).norm(dim=-1)
    assert change.argmax(1).tolist() == [COLUMNS - 1] * 3
    assert (change > 0).all()


@torch.no_grad()
def test_a_picture_is_seen_alike_alone_and_in_a_batch(student, pixels):
    together = student(pixels).tokens
    alone = torch.cat([student(picture.unsqueeze(0)).tokens for picture in pixels])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_reading_marks_the_cells_that_stand_out_and_names_nothing(student, pixels):
    tokens = student(pixels).tokens
    readings = student.readings(pixels)
    assert len(readings) == 3
    for reading, said in zip(readings, tokens, strict=True):
        assert (reading.labels, reading.boxes, reading.caption) == ([], [], "")
        assert reading.mask.shape == (64, 64)
        assert reading.mask.unique().tolist() == [0, 1]
        odd = (said - said.mean(0)).norm(dim=-1).view(ROWS, COLUMNS)
        row, column = divmod(int(odd.argmax()), COLUMNS)
        assert reading.mask[16 * row + 8, int((column + 0.5) * 64 / COLUMNS)] == 1
