"""The section of test pictures: what each expert saw, what was asked, what the model said."""

from __future__ import annotations

from astrea.evaluation.report.load import RunFiles, Sample
from astrea.evaluation.report.markup import absent, escape, section, stacked, words


def samples_section(files: RunFiles) -> str:
    """Test pictures with drawn readings, question, answer, truth and shares."""
    if not files.samples:
        why = "is absent" if files.samples is None else "is empty"
        return section(
            "samples", "Test pictures", absent(f"<code>samples.json</code> {why}, so there are none to show.")
        )
    experts = list(dict.fromkeys([*files.results.expert_names(), *(e for s in files.samples for e in s.shares)]))
    key = "".join(f'<li style="--c:var(--e{i % 8})">{words(name)}</li>' for i, name in enumerate(experts))
    cards = "".join(_card(number, sample, experts) for number, sample in enumerate(files.samples, start=1))
    right = [sample.right for sample in files.samples if sample.right is not None]
    note = f"{len(files.samples)} pictures that were not trained on, with what each expert read in them."
    if right:
        note += f" {sum(right)} of {len(right)} answers shown here are right."
    if files.samples_left_out:
        note += f" {files.samples_left_out} more are in <code>samples.json</code>."
    body = f'<ul class="key" aria-label="Colours of the shares">{key}</ul><div class="samples">{cards}</div>'
    return section("samples", "Test pictures", body, note)


def _card(number: int, sample: Sample, experts: list[str]) -> str:
    verdict = ""
    if sample.right is not None:
        verdict = '<span class="right">✓ right</span>' if sample.right else '<span class="wrong">✗ wrong</span>'
    what = [f"<strong>{number}. {words(sample.task)}</strong>", words(sample.condition), verdict]
    kind = "with what each expert read in it" if sample.is_panel else "without readings"
    look = "panel" if sample.is_panel else "bare"
    alt = escape(f"Test picture {number}, {kind}. {sample.question}")
    shares = [(name, sample.shares.get(name, 0.0)) for name in experts] if sample.shares else []
    told = " · ".join(f"{words(name)} {share:.0%}" for name, share in shares)
    bar = f"<dt>Shares</dt><dd>{stacked(shares)}<small>{told}</small></dd>" if shares else ""
    return (
        f'<figure class="sample"><div class="what">{"".join(f"<span>{part}</span>" for part in what if part)}</div>'
        f'<div class="picture" tabindex="0" role="region" aria-label="Test picture {number}">'
        f'<img class="{look}" loading="lazy" src="{sample.address}" alt="{alt}"></div>'
        f"<dl><dt>Question</dt><dd>{escape(sample.question)}</dd><dt>Answer</dt><dd>{escape(sample.answer)}</dd>"
        f"<dt>Truth</dt><dd>{escape(sample.truth)}</dd>{bar}</dl></figure>"
    )
