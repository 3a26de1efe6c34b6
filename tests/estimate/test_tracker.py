from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from astrea.estimate.fake_tensors import fake_tensors, to_fake
from astrea.estimate.tracker import MAPPED, MemoryTracker

META = torch.device("meta")


# Real numbers are fake, whole numbers are there


def test_real_numbers_are_absent_and_whole_numbers_are_there():
    with fake_tensors():
        floats = torch.zeros(2, 3, device=META)
        counts = torch.arange(4, device=META)
        flags = torch.ones(3, dtype=torch.bool, device=META)
        listed = torch.tensor([3, 1], device=META)
        spoken = torch.tensor([0.5], device=META)
        like = torch.zeros_like(counts, device=META)
    assert floats.device == spoken.device == META
    assert counts.tolist() == [0, 1, 2, 3]
    assert flags.all()
    assert listed.tolist() == [3, 1]
    assert like.tolist() == [0, 0, 0, 0]


def test_what_meets_an_absent_tensor_is_absent():
    with fake_tensors():
        absent_23 = torch.zeros(2, 3, device=META)
        together = absent_23 + torch.ones(2, 3)
        picked = absent_23[torch.tensor([1, 0, 1])]
        carried = together.cpu().double()
        chosen = torch.where(torch.tensor([[True], [False]]), absent_23, 1.0)
    assert [t.device for t in (together, picked, carried, chosen)] == [META] * 4
    assert carried.dtype == torch.float64
    assert picked.shape == (3, 3)


def test_masks_decide_shapes_forward_and_backward():
    keep = torch.tensor([[True, False, True], [False, False, True]])
    with fake_tensors():
        logits = torch.zeros(2, 3, 5, device=META, requires_grad=True)
        chosen = logits[keep]
        loss = F.cross_entropy(chosen, torch.tensor([1, 2, 3]))
        loss.backward()
        written = torch.zeros(2, 3, device=META)
        written[keep] = torch.ones(3)
        first = logits[:, keep[0]]
    assert chosen.shape == (3, 5)
    assert first.shape == (2, 2, 5)
    assert logits.grad is not None
    assert logits.grad.shape == logits.shape


def test_a_mask_that_is_absent_itself_decides_no_shape():
    with fake_tensors():
        values = torch.zeros(4, device=META)
        with pytest.raises(NotImplementedError):
            values[values > 0]


def test_one_absent_number_is_1():
    with fake_tensors():
        loss = torch.zeros((), device=META)
        assert loss.item() == 1.0
        assert bool(torch.isfinite(loss))
        assert float(torch.tensor(2.5)) == 2.5  # what is there is told as it is


def test_without_numbers_keeps_whole_ones():
    module = nn.BatchNorm1d(3)
    module.num_batches_tracked.fill_(7)
    to_fake(module)
    assert module.weight.device == module.running_mean.device == META
    assert int(module.num_batches_tracked) == 7
    assert isinstance(module.weight, nn.Parameter)


# Counting


def test_a_storage_counts_once_and_until_it_is_let_go():
    with MemoryTracker() as tracker:
        first = torch.zeros(1000)
        view = first.view(10, 100)[2:]
        assert tracker.live.total() == 4000
        second = torch.zeros(500, dtype=torch.float64)
        assert tracker.live.total() == 8000
        del first
        assert tracker.live.total() == 8000  # the view still holds it
        del view
        assert tracker.live.total() == 4000
        first = torch.ones(10)
        assert tracker.live.total() == 4040
        first.add_(1)
        assert tracker.live.total() == 4040
        del second
    assert tracker.peak == 8000
    tracker.forget_peak()
    assert tracker.peak == 40


