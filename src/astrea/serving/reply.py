"""What the interfaces have in common: a request handed to the engine, and what is told of it beside its words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from astrea.serving.answers import Stream, Wanted, deadline_of, masking_effects
from astrea.serving.conversation import Prompts
from astrea.serving.errands import Errand
from astrea.serving.job import Job
from astrea.serving.schema import Extra, Message
from astrea.serving.within import Answering


@dataclass(frozen=True, slots=True)
class Reply:
    """A request that is being answered.

    name: of the model. answered: told of the job when all its answers are there.
    """

    engine: Answering
    stream: Stream
    name: str
    answered: Callable[[Job], None]

    async def extras(self, extra: Extra) -> dict[str, Any]:
        """The ``astrea`` key of a response: gate weights, and what else was asked for."""
        job = self.stream.job
        found = pictures_of(job)
        if extra.readings and job.prompt.pictures:
            readings = await self.engine.done(Errand("readings", job.prompt.pictures))
            for one, read in zip(found["pictures"], readings, strict=True):
                one["readings"] = read
        if extra.masking:
            effects = await masking_effects(self.engine, job)
            found["masking"] = {name: asdict(effect) for name, effect in effects.items()}
        if extra.token_ids:
            found["token_ids"] = [answer.tokens for answer in job.answers]
        return found


async def begin(
    engine: Answering, prompts: Prompts, messages: Sequence[Message], extra: Extra, wanted: Wanted
) -> Stream:
    """Hand a request to the engine.

    Raises:
        ApiError: something is wrong with it, or there is too much to do.
    """
    deadline = deadline_of(engine.limits)
    return Stream(engine, await prompts.of(messages, extra), wanted, deadline)


def usage_of(job: Job) -> dict[str, int]:
    """Tokens read and generated."""
    generated = sum(len(answer.tokens) for answer in job.answers)
    return {
        "prompt_tokens": len(job.prompt.ids),
        "completion_tokens": generated,
        "total_tokens": len(job.prompt.ids) + generated,
    }


def pictures_of(job: Job) -> dict[str, Any]:
    """Per picture: each expert's gate weight, and which experts were not run."""
    return {
        "pictures": [
            {"gate_weights": {name: round(w, 4) for name, w in shares.items()}, "skipped": sorted(left_out)}
            for shares, left_out in zip(job.shares, job.skipped, strict=True)
        ]
    }
