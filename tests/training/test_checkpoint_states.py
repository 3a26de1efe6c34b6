"""Optimizers and random states through a checkpoint: the next steps are the same bits."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.common.fingerprint import tensors_fingerprint
from astrea.training.checkpoint import (
    flatten_optimizer,
    load_checkpoint,
    restore_optimizer,
    rng_state,
    save_checkpoint,
    set_rng_state,
)


def network() -> tuple[torch.nn.Module, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2).to(torch.float32))
    groups = [{"params": model[0].parameters(), "lr": 3e-3}, {"params": model[2].parameters(), "weight_decay": 0.0}]
    return model, torch.optim.AdamW(groups, lr=1e-3, betas=(0.8, 0.95), amsgrad=True)


def advance(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
    model(x).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_the_next_steps_of_a_restored_optimizer_are_bit_equal(tmp_path):
    model, optimizer = network()
    for seed in range(3):
        advance(model, optimizer, seed)
    optimizer.param_groups[0]["lr"] = 0.1 / 3  # as a scheduler would
    tensors, state = flatten_optimizer(optimizer)
    save_checkpoint(tmp_path, 3, {"model": model.state_dict(), "optimizer": tensors}, {"o": state}, config_hash="h")
    other, restored = network()
    back = load_checkpoint(tmp_path, on_warning=pytest.fail)
    other.load_state_dict(back.tensors["model"])
    restore_optimizer(restored, back.tensors["optimizer"], back.state["o"])
    kept = copy.deepcopy(back.tensors["optimizer"])
    for seed in (7, 8):
        advance(model, optimizer, seed)
        advance(other, restored, seed)
    assert tensors_fingerprint(model.state_dict()) == tensors_fingerprint(other.state_dict())
    assert tensors_fingerprint(flatten_optimizer(optimizer)[0]) == tensors_fingerprint(flatten_optimizer(restored)[0])
    assert flatten_optimizer(optimizer)[1] == flatten_optimizer(restored)[1]
    assert isinstance(restored.param_groups[0]["betas"], tuple)
    assert tensors_fingerprint(kept) == tensors_fingerprint(back.tensors["optimizer"])


def test_an_optimizer_that_has_not_stepped_and_one_with_a_tensor_rate_round_trip():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter], lr=torch.tensor(0.1))
    tensors, state = flatten_optimizer(optimizer)
    assert tensors == {}
    restored = torch.optim.AdamW([parameter], lr=torch.tensor(0.5))
    restore_optimizer(restored, tensors, json.loads(json.dumps(state)))
    assert torch.equal(restored.param_groups[0]["lr"], torch.tensor(0.1))


def test_the_state_of_another_optimizer_is_refused():
    model, optimizer = network()
    advance(model, optimizer, 0)
    tensors, state = flatten_optimizer(optimizer)
    groups = state["groups"]
    wider = {**tensors, "0.exp_avg": torch.zeros(9, 9)}
    wrong = [
        (tensors, {"groups": groups[:1]}),
        (wider, state),
        ({**tensors, "99.exp_avg": torch.zeros(2)}, state),
        ({**tensors, "x": torch.zeros(2)}, state),
        (tensors, {}),
        (tensors, {"groups": [1, 2]}),
        (tensors, {"groups": [{"params": 1}, {}]}),
    ]
    for bad_tensors, bad_state in wrong:
        with pytest.raises(AstreaError) as caught:
            restore_optimizer(network()[1], bad_tensors, bad_state)
        assert caught.value.hint


def draw() -> list[float]:
    one = [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()]  # noqa: NPY002
    return [*one, *torch.rand(3).tolist()]


def test_random_states_go_through_json():
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    draw()  # leaves half of a Gaussian pair in Python's and numpy's generators
    state = json.loads(json.dumps(rng_state()))
    first = draw()
    set_rng_state(state)
    assert draw() == first


@pytest.mark.parametrize("part", ["python", "numpy", "torch", "cuda"])
@pytest.mark.parametrize("value", [None, 3, [], "!!", ["MT19937", "AAAA", 1, 2, 3.0], [3, "AAAAAA==", None], ["!"]])
def test_a_malformed_random_state_is_refused(part, value):
    if part == "cuda" and value == []:
        return
    whole = rng_state()
    with pytest.raises(AstreaError, match="random state"):
        set_rng_state({**whole, part: value})
    set_rng_state(whole)


def test_the_fingerprint_sees_names_types_shapes_and_bytes_and_not_the_order():
    base = {"a": torch.arange(6.0), "b": torch.zeros(2, dtype=torch.bfloat16)}
    same = {"b": base["b"].clone(), "a": torch.arange(12.0)[::2].div(2)}
    assert tensors_fingerprint(base) == tensors_fingerprint(same)
    others = [
        {**base, "a": torch.arange(6.0).reshape(2, 3)},
        {**base, "a": torch.arange(6)},
        {**base, "a": torch.arange(6.0).add(1e-6)},
        {**base, "c": torch.zeros(0)},
        {"a": base["a"]},
        {"a": base["a"], "c": base["b"]},
    ]
    assert len({tensors_fingerprint(one) for one in [base, *others]}) == 7
