"""Which experts a question is expected to need, before any of them has seen the picture: those whose gate weight,
expected from the question alone (`astrea.model.expected_weights`), is not too small. What is usual in pictures is in
the model's folder, to tell unfamiliar pictures by (`astrea.confidence.familiarity`).

Letters: E experts, D language-model width.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

import torch

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.errors import AstreaError
from astrea.common.float32 import in_full, wide
from astrea.fusion.astrea import AstreaFusion
from astrea.model.expected_weights import expected_weights, usual_features
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.rows import asked_tokens, mean_questions
from astrea.serving.job import Prompt

OTHERS = ""
"""Stands for all experts that have no threshold of their own."""


def thresholds(words: Sequence[str]) -> dict[str, float]:
    """What ``--skip-below`` was given: ``P`` for all experts, ``EXPERT=P`` for one.

    Raises:
        AstreaError: a number is none, or not in 0..1.
    """
    found = {}
    for word in words:
        name, _, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise AstreaError(
                f"--skip-below {word}: {number!r} is not a number from 0 to 1",
                "write --skip-below 0.15, or --skip-below EXPERT=0.15 once for each expert",
            )
        found[name or OTHERS] = value
    return found


class ExpectedWeights:
    """The gate weights that a question will have with a usual picture.

    Args:
        below: an expert whose weight is expected to be less is not needed; the weights and the null expert's are 1 in
            all. 0 = all are needed. Or per expert, with `OTHERS` for those that are not named: experts differ in what
            they cost and in what is lost without them.

    Raises:
        AstreaError: the model has no gate or no such expert, or does not keep what is usual.
    """

    def __init__(self, model: AstreaForConditionalGeneration, below: float | Mapping[str, float]) -> None:
        self.model, self.names = model, tuple(model.experts.names)
        given = below if isinstance(below, Mapping) else {OTHERS: below}
        unknown = [name for name in given if name not in (OTHERS, *self.names)]
        if unknown:
            raise AstreaError(
                f"--skip-below {unknown[0]}: the model has no such expert", f"it has {', '.join(self.names)}"
            )
        self.below = {name: given.get(name, given.get(OTHERS, 0.0)) for name in self.names}
        if not any(self.below.values()):
            return
        fusion = model.model.fusion
        if not isinstance(fusion, AstreaFusion) or fusion.allocator is None:
            raise AstreaError(
                "experts are skipped by their gate weights, and this model has none", "leave the option out"
            )
        familiar = {} if model.confidence_estimator is None else model.confidence_estimator.familiar
        missing = [name for name in self.names if name not in familiar]
        if missing:
            raise AstreaError(
                f"the model's folder does not say what is usual for {', '.join(missing)}", "leave the option out"
            )
        # Of its own: questions are looked at while the model's is at work in another thread.
        self.allocator = copy.deepcopy(fusion.allocator)
        usual = {
            name: usual_features(familiar[name].mean.to(model.device), expert.width, expert.num_tokens)
            for name, expert in ((name, model.experts[name]) for name in self.names)
        }
        self.usual: ExpertMatrix = in_full(model.model.alignment, usual, None)

    @torch.inference_mode()
    def of(self, prompt: Prompt) -> dict[str, float]:
        """Each expert's expected weight, those that are switched off left out."""
        ids = prompt.ids.unsqueeze(0).to(self.model.device)
        asked = asked_tokens(
            ids == self.model.config.image_token_id,
            torch.ones_like(ids, dtype=torch.bool),
            prompt.asked.unsqueeze(0).to(self.model.device),
            None,
        )
        embeds = self.model.get_input_embeddings()(ids)
        question_1D = mean_questions(embeds.to(wide(embeds.dtype)), asked, None)[0]
        present_E = torch.tensor([name not in prompt.without for name in self.names], device=ids.device)
        weights = expected_weights(self.allocator, question_1D, self.usual, present_E)[0].tolist()
        return {name: weight for name, weight in zip(self.names, weights, strict=True) if name not in prompt.without}

    def skipped(self, prompt: Prompt) -> set[str]:
        """The experts that are not run for a prompt; never all of them."""
        if not any(self.below.values()) or not prompt.pictures:
            return set()
        weights = self.of(prompt)
        most = max(weights.values())
        return {name for name, weight in weights.items() if weight < min(self.below[name], most)}

    def next(self, prompt: Prompt, skipped: Collection[str]) -> str:
        """Of the experts that were skipped (at least one), the one that is expected to weigh most."""
        weights = self.of(prompt)
        return max(skipped, key=lambda name: weights[name])
