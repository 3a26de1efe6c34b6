"""Reading new prompts, several at once: what experts saw through fusion, then all tokens through the language model.

Letters: B prompts, N pictures (in reading order over the prompts), L tokens, E experts, V words.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from astrea.common.transformers_compat import CACHE
from astrea.model.inputs import Inputs
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.serving.features import together
from astrea.serving.growing import growing_cache
from astrea.serving.job import Job, Prompt
from astrea.serving.slots import select_rows


@dataclass(frozen=True, slots=True)
class Read:
    """Prompts that have been read: scores of the next token (B, V), the cache of B rows, and per row how many positions
    are taken."""

    scores: Tensor
    cache: Cache
    taken: list[int]

    def rows(self, places: Sequence[int]) -> Read:
        """Some of them, in this order."""
        index = torch.tensor(places, device=self.scores.device)
        return Read(self.scores[index], select_rows(self.cache, places), [self.taken[place] for place in places])


def prefill(model: AstreaForConditionalGeneration, jobs: Sequence[Job], fill: int) -> Read:
    """Read the prompts of some requests.

    Args:
        jobs: with what experts saw in their pictures.
        fill: the token to pad with. Timing and gate weights are left in the jobs.
    """
    started = time.monotonic()
    seen = [features for job in jobs for features in job.seen or ()]
    skipped = [left_out for job in jobs for left_out in job.skipped]
    features = together(seen) if seen else None
    prompts = [job.prompt for job in jobs]
    rows = padded(prompts, fill, model.device)
    present = present_of(prompts, skipped, model.experts.names).to(model.device) if seen else None
    read: dict[str, Any] = {**rows, CACHE: growing_cache()}
    step = model.model.step(Inputs(**read, features=features, present=present, use_cache=True))
    fused = time.monotonic()
    out = model.language_model(**step.arguments(model.windows), logits_to_keep=1)
    found = step.outputs(out)
    scores_BV = out.logits[:, -1].float()
    done = time.monotonic()
    _note_shares(jobs, model.experts.names, found["shares"])
    for job in jobs:
        timing = job.timing
        timing.fusion += fused - started
        timing.language += done - fused
        timing.waiting += started - timing.ready
    taken = (step.reading.keys.positions[:, -1] + 1).tolist()
    return Read(scores_BV, found[CACHE], taken)


def padded(prompts: Sequence[Prompt], fill: int, device: torch.device) -> dict[str, Tensor]:
    """Prompts of different lengths as input_ids, attention_mask and question_mask (B, L), padded in front."""
    length = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), length), fill, dtype=torch.long)
    real = torch.zeros(len(prompts), length, dtype=torch.long)
    asked = torch.zeros(len(prompts), length, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        start = length - len(prompt.ids)
        ids[row, start:], real[row, start:], asked[row, start:] = prompt.ids, 1, prompt.asked
    columns = {"input_ids": ids, "attention_mask": real, "question_mask": asked}
    return {name: column.to(device) for name, column in columns.items()}


def present_of(prompts: Sequence[Prompt], skipped: Sequence[Collection[str]], names: Sequence[str]) -> Tensor:
    """Which experts may be used for each picture: (N, E) bool. Not those that are switched off or were skipped.

    Args:
        skipped: per picture, the experts that were not run for it.
    """
    off = [prompt.without for prompt in prompts for _ in prompt.pictures]
    rows = [[name not in one and name not in other for name in names] for one, other in zip(off, skipped, strict=True)]
    return torch.tensor(rows, dtype=torch.bool).reshape(-1, len(names))


def _note_shares(jobs: Sequence[Job], names: Sequence[str], shares_NSE: Tensor | None) -> None:
    """Leave in each job the gate weights for its pictures."""
    rows = [] if shares_NSE is None else shares_NSE[:, 0].tolist()
    for job in jobs:
        mine, rows = rows[: len(job.prompt.pictures)], rows[len(job.prompt.pictures) :]
        job.shares = [dict(zip(names, row, strict=True)) for row in mine]
