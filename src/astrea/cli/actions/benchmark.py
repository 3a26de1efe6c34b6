"""What benchmark does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astrea.common.output import out, print_json
from astrea.common.progress import TerminalReporter
from astrea.evaluation.benchmarks.command import evaluate_public, public_table


def benchmark(model: Path, data: Path, *, as_json: bool, **options: Any) -> None:
    """Evaluate a model on public benchmarks, and print what was found; ``options`` as `evaluate_public` has them.

    Raises:
        AstreaError: a task failed; what the others gave has been printed.
    """
    with TerminalReporter() as report:
        figures, error = evaluate_public(model, data=data, report=report, **options)
    print_json(figures) if as_json else out.print(public_table(figures))
    if error is not None:
        raise error
