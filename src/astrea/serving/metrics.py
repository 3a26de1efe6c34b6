"""What a server counts and times, for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from astrea.serving.features import Counts
from astrea.serving.job import Job

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter("astrea_requests", "Requests answered.", ["route", "status"], registry=own)
        self.seconds = Histogram("astrea_request_seconds", "From request to end of answer.", ["route"], registry=own)
        self.waiting = Gauge("astrea_waiting_requests", "Requests that have not begun to be read.", registry=own)
        self.batch = Histogram(
            "astrea_batch_size", "Answers decoded together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=own
        )
        self.first = Histogram(
            "astrea_time_to_first_token_seconds", "From request to first token.", buckets=_SHORT, registry=own
        )
        self.each = Histogram(
            "astrea_time_per_output_token_seconds", "Between tokens after the first.", buckets=_SHORT, registry=own
        )
        self.parts = Histogram(
            "astrea_prompt_seconds", "Reading a prompt, by part.", ["part"], buckets=_SHORT, registry=own
        )
        self.prompt_tokens = Counter("astrea_prompt_tokens", "Tokens read.", registry=own)
        self.tokens = Counter("astrea_generated_tokens", "Tokens generated.", registry=own)
        self.experts = Gauge(
            "astrea_expert_pictures", "Pictures that an expert was run for, skipped for, or had in its cache.",
            ["expert", "outcome"], registry=own,
        )  # fmt: skip

    def step(self, running: int, waiting: int) -> None:
        """The engine made a step."""
        self.waiting.set(waiting)
        if running:
            self.batch.observe(running)

    def answered(self, job: Job) -> None:
        """All answers of a request are there."""
        timing = job.timing
        count = sum(len(answer.tokens) for answer in job.answers)
        self.prompt_tokens.inc(len(job.prompt.ids))
        self.tokens.inc(count)
        self.first.observe(timing.first - timing.came)
        longest = max(len(answer.tokens) for answer in job.answers)
        if longest > 1:
            self.each.observe((timing.last - timing.first) / (longest - 1))
        for part in ("experts", "fusion", "language"):
            self.parts.labels(part).observe(getattr(timing, part))

    def shown(self, experts: Mapping[str, Counts]) -> bytes:
        """All of it, as Prometheus reads it."""
        for name, counts in experts.items():
            for outcome in ("run", "skipped", "cached"):
                self.experts.labels(name, outcome).set(getattr(counts, outcome))
        return generate_latest(self.registry)
