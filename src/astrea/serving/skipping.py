"""Which experts a question is expected to need, before any of them has seen the picture.

A gate weight depends on the question and on what the expert says of the picture. Here the expert's mean token is
replaced by its mean over training pictures, which the model's folder keeps to tell unfamiliar pictures by
(`astrea.confidence.familiarity`); what is left depends on the question alone.

Letters: B pictures, E experts, T_e tokens of an expert, L tokens of text, D language-model width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.errors import AstreaError
from astrea.common.float32 import in_full, wide
from astrea.confidence.familiarity import Familiar
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.astrea import AstreaFusion
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
        below: an expert whose part of all experts' weights is expected to be less is not needed; equal weights are
            1/E. 0 = all are needed. Or per expert, with `OTHERS` for those that are not named: experts differ in what
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
        usual = {name: self._usual(name, familiar[name]) for name in self.names}
        self.usual: ExpertMatrix = in_full(model.model.alignment, usual, None)

    def _usual(self, name: str, familiar: Familiar) -> ExpertFeatures:
        """An expert's mean token in each of its slots, with its mean confidence."""
        expert = self.model.experts[name]
        tokens = familiar.mean[: expert.width].to(self.model.device).expand(1, expert.num_tokens, -1)
        sure = familiar.mean[2 * expert.width + 1].clamp(1e-3, 1).to(self.model.device)
        return ExpertFeatures(tokens, sure.expand(1, expert.num_tokens))

    @torch.inference_mode()
    def of(self, prompt: Prompt) -> dict[str, float]:
        """Each expert's expected part of all experts' weights, those that are switched off left out."""
        ids = prompt.ids.unsqueeze(0).to(self.model.device)
        asked = asked_tokens(
            ids == self.model.config.image_token_id,
            torch.ones_like(ids, dtype=torch.bool),
            prompt.asked.unsqueeze(0).to(self.model.device),
            None,
        )
        embeds = self.model.get_input_embeddings()(ids)
        question = mean_questions(embeds.to(wide(embeds.dtype)), asked, None).to(self.usual.tokens.dtype)
        present = torch.tensor([[name not in prompt.without for name in self.names]], device=ids.device)
        weights_E: Tensor = in_full(self.allocator, question, self.usual.with_presence(present), method="weigh")[0, 0]
        parts = (weights_E / weights_E.sum().clamp_min(1e-9)).tolist()
        return {name: part for name, part in zip(self.names, parts, strict=True) if name not in prompt.without}

    def skipped(self, prompt: Prompt) -> set[str]:
        """The experts that are not run for a prompt; never all of them."""
        if not any(self.below.values()) or not prompt.pictures:
            return set()
        parts = self.of(prompt)
        most = max(parts.values())
        return {name for name, part in parts.items() if part < min(self.below[name], most)}
