"""What is lost where the language model reads a few of many tokens, by the rule that chooses them.

The fusion sees all of them; only those that are chosen for a question stand in the language model's sequence.

Letters: B pictures, S questions per picture, M visual tokens, D language-model width, Q questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.progress import Reporter
from astrea.evaluation.generate import Predictor
from astrea.fusion.astrea import UNREAD, AstreaFusion
from astrea.fusion.peers.sequence_concat import SequenceConcat
from astrea.fusion.protocol import VisualTokens
from astrea.fusion.pruning import token_score
from astrea.lab.probes.pareto import what_is_read
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.world.evaluation.runner import EncodedTestSets, run_tasks

TOKEN_BUDGETS = (8, 16, 32, 64)
"""Most tokens that the language model reads for a question."""

ABOUT_ONE_THING = ("attribute.colour", "attribute.kind", "attribute.size", "knowledge.fact", "knowledge.category")
"""Templates whose answer stands in the tokens of a single thing: one of each expert that sees it."""

Rule = Callable[[ExpertMatrix, VisualTokens, Tensor, torch.Generator], Tensor]
"""All tokens, as they came to the fusion and as they left it, the mean words of questions (B, S, D) and a source of
chance -> how much each token is wanted for each question (B, S, M)."""


def worth(matrix: ExpertMatrix, visual: VisualTokens, question_BSD: Tensor, generator: torch.Generator) -> Tensor:
    """As token pruning has it: gate weight, confidence and cosine with the question (`token_score`), the cosine also
    where the model has no word match."""
    words_BMD = F.normalize(matrix.tokens, dim=-1) if visual.words is None else visual.words
    share_BSM = visual.shares.new_zeros(*question_BSD.shape[:2], matrix.tokens.shape[1])
    if visual.bias is not None:
        share_BSM = visual.bias
    return token_score(share_BSM, visual.shares.sum(-1), matrix.confidence, visual.valid, words_BMD, question_BSD)


def confidence(matrix: ExpertMatrix, visual: VisualTokens, question_BSD: Tensor, generator: torch.Generator) -> Tensor:
    """The experts' own, whatever is asked."""
    return matrix.confidence.unsqueeze(1).expand(-1, question_BSD.shape[1], -1)


def cosine(matrix: ExpertMatrix, visual: VisualTokens, question_BSD: Tensor, generator: torch.Generator) -> Tensor:
    """With the question's mean word alone."""
    return F.normalize(question_BSD, dim=-1) @ F.normalize(matrix.tokens, dim=-1).transpose(1, 2)


def at_random(matrix: ExpertMatrix, visual: VisualTokens, question_BSD: Tensor, generator: torch.Generator) -> Tensor:
    """Any tokens."""
    drawn_BSM = torch.rand(*question_BSD.shape[:2], matrix.tokens.shape[1], generator=generator)
    return drawn_BSM.to(question_BSD.device)


TOKEN_RULES: Mapping[str, Rule] = {
    "worth": worth,
    "confidence": confidence,
    "cosine": cosine,
    "random": at_random,
}
"""By name, as they are reported."""


@contextmanager
def reading(fusion: nn.Module, most: int, rule: Rule, seed: int) -> Iterator[None]:
    """Within it the language model reads at most so many tokens for a question, those that the rule wants most; tokens
    that are not there are never read, so that it may be fewer. Afterwards, come what may, it reads all again.

    Args:
        fusion: one whose visual tokens are the experts' own (`keeps_tokens`). seed: of what the rule draws.
    """
    generator = torch.Generator().manual_seed(seed)

    def choose(module: nn.Module, given: tuple[Any, ...], visual: VisualTokens) -> VisualTokens:
        matrix, question_BSD = given[:2]
        wanted_BSM = rule(matrix, visual, question_BSD, generator)
        wanted_BSM = wanted_BSM.masked_fill(~visual.valid.unsqueeze(1), -torch.inf)
        best_BSK = wanted_BSM.topk(min(most, wanted_BSM.shape[-1]), -1).indices
        read_BSM = torch.zeros_like(wanted_BSM, dtype=torch.bool).scatter(-1, best_BSK, True)
        bias_BSM = torch.zeros_like(wanted_BSM) if visual.bias is None else visual.bias
        # Tokens that no question of a picture reads are left out of the sequence.
        return replace(visual, valid=visual.valid & read_BSM.any(1), bias=bias_BSM.masked_fill(~read_BSM, UNREAD))

    hook = fusion.register_forward_hook(choose)
    try:
        yield
    finally:
        hook.remove()


def keeps_tokens(fusion: nn.Module) -> bool:
    """Whether visual tokens are the experts' own, one by one, so that it can be said which are read."""
    return isinstance(fusion, (AstreaFusion, SequenceConcat))


def by_token_budget(
    model: AstreaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, encoded: EncodedTestSets, seed: int
) -> dict[str, Any]:
    """Accuracy on questions about one thing (0..100) with all tokens and with at most so many, by every rule.

    Args:
        seed: of the rule that draws.

    Returns:
        {"items": Q, "tokens": how many are read of a picture without a budget (mean), "all": accuracy,
        "8": {rule: accuracy}, ...}; {} for a strategy whose tokens are not the experts' own, and without such a
        question.
    """
    items = [item for item in encoded.sets.questions if item.question.template in ABOUT_ONE_THING]
    if not items or not keeps_tokens(model.fusion):
        return {}
    asked = replace(encoded, sets=replace(encoded.sets, questions=items))
    tasks = tuple(dict.fromkeys(item.question.task for item in items))
    predictor = Predictor(model, tokenizer)
    tokens_QM, _ = what_is_read(predictor, asked, tasks)
    found: dict[str, Any] = {
        "items": len(items),
        "tokens": float(tokens_QM.sum(1).double().mean()),
        "all": accuracy(predictor, asked, tasks),
    }
    for most in TOKEN_BUDGETS:
        row = found[str(most)] = {}
        for name, rule in TOKEN_RULES.items():
            with reading(model.fusion, most, rule, seed):
                row[name] = accuracy(predictor, asked, tasks)
    return found


def accuracy(predictor: Predictor, encoded: EncodedTestSets, tasks: Sequence[str]) -> float:
    """The mean over all questions of some tasks, 0..100."""
    outcome = run_tasks(predictor, encoded, tasks, blind=False, label="report", report=Reporter())
    return 100 * float(np.concatenate(list(outcome.per_item.values())).mean())
