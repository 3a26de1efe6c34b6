"""The model card of a folder, as the hub shows it: what the model is made of, what it scores with and without the
picture, and what each expert is worth.

Names come from configurations that anybody may have written, so they are escaped: no name can end a table or the
block of metadata, or become a link.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from astrea.experts.bank import BUILT_IN
from astrea.experts.packaged.kinds import PACKAGED, SOURCES
from astrea.experts.pretrained.kinds import CHECKPOINTS
from astrea.model.configuration import AstreaConfig

if TYPE_CHECKING:
    from astrea.report.results import Results

MARK = "<!-- written by astrea -->"
"""Tells a card that may be written anew from one that a person wrote."""

TAGS = ("astrea", "vision-language", "mixture-of-experts", "image-text-to-text")
LONGEST_NAME = 100


def model_card(config: AstreaConfig, results: Results | None = None) -> str:
    """The card as Markdown with a block of metadata.

    Args:
        results: what `astrea evaluate` measured; None = nothing yet.
    """
    parts = [_metadata(config), MARK, "# Astrea model", _made_of(config), _use()]
    if results is None:
        parts.append("## Scores\n\nNot measured yet: `astrea evaluate FOLDER`.")
    else:
        parts += [_scores(results), _worth(results), _recipe(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def licence(config: AstreaConfig) -> str:
    """Apache-2.0 for what is trained from nothing here; what came from elsewhere has a licence of its own."""
    kinds = {str(entry.get("kind")) for entry in config.experts.values()}
    own = kinds <= set(BUILT_IN) - set(CHECKPOINTS) - set(PACKAGED) and config.text_config.model_type == "llama"
    return "apache-2.0" if own and config.language_dtype is None else "other"


def _metadata(config: AstreaConfig) -> str:
    # JSON is YAML, and cannot be left by any name.
    lines = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "license": licence(config),
        "tags": list(TAGS),
    }
    return "---\n" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in lines.items()) + "\n---"


def _made_of(config: AstreaConfig) -> str:
    rows = [(name, entry.get("kind"), _source(entry)) for name, entry in config.experts.items()]
    text = config.text_config
    said = [
        f"A language model ({escaped(text.model_type)}, width {escaped(text.hidden_size)}) that sees through "
        f"{len(config.experts)} vision experts at once, fused by the strategy {escaped(config.strategy)}. "
        f"Pictures are read as squares of {escaped(config.image_size)} pixels.",
        table(("expert", "kind", "from"), rows),
    ]
    if licence(config) == "other":
        said.append("Parts of it come from others; their licences hold for them.")
    return "\n\n".join(said)


def _source(entry: Mapping[str, Any]) -> str:
    options = entry.get("options") or {}
    found = options.get("source", "") if isinstance(options, Mapping) else ""
    return str(found) or SOURCES.get(str(entry.get("kind")), "trained with Astrea")


def _use() -> str:
    return (
        "## Use\n\n```python\nimport astrea\n\n"
        'model = astrea.load("FOLDER")\nprint(model.ask("picture.png", "what is it?").answer)\n```\n\n'
        'or `astrea ask FOLDER picture.png "what is it?"`, or with `import astrea` any auto class of transformers.'
    )


def _scores(results: Results) -> str:
    rows: list[Sequence[Any]] = [("average", "", _number(results.average), _number(results.blind_average), "")]
    for task, score in results.tasks.items():
        rows.append((task, score.metric or "", _number(score.score), _number(score.blind), _number(score.n, 0)))
    note = "`blind` is the score without the picture: what guessing from the question alone is worth."
    return f"## Scores\n\n{table(('task', 'metric', 'score', 'blind', 'items'), rows)}\n\n{note}"


def _worth(results: Results) -> str:
    """Shares of the experts, and their conditional utilisation rates where masking was measured."""
    shares = results.load.mean
    rates = utilisation(results)
    names = [*shares, *(name for name in rates if name not in shares)]
    if not names:
        return ""
    rows = [(name, _number(shares.get(name), 3), _number(rates.get(name), 3)) for name in names]
    section = f"## Experts\n\n{table(('expert', 'mean share', 'CUR'), rows)}"
    if rates:
        gap = max(rates.values()) - min(rates.values())
        section += (
            "\n\nCUR = (accuracy - accuracy without the expert) / accuracy, by masking it without training again; "
            f"the information gap, max CUR - min CUR, is {gap:.3f} (arXiv 2507.03262)."
        )
    return section


def utilisation(results: Results) -> dict[str, float]:
    """CUR of every masked expert (arXiv 2507.03262): the share of the average score that is lost without it."""
    if not results.average:
        return {}
    return {name: -lost / results.average for name, lost in results.masking.items() if lost is not None}


def _recipe(results: Results) -> str:
    said = {"recipe": results.recipe, "strategy": results.strategy, "seed": results.seed}
    rows = [(key, value) for key, value in said.items() if value is not None]
    return f"## Training\n\n{table(('key', 'value'), rows)}" if rows else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table of escaped cells."""
    lines = [heads, ["---"] * len(heads), *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escaped(value: Any) -> str:
    """Text that stays text in Markdown: no line ends, tags, links, marks or bars."""
    text = " ".join(str(value).split())[:LONGEST_NAME]
    return re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", html.escape(text, quote=False))


def _number(value: float | int | str | None, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else ""
