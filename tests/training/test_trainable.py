"""What learns, told in a line that a person reads."""

from __future__ import annotations

import pytest
import torch

from astrea.training.trainable import describe_model, describe_trainable, parts_of, short, size


def test_buffers_are_counted_and_never_learn(make_context):
    model = make_context().model
    norm = torch.nn.BatchNorm1d(7)  # 14 parameters; 7 means, 7 variances and a count that do not learn
    assert (size(norm), size(norm, learning=True)) == (29, 14)
    state = [tensor for part in parts_of(model).values() for tensor in (*part.parameters(), *part.buffers())]
    assert f"the model has {short(sum(tensor.numel() for tensor in state))} parameters and buffers" in describe_model(
        model
    )
    for name in ("experts", "adapters", "heads", "fusion", "language model"):
        assert f"{name} {'' if name == 'adapters' else short(size(parts_of(model)[name]))}".strip() in describe_model(
            model
        )


def test_what_learns_and_what_is_frozen(make_context):
    model = make_context().model
    model.requires_grad_(False)
    whole = sum(size(part) for part in parts_of(model).values())
    assert describe_trainable(model) == f"learns: nothing; frozen: the other {short(whole)}"
    adapter = model.alignment.adapters["detection"].requires_grad_(True)
    learns = sum(p.numel() for p in adapter.parameters())
    said = describe_trainable(model)
    assert said.startswith(f"learns: adapter of detection {short(learns)}")
    assert said.endswith(f"frozen: the other {short(whole - learns)}")
    model.alignment.adapters.requires_grad_(True)
    assert "learns: all adapters" in describe_trainable(model)
    first = next(model.language_model.parameters()).requires_grad_(True)
    language = size(model.language_model)
    assert f"language model {short(first.numel())} of {short(language)};" in describe_trainable(model)
    assert len(describe_trainable(model)) < 120


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0"), (940, "940"), (1234, "1.2k"), (12_345, "12k"), (4_100_000, "4.1M"), (15e8, "1.5B")]
)
def test_counts_in_words(count, said):
    assert short(int(count)) == said