def test_kinds_are_told_apart():
    weight = nn.Parameter(torch.zeros(100, 50))
    data = torch.zeros(8, 100)
    tracker = MemoryTracker()
    with tracker:
        tracker.adopt([weight], "weights")
        with tracker.saving():
            hidden = data @ weight
            squashed = hidden.tanh()
            del hidden
            loss = squashed.sum()
            del squashed
        assert tracker.live["weights"] == 20_000
        # What the backward pass reads: the data (for the weight) and the result of tanh. Not `hidden`.
        assert tracker.live["activations"] == 4 * (8 * 100 + 8 * 50)
        loss.backward()
        tracker.adopt([weight.grad], "gradients")
        del loss
        assert tracker.live["gradients"] == 20_000
        assert tracker.live["temporary"] == 0
        assert tracker.live["activations"] == 4 * 8 * 100  # the data is ours, and still there
    assert tracker.peak >= 20_000 + 20_000


def test_multiplications_are_counted_forward_and_backward():
    a, b = torch.zeros(4, 8, requires_grad=True), torch.zeros(8, 16, requires_grad=True)
    with MemoryTracker() as tracker:
        out = (a @ b).sum()
        assert tracker.flops == 2 * 4 * 8 * 16
        out.backward()
        assert tracker.flops == 3 * 2 * 4 * 8 * 16
        F.conv2d(torch.zeros(2, 3, 8, 8), torch.zeros(5, 3, 3, 3), padding=1)
        assert tracker.flops == 3 * 2 * 4 * 8 * 16 + 2 * (2 * 8 * 8) * 5 * 3 * 9


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 40), nn.GELU(), nn.LayerNorm(40), nn.Linear(40, 7))


def step(model: nn.Module) -> tuple[int, int, int]:
    """Operations, bytes kept for the backward pass, and most bytes of a forward and backward pass."""
    ids = torch.arange(12) % 7
    tracker = MemoryTracker()
    with tracker, fake_tensors():
        tracker.adopt(model.parameters(), "weights")
        with tracker.saving():
            loss = F.cross_entropy(model(torch.zeros(12, 20)), ids)
        kept = tracker.live["activations"]
        loss.backward()
    assert loss.device == next(model.parameters()).device
    return tracker.flops, kept, tracker.peak


def test_absent_and_real_tensors_count_alike():
    real, missing = step(network()), step(to_fake(network()))
    # Two products forward; backward two for the second layer, and none for the first one's input.
    assert real[0] == missing[0] == 2 * 12 * (2 * 20 * 40 + 3 * 40 * 7)
    assert real[1] == missing[1] > 4 * 12 * (20 + 40 + 40 + 7)
    assert missing[2] == pytest.approx(real[2], rel=0.02)


def test_blocks_with_a_mapping_of_their_own_are_told_from_those_that_are_kept_when_freed():
    with MemoryTracker() as tracker:
        weights = torch.empty(1000)
        tracker.adopt([weights], "weights")
        small, large = torch.empty(500), torch.empty(MAPPED // 4, device="meta")
        assert tracker.moving == 4 * 500
        assert tracker.peak == 4 * 1500 + MAPPED
        tracker.adopt([small], "activations")
        del small, large
        tracker.forget_peak()
    assert tracker.moving == 0
    assert tracker.peak == 4000
    assert weights.numel() == 1000


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference_mode_hides_nothing(mode):
    layer = to_fake(nn.Linear(20, 7))
    with MemoryTracker() as tracker, fake_tensors(), mode():
        picture = torch.empty(3, 12, 20, device="meta")
        out = layer(picture)
        scores = torch.softmax(out @ out.transpose(1, 2), -1)
        assert scores.sum().item() == 1
    # A layer with a bias and a product of matrices.
    assert tracker.flops == 2 * 3 * 12 * (20 * 7 + 12 * 7)
    # Least: the picture and what came out of it stay, and scores are there before and after they become shares. Most:
    # further, the layer, a turned copy of what came out and one more table of scores.
    least = 4 * 3 * 12 * (20 + 7 + 2 * 12)
    assert least <= tracker.peak <= least + 4 * (20 * 7 + 7 + 3 * 12 * (7 + 12))
