"""The section of test pictures: what each expert saw, what was asked, what the model said."""

from __future__ import annotations

from collections.abc import Sequence

from astrea.common.terminal import counted
from astrea.report.interval import wilson
from astrea.report.load import RunFiles, Sample
from astrea.report.markup import absent, escape, section, stacked, words
from astrea.report.spreadsheet import csv_link


def samples_section(files: RunFiles) -> str:
    """Test pictures with drawn readings, question, answer, truth and shares."""
    if not files.samples:
        why = "is absent" if files.samples is None else "is empty"
        return section(
            "samples", "Test pictures", absent(f"<code>samples.json</code> {why}, so there are none to show.")
        )
    experts = list(dict.fromkeys([*files.results.expert_names(), *(e for s in files.samples for e in s.shares)]))
    key = "".join(f'<li style="--c:var(--e{i % 8})">{words(name)}</li>' for i, name in enumerate(experts))
    kinds = list(dict.fromkeys(sample.task for sample in files.samples))
    cards = "".join(
        _card(number, sample, experts, kinds.index(sample.task)) for number, sample in enumerate(files.samples, start=1)
    )
    right = [sample.right for sample in files.samples if sample.right is not None]
    note = f"{counted(len(files.samples), 'picture')} not trained on, with what each expert read in them."
    if right:
        low, high = wilson(sum(right) / len(right), len(right))
        note += (
            f" {sum(right)} of {len(right)} answers shown here are right. So few say little (95 % interval: "
            f"{low:.0%} to {high:.0%}): the scores above are of all questions."
        )
    if files.samples_left_out:
        note += f" {files.samples_left_out} more are in <code>samples.json</code>."
    body = (
        f'<ul class="key" aria-label="Colours of the shares">{key}</ul>{_choices(files.samples, kinds)}'
        f'<div class="samples">{cards}</div>{_csv(files.samples, experts)}'
    )
    return section("samples", "Test pictures", body, note)


def _choices(samples: Sequence[Sample], kinds: Sequence[str]) -> str:
    """Which of the cards are shown: all, the right or the wrong ones, those of one kind of question. Without scripts:
    buttons of which one is pressed, and style rules that hide the cards that it does not mean."""
    verdicts = {"all": "all answers", "right": "right", "wrong": "wrong", "none": "not judged"}
    had = {None: "none", True: "right", False: "wrong"}
    present = {"all", *(had[sample.right] for sample in samples)}
    verdict = [(f"v-{name}", text) for name, text in verdicts.items() if name in present]
    rules = [f"main:has(#v-{name}:checked) .sample:not(.v-{name})" for name in sorted(present - {"all"})]
    kind = [("k-all", "every kind of question"), *((f"k-{i}", words(name)) for i, name in enumerate(kinds))]
    rules += [f"main:has(#k-{i}:checked) .sample:not(.k-{i})" for i in range(len(kinds))]
    rows = (_buttons(legend, name, each) for legend, name, each in (("Show", "v", verdict), ("Of", "k", kind)))
    return f"<style>{','.join(rules)}{{display:none}}</style>{''.join(rows)}"


def _buttons(legend: str, name: str, choices: Sequence[tuple[str, str]]) -> str:
    buttons = "".join(
        f'<input type="radio" name="{name}" id="{anchor}"{"" if number else " checked"}>'
        f'<label for="{anchor}">{text}</label>'
        for number, (anchor, text) in enumerate(choices)
    )
    return f'<fieldset class="choose"><legend>{legend}</legend>{buttons}</fieldset>'


def _csv(samples: Sequence[Sample], experts: Sequence[str]) -> str:
    heads = ("number", "task", "condition", "question", "answer", "truth", "right", *(f"share {e}" for e in experts))
    rows = [
        (
            *(number, sample.task, sample.condition, sample.question, sample.answer, sample.truth),
            None if sample.right is None else int(sample.right),
            *(sample.shares.get(name) for name in experts),
        )
        for number, sample in enumerate(samples, start=1)
    ]
    return csv_link("samples.csv", heads, rows)


def _card(number: int, sample: Sample, experts: list[str], kind_number: int) -> str:
    verdict, judged = "", "none"
    if sample.right is not None:
        verdict = '<span class="right">✓ right</span>' if sample.right else '<span class="wrong">✗ wrong</span>'
        judged = "right" if sample.right else "wrong"
    what = [f"<strong>{number}. {words(sample.task)}</strong>", words(sample.condition), verdict]
    kind = "with what each expert read in it" if sample.is_panel else "without readings"
    look = "panel" if sample.is_panel else "bare"
    alt = escape(f"Test picture {number}, {kind}. {sample.question}")
    shares = [(name, sample.shares.get(name, 0.0)) for name in experts] if sample.shares else []
    told = " · ".join(f"{words(name)} {share:.0%}" for name, share in shares)
    bar = f"<dt>Shares</dt><dd>{stacked(shares)}<small>{told}</small></dd>" if shares else ""
    return (
        f'<figure class="sample v-{judged} k-{kind_number}">'
        f'<div class="what">{"".join(f"<span>{part}</span>" for part in what if part)}</div>'
        f'<div class="picture" tabindex="0" role="region" aria-label="Test picture {number}">'
        f'<img class="{look}" loading="lazy" src="{sample.address}" alt="{alt}"></div>'
        f"<dl><dt>Question</dt><dd>{escape(sample.question)}</dd><dt>Answer</dt><dd>{escape(sample.answer)}</dd>"
        f"<dt>Truth</dt><dd>{escape(sample.truth)}</dd>{bar}</dl></figure>"
    )
