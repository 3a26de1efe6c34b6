"""The loss of a batch, whole and in parts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from astrea import AstreaError
from astrea.data.packing import Packer, Turn
from astrea.language.loss import weighted_loss

LABELS = torch.tensor([[-100, 3, 1, -100], [-100, -100, -100, -100], [-100, -100, 2, 0]])


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and weights; the second row has no label."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 5, generator=generator).requires_grad_(), LABELS, torch.rand(3, 4, generator=generator)


def total_of(weights: Tensor | None) -> Tensor:
    keep = LABELS[:, 1:] != -100
    return keep.sum() if weights is None else weights[:, 1:][keep].sum()


@pytest.mark.parametrize("weighted", [True, False])
def test_a_whole_batch_is_the_weighted_mean_over_its_labels(weighted: bool):
    logits, labels, weights = batch()
    given = weights if weighted else None
    told = [(row, place) for row in range(3) for place in range(1, 4) if labels[row, place] != -100]
    each = torch.stack([F.cross_entropy(logits[row, place - 1], labels[row, place]) for row, place in told])
    count = torch.stack([weights[spot] if weighted else torch.tensor(1.0) for spot in told])
    loss = weighted_loss(logits, labels, given)
    torch.testing.assert_close(loss, (each * count).sum() / count.sum())
    torch.testing.assert_close(weighted_loss(logits, labels, given, total_of(given)), loss)


@pytest.mark.parametrize("weighted", [True, False])
def test_parts_of_a_batch_add_up_to_it_although_one_has_no_label(weighted: bool):
    logits, labels, weights = batch()
    given = weights if weighted else None
    whole = weighted_loss(logits, labels, given)
    (wanted,) = torch.autograd.grad(whole, logits)
    total = float(total_of(given))
    rows = [slice(row, row + 1) for row in range(3)]
    parts = [weighted_loss(logits[r], labels[r], weights[r] if weighted else None, total) for r in rows]
    assert parts[1].item() == 0
    torch.testing.assert_close(sum(parts), whole)
    (found,) = torch.autograd.grad(sum(parts), logits)
    torch.testing.assert_close(found, wanted)


def test_a_part_without_a_label_has_gradients_that_are_nothing():
    logits, labels, weights = batch()
    (found,) = torch.autograd.grad(weighted_loss(logits[1:2], labels[1:2], weights[1:2], 4.0), logits)
    assert found.eq(0).all()


@pytest.mark.parametrize("total", [None, 0, 0.0, torch.tensor(0)])
def test_a_batch_without_a_label_is_an_error(total):
    logits, labels, weights = batch()
    with pytest.raises(AstreaError, match="every label of this batch is masked"):
        weighted_loss(logits[1:2], labels[1:2], weights[1:2], total)


def test_the_model_takes_the_number_as_a_trainer_gives_it(tiny_model, tiny_processor, pictures):
    packer = Packer(tiny_processor.tokenizer, tiny_model.num_visual_tokens)
    packed = packer.pack([[Turn("is it red?", "no")], [Turn("how many umbrellas are there?", "two")]])
    features = tiny_model.encode_images(tiny_processor(images=pictures[:2])["pixel_values"])
    inputs = packed.model_inputs() | {"label_weights": None}
    count = (packed.labels != -100).sum()
    with torch.no_grad():
        whole = tiny_model(**inputs, features=features).loss
        parts = [
            tiny_model(
                **{k: v if v is None else v[row : row + 1] for k, v in inputs.items()},
                features={name: part.rows(torch.tensor([row])) for name, part in features.items()},
                num_items_in_batch=count,
            ).loss
            for row in range(2)
        ]
    torch.testing.assert_close(sum(parts), whole, atol=1e-5, rtol=1e-5)
    assert min(parts) > 0
