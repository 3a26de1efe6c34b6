"""How channels are called and spelled."""

from __future__ import annotations

import pytest
import torch

from astrea.experts.pretrained.slots import (
    AREA_BINS,
    AREA_MAX,
    SPAN_BINS,
    even,
    grid_side,
    keep_top,
    rank_labels,
    spoken,
    word_scores,
)
from astrea.experts.protocol import soft_bins
from astrea.world.experts.compact import COMPACT
from astrea.world.experts.detection import SPAN_MAX, slot_tokens
from astrea.world.experts.segmentation import AREA_MAX as COMPACT_AREA_MAX


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("tench, Tinca tinca", "tench"),
        ("traffic_light", "traffic light"),
        ("LABEL_7", None),
        ("N/A", None),
        ("  ", None),
        ("Egyptian cat", "Egyptian cat"),
        ("x" * 500, "x" * 64),
    ],
)
def test_classes_are_called_as_one_would(label, said):
    assert spoken(label) == said


def test_widths_and_areas_mean_what_the_compact_experts_mean_by_them():
    compact = COMPACT["detection"].labels
    box = torch.tensor([[[0.1, 0.2, 0.1 + 0.3, 0.2 + 0.2]]])
    told = slot_tokens(torch.ones(1, 1, len(COMPACT["detection"].class_names)), box, torch.ones(1, 1)).tokens[0, 0]
    wide = told[compact.index("wide0") : compact.index("wide7") + 1]
    torch.testing.assert_close(soft_bins(torch.tensor(0.3), SPAN_BINS)[:8], wide)
    assert SPAN_MAX == 0.5
    area = torch.tensor(0.05)
    same = soft_bins((area / COMPACT_AREA_MAX).sqrt(), 12)
    torch.testing.assert_close(soft_bins((area / AREA_MAX).sqrt(), AREA_BINS)[:12], same)
    assert AREA_MAX >= 1


def test_only_the_largest_probabilities_are_kept():
    kept = keep_top(torch.tensor([[0.1, 0.4, 0.3, 0.2]]), 2)
    assert kept.tolist() == [[0.0, pytest.approx(0.4), pytest.approx(0.3), 0.0]]
    assert keep_top(torch.ones(1, 2), 9).sum() == 2


def test_hidden_states_come_at_one_scale():
    loud = even(torch.randn(3, 5, 16) * 400 + 90)
    torch.testing.assert_close(loud.std(-1, unbiased=False), torch.ones(3, 5), atol=1e-3, rtol=0)
    assert even(torch.zeros(2, 4)).eq(0).all()


def test_ranks_have_names_to_the_twentieth():
    assert rank_labels(3) == ("first", "second", "third")
    assert rank_labels(22)[-3:] == ("twentieth", None, None)


@pytest.mark.parametrize(("cells", "side"), [(16, 4), (1, 1), (15, None), (0, None)])
def test_grids_are_square(cells, side):
    assert grid_side(cells) == side


def test_a_word_is_as_sure_as_its_least_sure_piece():
    assert word_scores(["a", "a re", "a red", "a red ba"], [0.9, 0.8, 0.5, 0.7]) == [0.9, 0.5, 0.7]
    assert word_scores(["", "a"], [0.3, 0.4]) == [0.4]
