"""The mixer and the stochastic residual."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.mixer import Mixer, StochasticResidual

WIDTH = 8
OWNER = torch.tensor([0, 0, 1, 2, 2])


def matrix(seed: int = 0, batch: int = 2) -> ExpertMatrix:
    """Two tokens of an expert with places, one of an expert without, two of another with places."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(batch, 5, WIDTH, generator=generator)
    present = torch.ones(batch, 3, dtype=torch.bool)
    valid = torch.ones(batch, 5, dtype=torch.bool)
    places = torch.tensor([[0.2, 0.2], [0.8, 0.3], [float("nan")] * 2, [0.81, 0.29], [0.5, 0.9]])
    return ExpertMatrix(tokens, torch.ones(batch, 5), valid, present, OWNER, places.expand(batch, -1, -1))


def awake_mixer() -> Mixer:
    torch.manual_seed(0)
    mixer = Mixer(WIDTH, 2)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        # Wide enough that everything is read, with a place and without.
        mixer.far.add_(5.0)
        mixer.log_sigma.fill_(0.0)
    return mixer


def test_the_mixer_starts_as_what_others_see_right_here():
    """Token 1 and token 3 look at one place; the others are alone."""
    seen = matrix()
    out = Mixer(WIDTH, 2)(seen)
    assert torch.allclose(out[:, 1], seen.tokens[:, 3], rtol=0.1, atol=0.1)
    assert torch.allclose(out[:, 3], seen.tokens[:, 1], rtol=0.1, atol=0.1)
    assert out[:, [0, 2, 4]].abs().max() < 0.05
    assert seen.tokens.abs().max() > 1


def test_every_weight_of_the_mixer_can_learn():
    mixer, seen = Mixer(WIDTH, 2), matrix()
    optimizer = torch.optim.SGD(mixer.parameters(), lr=0.05)
    reached = set()
    for _ in range(3):
        optimizer.zero_grad()
        (mixer(seen) - 1).square().sum().backward()
        reached |= {name for name, p in mixer.named_parameters() if p.grad.abs().sum() > 0}
        assert all(p.grad.isfinite().all() for p in mixer.parameters())
        optimizer.step()
    assert reached == {name for name, _ in mixer.named_parameters()}


def test_a_token_reads_valid_tokens_of_other_experts_and_no_other():
    mixer, seen = awake_mixer(), matrix()
    seen.valid[0, 3] = False
    before = mixer(seen)
    for changed in range(5):
        tokens = seen.tokens.clone()
        tokens[0, changed] = -2.0
        moved = (mixer(replace(seen, tokens=tokens)) - before).abs().amax(-1)
        assert moved[1].eq(0).all()
        for reader in range(5):
            if reader != changed:
                reads = OWNER[reader] != OWNER[changed] and changed != 3
                assert (moved[0, reader] > 1e-6) == reads, (reader, changed)


def test_nearer_is_read_more():
    mixer, seen = Mixer(WIDTH, 1), matrix(batch=1)
    amounts = []
    for distance in (0.0, 0.05, 0.1, 0.5):
        places = seen.places.clone()
        places[:, 3] = places[:, 1] + torch.tensor([distance, 0.0])
        out = mixer(replace(seen, places=places))
        amounts.append((out[0, 1] @ seen.tokens[0, 3] / seen.tokens[0, 3].square().sum()).item())
    assert amounts[0] > 0.9
    assert amounts == sorted(amounts, reverse=True)
    assert amounts[-1] < 0.05


def test_half_a_place_is_no_place():
    mixer, seen = Mixer(WIDTH, 2), matrix()
    half, none = seen.places.clone(), seen.places.clone()
    half[:, 3, 0] = float("nan")
    none[:, 3] = float("nan")
    one, two = (mixer(replace(seen, places=places)) for places in (half, none))
    assert one.isfinite().all()
    assert torch.equal(one, two)


def test_the_mixer_knows_no_order():
    mixer, seen = awake_mixer(), matrix()
    order = torch.tensor([3, 0, 4, 2, 1])
    one = mixer(seen)[:, order]
    turned = replace(seen, tokens=seen.tokens[:, order], places=seen.places[:, order], expert=OWNER[order])
    assert torch.allclose(mixer(turned), one, atol=1e-5)


def gates(seed: int, keep: float) -> tuple[bool, ...]:
    return tuple((torch.rand(3, generator=torch.Generator().manual_seed(seed)) < keep).tolist())


def test_evaluation_is_the_mean_over_all_gates():
    """Exactly: all 2^E gates, each with its probability; which seed opens which gates is looked up first."""
    keep, seen = 0.7, matrix()
    residual = StochasticResidual(3)
    with torch.no_grad():
        residual.alpha.copy_(torch.tensor([0.5, 1.0, 2.0]))
    mixed = torch.randn(2, 5, WIDTH)
    by_gates = {gates(seed, keep): seed for seed in range(300)}
    assert len(by_gates) == 8
    mean = torch.zeros_like(mixed)
    for pattern in itertools.product([False, True], repeat=3):
        chance = 1.0
        for open_ in pattern:
            chance *= keep if open_ else 1 - keep
        drawn = residual(mixed, seen, keep, torch.Generator().manual_seed(by_gates[pattern]))
        opened = torch.tensor(pattern).float() * residual.alpha
        assert torch.allclose(drawn, mixed + opened[OWNER].unsqueeze(-1) * seen.tokens)
        mean += chance * drawn
    assert torch.allclose(mean, residual(mixed, seen, keep, None), atol=1e-5)


def test_gates_open_as_often_as_told():
    residual, seen = StochasticResidual(3), matrix(batch=1)
    generator = torch.Generator().manual_seed(0)
    mixed, draws, keep = torch.zeros(1, 5, WIDTH), 2000, 0.85
    count = torch.zeros(3)
    for _ in range(draws):
        out = residual(mixed, seen, keep, generator)
        open_ = (out[0, [0, 2, 3]].abs().sum(-1) > 0).float()
        count += open_
    # Five standard deviations of a share of 2,000 draws.
    assert (count / draws - keep).abs().max() < 5 * (keep * (1 - keep) / draws) ** 0.5


def test_the_gate_is_shared_by_the_batch_and_by_an_experts_tokens():
    residual, seen = StochasticResidual(3), matrix(batch=4)
    for seed in range(20):
        out = residual(torch.zeros(4, 5, WIDTH), seen, 0.5, torch.Generator().manual_seed(seed))
        opened = out.abs().sum(-1) > 0
        assert torch.equal(opened, opened[:1].expand(4, -1))
        assert torch.equal(opened[:, 0], opened[:, 1])
        assert torch.equal(opened[:, 3], opened[:, 4])


@pytest.mark.parametrize(("keep", "wanted"), [(1.0, True), (0.0, False)])
def test_certain_gates(keep, wanted):
    residual, seen = StochasticResidual(3), matrix()
    out = residual(torch.zeros(2, 5, WIDTH), seen, keep, torch.Generator().manual_seed(0))
    assert torch.equal(out, seen.tokens if wanted else torch.zeros_like(out))
