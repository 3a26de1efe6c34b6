"""Every routing policy by its formula, against cases computed by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from astrea.alignment.matrix import ExpertMatrix
from astrea.fusion.protocol import Layout
from astrea.fusion.routing.adapters import GatedAdapters
from astrea.fusion.routing.cascade import Cascade, confidence
from astrea.fusion.routing.correctness import Correctness, correct
from astrea.fusion.routing.grouped import Grouped
from astrea.fusion.routing.heads import head_gates
from astrea.fusion.routing.primary import PeerReader, Primary
from astrea.fusion.routing.random_experts import RandomExperts, divergence
from astrea.fusion.routing.route import Route, Scores, entropy, largest, load_figures, unevenness
from astrea.fusion.routing.scope import Scope
from astrea.fusion.routing.shared import Shared
from astrea.fusion.routing.soft import Soft
from astrea.fusion.routing.top_k import TopK
from astrea.fusion.routing.top_p import TopP
from astrea.fusion.routing.uncertainty import Uncertainty, calibrated
from astrea.fusion.training import Answers

NAMES = ("captioning", "tags", "regions", "boxes")
P = torch.tensor([0.4, 0.3, 0.2, 0.1])
"""The softmax of the logits of every question below, unless it says otherwise."""


def scores(probability: Tensor = P, present: tuple[int, ...] = (1, 1, 1, 1), names: tuple[str, ...] = NAMES) -> Scores:
    """One picture, one question: logits whose softmax over all experts is as given."""
    shown = torch.tensor(present, dtype=torch.bool).view(1, 1, -1)
    return Scores(probability.log().view(1, 1, -1), shown, torch.ones(1, 1, dtype=torch.bool), names)


def weights(route: Route) -> list[float]:
    """Of the only question."""
    assert torch.equal(route.chosen, route.weight > 0)
    return pytest.approx(route.weight[0, 0].tolist(), abs=1e-5)


def test_soft_reads_everyone_by_probability():
    assert weights(Soft().route(scores(), None)) == [0.4, 0.3, 0.2, 0.1]
    assert weights(Soft().route(scores(present=(1, 0, 0, 1)), None)) == [0.8, 0, 0, 0.2]


def test_top_one_keeps_its_probability_and_top_two_share():
    assert weights(TopK(k=1).route(scores(), None)) == [0.4, 0, 0, 0]
    assert weights(TopK(k=2).route(scores(), None)) == [4 / 7, 3 / 7, 0, 0]
    assert weights(TopK(k=2).route(scores(present=(0, 1, 0, 0)), None)) == [0, 1, 0, 0]
    # E sum f P: of two choices the first two experts got one each.
    assert float(TopK(k=2, balance=0.5).route(scores(), None).loss) == pytest.approx(0.5 * 4 * (0.5 * 0.4 + 0.5 * 0.3))


def test_top_p_reads_the_fewest_that_reach_the_mass_and_the_one_that_crosses_it():
    for tau, wanted in ((0.3, [0.4]), (0.4, [0.4]), (0.41, [0.4, 0.3]), (0.75, [0.4, 0.3, 0.2]), (1.0, P.tolist())):
        assert weights(TopP(tau=tau).route(scores(), None)) == wanted + [0] * (4 - len(wanted))
    # In any order of the experts, and an absent one's mass is everyone's.
    assert weights(TopP(tau=0.5).route(scores(P.flip(0)), None)) == [0, 0, 0.3, 0.4]
    assert weights(TopP(tau=0.5).route(scores(present=(0, 1, 1, 1)), None)) == [0, 0.5, 0, 0]
    loss = TopP(tau=0.4, balance=0.5, sharpness=0.1).route(scores(), None).loss
    in_nats = -sum(p * math.log(p) for p in P.tolist())
    assert float(loss) == pytest.approx(0.5 * 4 * 0.4 + 0.1 * in_nats, abs=1e-5)


def test_grouped_reads_as_many_of_every_group():
    grouped = Grouped(groups=2, k=1, balance=1.0)
    route = grouped.route(scores(), None)
    assert weights(route) == [0.4, 0, 0.2, 0]
    assert float(route.loss) == pytest.approx(4 * (0.5 * 0.4 + 0.5 * 0.2))
    assert weights(grouped.route(scores(P.flip(0)), None)) == [0, 0.2, 0, 0.4]
    # Per question: both groups read one; one group reads two and the other none.
    assert grouped.figures(torch.tensor([[0.5, 0, 0.5, 0], [0, 0.3, 0, 0.7]]))["imbalance"] == 0
    assert grouped.figures(torch.tensor([[0.5, 0.5, 0, 0.0], [0, 0.3, 0, 0.7]]))["imbalance"] == 1


def test_shared_is_always_read_and_slices_of_the_others_by_probability():
    names = tuple(name for name in ("captioning", "tags", "boxes") for _ in range(2))
    logits = torch.tensor([0.9, 0.9, 0.4, 0.1, 0.2, 0.3])  # the shared expert's own do not count
    route = Shared(slices=2, k=2, balance=1.0).route(scores(logits, (1,) * 6, names), None)
    assert weights(route) == [1, 1, 0.4, 0, 0, 0.3]
    assert float(route.loss) == pytest.approx(4 * (0.5 * 0.4 + 0.5 * 0.3))
    without = Shared(slices=2, k=2).route(scores(logits, (0, 0, 1, 1, 1, 1), names), None)
    assert weights(without) == [0, 0, 0.4, 0, 0, 0.3]
    named = Shared(slices=2, k=1, expert="boxes").route(scores(logits, (1,) * 6, names), None)
    assert weights(named) == [0.9 / 2.3, 0, 0, 0, 1, 1]


def test_random_draws_k_of_those_present_evenly_and_reads_all_at_evaluation():
    many = Scores(
        torch.zeros(400, 2, 4), torch.tensor([1, 1, 1, 0]).bool().view(1, 1, 4), torch.ones(400, 2).bool(), NAMES
    )
    policy = RandomExperts(k=2)
    route = policy.route(many, torch.Generator().manual_seed(0))
    assert route.chosen.sum(-1).eq(2).all()
    assert route.weight.sum(-1).allclose(torch.tensor(1.0))
    # Two of three: five standard errors of 800 draws.
    assert (route.chosen[..., :3].float().mean((0, 1)) - 2 / 3).abs().max() < 5 * math.sqrt(2 / 9 / 800)
    assert torch.equal(policy.route(many, torch.Generator().manual_seed(0)).chosen, route.chosen)
    assert weights(policy.route(scores(present=(1, 1, 1, 0)), None)) == [1 / 3, 1 / 3, 1 / 3, 0]


def test_the_divergence_is_symmetric():
    one, other = torch.tensor([[0.5, 0.5]]).log() + 3, torch.tensor([[0.9, 0.1]]).log()
    there = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    back = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    for pair in ((one, other), (other, one)):
        assert float(divergence(*pair)) == pytest.approx((there + back) / 2, rel=1e-5)
    assert float(divergence(one, one)) == pytest.approx(0, abs=1e-7)


def test_logits_that_passes_disagree_about_count_less():
    passes = torch.tensor([[1.0, 2.0], [1.0, 4.0]])  # means 1 and 3, standard deviations 0 and 1
    assert calibrated(passes).tolist() == [1.0, 1.5]


def test_dropout_is_the_same_at_every_evaluation_and_drawn_in_training():
    torch.manual_seed(0)
    scorer = Uncertainty(dropout=0.5).scorer(Layout(8, NAMES, (2, 2, 2, 2), 2))
    asked, seen = torch.randn(2, 1, 8), matrix()
    assert torch.equal(scorer(asked, seen), scorer(asked, seen))
    drawn = [scorer(asked, seen, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_confidence_is_the_variance_of_a_distribution_in_parts_of_the_largest():
    p = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])
    assert confidence(p, 1.0).tolist() == pytest.approx([0, 1, (0.5 - 0.25) / 0.75], abs=1e-6)
    assert float(confidence(p[2], 2.0)) == pytest.approx(1 / 9)
    by_variance = p.var(-1, correction=0) / torch.tensor([1.0, 0, 0, 0]).var(correction=0)
    assert confidence(p, 1.0).tolist() == pytest.approx(by_variance.tolist(), abs=1e-6)


def test_the_weak_expert_answers_alone_where_it_is_sure():
    policy = Cascade(threshold=0.7, expert="tags")

    def predicted(value: float, present: tuple[int, ...] = (1, 1, 1, 1)) -> Scores:
        given = scores(present=present)
        return Scores(torch.tensor(value).logit().view(1, 1, 1), given.present, given.asked, NAMES)

    assert weights(policy.route(predicted(0.71), None)) == [0, 1, 0, 0]
    assert weights(policy.route(predicted(0.69), None)) == [0.25] * 4
    assert weights(policy.route(predicted(0.99, (1, 0, 1, 0)), None)) == [0.5, 0, 0.5, 0]
    # In training the strong answer is wanted.
    assert weights(policy.route(predicted(0.99), torch.Generator())) == [0.25] * 4


class Step:
    """A step of two rows with one question each, whose answers are given by hand: by the experts present."""

    number = 0
    groups = torch.zeros(2, 1, dtype=torch.long)
    local_rows = slice(0, 2)

    def __init__(self, said: dict[Any, list[list[float]]]) -> None:
        self.said = said

    def forward(self, purpose: str, only: Tensor | None = None) -> Any:
        return self.said[None if only is None else tuple(only.nonzero()[:, 0].tolist())]

    def answers(self, output: Any) -> Answers:
        rows = output.rows if isinstance(output, SimpleNamespace) else output
        count = len(rows)
        question = torch.tensor([0, 1, 1][:count])
        return Answers(
            torch.tensor(rows).log(), torch.zeros(count, dtype=torch.long), question, torch.ones(count) / count, 2
        )

    def per_row(self, shares: Tensor | None, like: Tensor) -> Tensor:
        assert shares is not None
        return shares


def test_the_cascades_loss_is_that_of_the_paper():
    """L = C L_weak + (1 - C) L_strong per word, C of the first word of the weak answer."""
    weak, strong = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], [[0.7, 0.3], [0.8, 0.2], [0.5, 0.5]]
    output = SimpleNamespace(rows=strong, router_logits=torch.tensor([[[0.3]], [[-0.2]]]))
    found = Cascade().losses(Step({(0,): weak}), output, NAMES)
    sure = [(0.9**2 + 0.1**2 - 0.5) / 0.5, (0.6**2 + 0.4**2 - 0.5) / 0.5]
    pairs = zip([sure[0], sure[1], sure[1]], weak, strong, strict=True)
    wanted = sum(c * -math.log(w[0]) + (1 - c) * -math.log(s[0]) for c, w, s in pairs) / 3
    plain = sum(-math.log(s[0]) for s in strong) / 3
    assert float(found["cascade"]) + plain == pytest.approx(wanted, rel=1e-5)
    error = 0.0
    for c, z in zip(sure, (0.3, -0.2), strict=True):
        p = 1 / (1 + math.exp(-z))
        error -= (c * math.log(p) + (1 - c) * math.log(1 - p)) / 2
    assert float(found["predicted_confidence"]) == pytest.approx(error, rel=1e-5)


def test_the_random_policys_losses_are_those_of_the_second_pass_and_of_both():
    first, second = [[0.9, 0.1], [0.6, 0.4]], [[0.7, 0.3], [0.6, 0.4]]
    step = Step({None: second})
    found = RandomExperts(consistency=3.0).losses(step, SimpleNamespace(rows=first), NAMES)
    assert float(found["second"]) == pytest.approx(-(math.log(0.7) + math.log(0.6)) / 2)
    apart = ((0.9 - 0.7) * math.log(0.9 / 0.7) + (0.1 - 0.3) * math.log(0.1 / 0.3)) / 2
    assert float(found["consistency"]) == pytest.approx(3 * apart / 2, rel=1e-5)


def test_whoever_would_be_right_alone_is_the_routers_target():
    right = torch.tensor([[True, False, True], [False, False, False]])
    loss = torch.tensor([[0.1, 2.0, 0.2], [3.0, 1.0, 2.0]])
    assert correct(right, loss).tolist() == [[True, False, True], [False, True, False]]
    one = torch.tensor([[[0.5, -1.0]], [[2.0, 0.0]]])
    said = {(0,): [[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]], (1,): [[0.2, 0.8], [0.8, 0.2], [0.7, 0.3]]}
    step = Step(said)
    # Row 0: the first is right. Row 1: the first misses the second word, the second is right.
    found = Correctness(every=2).losses(step, SimpleNamespace(router_logits=one), ("a", "b"))["correctness"]
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    p = one[:, 0].sigmoid()
    assert torch.allclose(found, -(target * p.log() + (1 - target) * (1 - p).log()).mean())
    step.number = 1
    assert Correctness(every=2).losses(step, SimpleNamespace(router_logits=one), ("a", "b")) == {}


def test_who_is_likely_right_is_read_or_the_likeliest():
    given = scores()
    some = Scores(torch.tensor([0.8, 0.5, 0.4, 0.6]).logit().view(1, 1, 4), given.present, given.asked, NAMES)
    assert weights(Correctness().route(some, None)) == [0.8 / 1.9, 0.5 / 1.9, 0, 0.6 / 1.9]
    none = Scores(torch.tensor([0.1, 0.2, 0.4, 0.3]).logit().view(1, 1, 4), given.present, given.asked, NAMES)
    assert weights(Correctness().route(none, None)) == [0, 0, 1, 0]
    # The answers do not teach this router.
    some.logits.requires_grad_()
    assert not Correctness().route(some, None).weight.requires_grad


def test_scope_reads_the_shared_expert_and_one_more():
    route = Scope(sharpness=0.5, spread=0.25).route(scores(), None)
    p = [0.3 / 0.6, 0.2 / 0.6, 0.1 / 0.6]
    assert weights(route) == [1, p[0], 0, 0]
    in_nats = -sum(each * math.log(each) for each in p)
    assert float(route.loss) == pytest.approx((0.5 - 0.25) * in_nats, abs=1e-5)
    # Two questions that choose firmly and differently: single choices have no entropy, their mean has log 2.
    firm = torch.full((1, 2, 4), -50.0)
    firm[0, 0, 1] = firm[0, 1, 2] = 50.0
    two = Scores(firm, scores().present, torch.ones(1, 2).bool(), NAMES)
    assert float(Scope(sharpness=1.0, spread=1.0).route(two, None).loss) == pytest.approx(-math.log(2), abs=1e-4)


def matrix(tokens: Tensor | None = None) -> ExpertMatrix:
    """Two pictures, four experts with two tokens of width 8 each."""
    shape = (2, 8)
    tokens = torch.randn(*shape, 8, generator=torch.Generator().manual_seed(4)) if tokens is None else tokens
    owner = torch.arange(4).repeat_interleave(2)
    everything = torch.ones(shape, dtype=torch.bool)
    return ExpertMatrix(tokens, torch.ones(shape), everything, torch.ones(2, 4).bool(), owner, torch.rand(2, 8, 2))


def test_scopes_router_looks_at_question_and_shared_expert_alone():
    torch.manual_seed(0)
    scorer = Scope(expert="tags", heads=2).scorer(Layout(8, NAMES, (2, 2, 2, 2), 2))
    asked, seen = torch.randn(2, 1, 8), matrix()
    before, owner = scorer(asked, seen), seen.expert
    other = torch.where((owner == 1).view(1, 8, 1), seen.tokens, 7.0)
    assert torch.equal(scorer(asked, matrix(other)), before)
    mine = torch.where((owner == 1).view(1, 8, 1), 7.0, seen.tokens)
    assert (scorer(asked, matrix(mine)) - before).abs().max() > 1e-4
    assert (scorer(asked.flip(0), seen) - before).abs().max() > 1e-4


def test_the_primary_expert_reads_its_peers_and_is_read_alone():
    route = Primary(k=3, balance=0.5, sharpness=0.1).route(scores(P[[1, 0, 3, 2]]), None)
    assert weights(route) == [0.3 / 0.9, 0.4 / 0.9, 0, 0.2 / 0.9]
    in_nats = -sum(p * math.log(p) for p in P.tolist())
    assert float(route.loss) == pytest.approx(0.5 * 4 * 0.9 / 3 + 0.1 * in_nats, abs=1e-5)
    torch.manual_seed(0)
    reader, seen = PeerReader(8, 2), matrix()
    both = Route(route.weight.expand(2, 1, 4), route.chosen.expand(2, 1, 4))
    tokens, valid, _ = reader(seen.tokens, seen, both)
    assert torch.equal(tokens, seen.tokens), "the attention starts at nothing"
    assert torch.equal(valid, (seen.expert == 1).expand(2, 8))
    torch.nn.init.eye_(reader.cross.out.weight)
    mine = seen.expert == 1
    before = reader(seen.tokens, seen, both)[0][:, mine]
    assert (before - seen.tokens[:, mine]).abs().max() > 1e-3
    for expert, read in ((0, True), (2, False), (3, True)):  # the third was not chosen
        changed = torch.where((seen.expert == expert).view(1, 8, 1), seen.tokens.flip(-1), seen.tokens)
        after = reader(changed, matrix(changed), both)[0][:, mine]
        assert ((after - before).abs().max() > 1e-5) == read


def test_gates_of_heads():
    which, shared, routed = (torch.tensor(p).log() for p in ([0.75, 0.25], [0.5, 0.5], [0.5, 0.3, 0.2]))
    gate, probability, chosen = head_gates(which, shared, routed, 2)
    assert gate.tolist() == pytest.approx([0.75, 0.75, 2 * 0.25 * 0.5 / 0.8, 2 * 0.25 * 0.3 / 0.8, 0])
    assert probability.tolist() == pytest.approx([0.5, 0.3, 0.2])
    assert chosen.tolist() == [True, True, False]


def test_adapters_start_shut_and_each_expert_has_its_own():
    torch.manual_seed(0)
    reader, seen = GatedAdapters(8, 4, 3), matrix()
    route = Soft().route(scores(), None)
    assert torch.equal(reader(seen.tokens, seen, route)[0], seen.tokens)
    with torch.no_grad():
        reader.gate[2, 3] = 0.3
    out = reader(seen.tokens, seen, route)[0]
    moved = (out - seen.tokens).abs().amax(-1) > 0
    assert torch.equal(moved, (seen.expert == 2).expand(2, 8))
    x = reader.norm(seen.tokens[0, 4])
    inside = torch.nn.functional.gelu(x @ reader.down[2]) @ reader.up[2]
    assert torch.allclose(out[0, 4], seen.tokens[0, 4] + torch.tanh(0.3 * x[3]) * inside, atol=1e-5)


def test_balance_is_one_when_even_and_grows_when_one_takes_all():
    asked = torch.ones(3, 1).bool()
    one_each, all_one = torch.eye(3).unsqueeze(1), torch.eye(3)[:1].expand(3, -1).unsqueeze(1)
    assert float(unevenness(one_each, one_each.bool(), asked)) == pytest.approx(1)
    assert float(unevenness(all_one, all_one.bool(), asked)) == pytest.approx(3)
    # What was not asked does not count.
    assert float(unevenness(one_each, one_each.bool(), torch.tensor([[True], [False], [False]]))) == pytest.approx(3)


def test_of_equals_the_first_is_the_largest():
    assert largest(torch.zeros(4), torch.tensor([False, True, True, True]), 2).tolist() == [False, True, True, False]
    assert largest(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([True, False, True]), 5).tolist() == [True, False, True]


def test_entropy_and_load():
    assert float(entropy(torch.tensor([0.5, 0.5, 0.0]))) == pytest.approx(math.log(2))
    figures = load_figures(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    assert figures == {"experts_read": 1.5, "load_max_over_mean": 1.5}


def test_what_answers_say_of_questions():
    logits = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]]).log()
    said = Answers(logits, torch.tensor([0, 0, 0]), torch.tensor([2, 0, 0]), torch.tensor([0.5, 0.25, 0.25]), 4)
    assert said.first().tolist() == [1, -1, 0, -1]
    assert said.right().tolist() == [False, False, True, False]
    assert said.losses().tolist() == pytest.approx([-math.log(0.9), -math.log(0.4), -math.log(0.8)], rel=1e-5)
    assert said.per_question(torch.tensor([1.0, 2.0, 4.0])).tolist() == [3.0, 0.0, 1.0, 0.0]
    assert float(said.mean(torch.tensor([1.0, 2.0, 4.0]))) == pytest.approx(0.5 + 0.5 + 1.0)
