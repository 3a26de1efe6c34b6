"""The strategy that routes, with the policy that reads one expert per question: a gradient for the router, a loss that
evens the load. Policies' formulas are tested in tests/fusion/routing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.fusion.peers.routed import Routed, slice_of_token, sliced
from astrea.fusion.protocol import Layout
from astrea.fusion.registry import build_strategy, first_name, renamed_strategy
from astrea.fusion.routing.policies import POLICIES
from astrea.fusion.routing.route import UNREAD
from astrea.model.configuration import AstreaConfig
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.recipes.renamed import with_new_names, with_old_names


def routed(layout, **options) -> Routed:
    """With a router that prefers strongly, so that questions are routed differently."""
    torch.manual_seed(3)
    made = Routed(layout, policy="top_k", k=1, **options)
    with torch.no_grad():
        for parameter in made.router.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return made


def test_a_question_reads_one_expert_at_the_log_of_its_probability(layout, make_matrix, make_questions):
    made, seen, asked = routed(layout), make_matrix(6), make_questions(6)
    out = made(seen, asked)
    assert out.bias.shape == (6, 2, 8)
    logits = made.router(asked, seen)
    assert torch.equal(out.router_logits, logits)
    best, which = logits.softmax(-1).max(-1)
    assert which.unique().numel() > 1
    assert torch.equal(out.shares.argmax(-1), which)
    assert out.shares.sum(-1).eq(1).all()
    assert out.shares.max(-1).values.eq(1).all()
    read = seen.expert == which.unsqueeze(-1)
    assert torch.equal(out.bias, torch.where(read, best.log().unsqueeze(-1), UNREAD))
    assert torch.equal(out.valid, seen.valid)
    assert torch.equal(out.tokens, seen.tokens + made.slot)


def test_the_logits_by_hand(layout, make_matrix, make_questions):
    """``W q + b + u tanh(V q + X x_e)`` of the normed question and the normed mean token of each expert."""
    made, seen, asked = routed(layout), make_matrix(2), make_questions(2)
    router = made.router
    for b in range(2):
        for s in range(2):
            q = router.norm_q(asked[b, s])
            for e in range(3):
                x = router.norm_x(seen.summary()[0][b, e])
                hidden = torch.tanh(
                    router.from_question.weight @ q + router.from_question.bias + router.from_expert.weight @ x
                )
                wanted = router.by_name.weight[e] @ q + router.by_name.bias[e] + router.score.weight[0] @ hidden
                assert torch.allclose(router(asked, seen)[b, s, e], wanted, atol=1e-5)


def test_absent_experts_are_never_chosen(layout, make_matrix, make_questions):
    made, asked = routed(layout), make_questions(6)
    for absent in ((0,), (1,), (0, 2)):
        out = made(make_matrix(6, absent=absent), asked)
        assert out.shares[..., list(absent)].eq(0).all()
        assert out.shares.sum(-1).eq(1).all()
        assert out.bias.max() <= 0


@pytest.mark.parametrize("policy", POLICIES)
def test_nobody_at_all_is_finite_and_so_are_gradients(policy, layout, make_matrix, make_questions):
    made = build_strategy("routed", Layout(8, (*layout.names, "d"), (3, 3, 1, 1), 4), {"policy": policy})
    seen = make_matrix(6)
    four, owner = torch.ones(6, 4, dtype=torch.bool), torch.tensor([0, 0, 0, 1, 1, 1, 2, 3])
    seen = replace(seen, present=four, expert=owner)
    for generator in (None, torch.Generator().manual_seed(0)):
        out = made(seen.with_presence(~four), make_questions(6), generator)
        assert out.shares.eq(0).all()
        assert not out.valid.any()
        loss = out.tokens.sum() + out.bias.sum() + (0 if out.auxiliary is None else out.auxiliary)
        made.zero_grad()
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_it_looks_at_question_and_picture(layout, make_matrix, make_questions):
    made = routed(layout)
    bias = lambda m, q: made(m, q).bias.max(-1).values  # noqa: E731
    before = bias(make_matrix(), make_questions())
    assert (bias(make_matrix(), make_questions(seed=1)) - before).abs().max() > 0.01
    assert (bias(make_matrix(seed=1), make_questions()) - before).abs().max() > 0.01


def test_a_question_is_routed_whatever_else_is_asked(layout, make_matrix, make_questions):
    made, seen, asked = routed(layout), make_matrix(), make_questions()
    assert torch.allclose(made(seen, asked[:, 1:]).bias[:, 0], made(seen, asked).bias[:, 1], atol=1e-6)


def test_the_router_starts_near_even(layout, make_matrix, make_questions):
    torch.manual_seed(0)
    made = Routed(layout, policy="top_k", k=1)
    probability = made.router(make_questions(20), make_matrix(20)).softmax(-1)
    assert probability.min() > 0.15
    assert probability.max() < 0.6


def test_the_router_learns_from_what_is_read(layout, make_matrix, make_questions):
    """Without the balancing loss: the probability of the chosen expert is in the bias."""
    made = routed(layout)
    out = made(make_matrix(), make_questions())
    assert out.auxiliary is None
    out.bias[out.bias > UNREAD / 2].sum().backward()
    for name, parameter in made.router.named_parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0, name


def test_the_balancing_loss_is_that_of_the_paper(layout, make_matrix, make_questions):
    made, seen, asked = routed(layout, jitter=0.0, balance=0.5), make_matrix(6), make_questions(6)
    asked[2, 1] = 0.0  # a row with one question less
    logits = made.router(asked, seen)
    probability = [logits[b, s].softmax(-1) for b in range(6) for s in range(2) if (b, s) != (2, 1)]
    wanted = 0.0
    for e in range(3):
        chosen = sum(float(p.argmax() == e) for p in probability) / 11
        wanted += 0.5 * 3 * chosen * sum(p[e] for p in probability) / 11
    assert torch.allclose(made(seen, asked, torch.Generator()).auxiliary, wanted, atol=1e-6)


def test_descending_the_balancing_loss_evens_the_load(layout, make_matrix, make_questions):
    torch.manual_seed(0)
    made, seen, asked = Routed(layout, policy="top_k", k=1, balance=1.0), make_matrix(40), make_questions(40)
    with torch.no_grad():
        made.router.by_name.bias.copy_(torch.tensor([1.5, 0.0, 0.0]))
    assert made(seen, asked).shares[..., 0].mean() > 0.95
    optimizer = torch.optim.Adam(made.router.parameters(), lr=0.02)
    for step in range(80):
        optimizer.zero_grad()
        made(seen, asked, torch.Generator().manual_seed(step)).auxiliary.backward()
        optimizer.step()
    assert made(seen, asked).shares.mean((0, 1)).max() < 0.6


def test_jitter_needs_a_generator_and_follows_it(layout, make_matrix, make_questions):
    made, seen, asked = routed(layout, jitter=0.1), make_matrix(), make_questions()
    bias = lambda g: made(seen, asked, g).bias.max(-1).values  # noqa: E731
    still = bias(None)
    assert torch.equal(bias(None), still)
    shaken = bias(torch.Generator().manual_seed(1))
    assert torch.equal(bias(torch.Generator().manual_seed(1)), shaken)
    assert 1e-4 < (shaken - still).abs().max() < 0.5
    assert not torch.equal(bias(torch.Generator().manual_seed(2)), shaken)


def test_alone_closes_the_way_through_other_visual_tokens(layout, make_matrix, make_questions):
    made, seen = routed(layout, alone=True), make_matrix(6)
    out = made(seen, make_questions(6, 1))
    assert made.per_question
    assert not routed(layout).per_question
    chosen = out.shares[:, 0].argmax(-1, keepdim=True)
    assert torch.equal(out.valid, seen.valid & (seen.expert == chosen))


def test_slices_are_the_tokens_of_an_expert_in_their_order(make_matrix):
    assert slice_of_token((3, 3, 2), 2) == [0, 0, 1, 2, 2, 3, 4, 5]
    assert slice_of_token((1, 5), 3) == [0, 3, 3, 4, 4, 5]
    cut = sliced(make_matrix(2, absent=(2,)), torch.tensor([0, 0, 0, 2, 2, 3, 4, 5]), 2)
    # The second slice of the first expert holds no token, and the third expert is absent.
    assert cut.present.tolist() == [[True, False, True, True, False, False]] * 2


@pytest.mark.parametrize("policy", POLICIES)
def test_options_are_those_of_the_policy_and_no_others(policy):
    chosen = ["model.strategy=routed", f"model.options.policy={policy}"]
    fields = POLICIES[policy].model_fields
    for key, field in fields.items():
        recipe = load_recipe(Recipe, "tiny", [*chosen, f"model.options.{key}={json.dumps(field.default)}"])
        assert recipe.model.options[key] == field.default
    foreign = next(key for key in ("tau", "groups", "passes") if key not in fields)
    with pytest.raises(
        AstreaError, match=f"option '{foreign}' of the fusion strategy 'routed': there is none"
    ) as caught:
        load_recipe(Recipe, "tiny", [*chosen, f"model.options.{foreign}=2"])
    assert f"its options: {', '.join(fields)}" in caught.value.message


def test_an_unknown_policy_is_named_with_those_there_are():
    for wrong in ("best", "[top_k]", "1"):
        with pytest.raises(AstreaError, match=r"option 'policy' of the fusion strategy 'routed': .*'top_p'"):
            load_recipe(Recipe, "tiny", ["model.strategy=routed", f"model.options={{policy: {wrong}}}"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policy": "top_k", "k": 4}, "4 of 3 experts"),
        ({"policy": "grouped"}, "3 experts do not divide into 2"),
        ({"policy": "grouped", "groups": 3, "k": 2}, "2 of 1 experts of a group"),
        ({"policy": "shared", "k": 5}, "5 of 4 slices"),
        ({"policy": "shared", "expert": "z"}, "the shared expert 'z' is no expert here"),
        ({"policy": "random", "k": 4}, "4 of 3 experts"),
        ({"policy": "cascade", "expert": "z"}, "the weak expert 'z'"),
        ({"policy": "scope", "heads": 3}, "3 attention heads"),
        ({"policy": "heads", "k": 7}, "7 of 6 routed heads"),
        ({"policy": "primary", "k": 4}, "4 of 3 experts"),
    ],
)
def test_a_policy_that_does_not_fit_the_experts_says_so(options, said, layout):
    with pytest.raises(AstreaError, match=said):
        build_strategy("routed", layout, options)


def test_the_former_strategy_switch_is_named_and_what_was_saved_by_it_is_read(tmp_path):
    with pytest.raises(AstreaError, match="'switch' is called 'routed' now") as caught:
        load_recipe(Recipe, "tiny", ["model.strategy=switch", "model.options={alone: true}"])
    spelling = "model.strategy=routed model.options={policy: top_k, k: 1, alone: true}"
    assert spelling in caught.value.message
    now = load_recipe(Recipe, "tiny", spelling.split(" ", 1))
    saved = tmp_path / "recipe.yaml"
    saved.write_text("base: tiny\nmodel: {strategy: switch, options: {alone: true}}\n")
    assert load_recipe(Recipe, str(saved), saved=True).model == now.model
    # And a run of today is known by the name that it had at first.
    data = now.model_dump(mode="json")
    old = with_old_names(data)
    assert (old["model"]["strategy"], old["model"]["options"]) == ("switch", {"alone": True})
    assert with_new_names(old) == data
    config = AstreaConfig(strategy="switch", fusion={"alone": True})
    assert (config.strategy, config.fusion) == ("routed", {"policy": "top_k", "k": 1, "alone": True})


def test_names_go_there_and_back():
    for name, options in (
        ("switch", {}),
        ("mova", {"top": 2}),
        ("routed", {"policy": "top_k", "k": 2}),
        ("routed", {}),
    ):
        assert first_name(*renamed_strategy(name, options)) == (name, options)
