"""The whole page, written beside the results: templates filled from the files of the run."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from astrea.common.errors import AstreaError
from astrea.common.files import write_atomic
from astrea.common.terminal import counted
from astrea.report import samples, tables
from astrea.report.charts import LOSS_COLOURS, loss_chart
from astrea.report.formatting import plain
from astrea.report.load import Curve, RunFiles, read_run
from astrea.report.smoothing import smoothed
from astrea.report.svg import CSS
from astrea.report.templating import environment


def write_report(run: Path) -> Path:
    """Write ``run/report.html``: one page that needs no network, no scripts and no other file.

    Reads ``results.json`` and, where they are there, ``train.jsonl``, ``samples.json`` with its pictures and
    ``recipe.yaml``. The page depends on nothing else, so the same run gives the same bytes.

    Returns:
        The path of the page.

    Raises:
        AstreaError: ``results.json`` is missing; one of these files is unreadable, damaged or of the wrong form; a
            sample names a picture outside the run folder; or the page cannot be written.
    """
    run = Path(run)
    page = render(read_run(run))
    path = run / "report.html"
    try:
        write_atomic(path, page.encode("utf-8"))
    except OSError as error:
        raise AstreaError(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}",
            "Check that the folder may be written to and that the disk is not full.",
        ) from error
    return path


def render(files: RunFiles) -> str:
    """The page as HTML."""
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            files=files,
            results=files.results,
            tables=tables,
            samples=samples,
            loss_key=loss_key(files.curves or []),
            loss_panels=[loss_panel(curve, number) for number, curve in enumerate(files.curves or [])],
            counted=counted,
        )
    )


def loss_key(curves: list[Curve]) -> dict[str, str]:
    """Every loss that any panel shows -> its colour."""
    names = {name for curve in curves for name in curve.series}
    return {"total" if name == "loss" else name: CSS[LOSS_COLOURS[name]] for name in LOSS_COLOURS if name in names}


def loss_panel(curve: Curve, number: int) -> tuple[str, str, int, Markup]:
    """One stage: its name, how its loss changed, its number of logged steps, its chart."""
    main = curve.series.get("loss") or next(iter(curve.series.values()))
    smooth = smoothed(main)
    change = f"{plain(smooth[0][1], 2)} → {plain(smooth[-1][1], 2)}"
    label = f"Loss of stage {curve.stage}: {change}, steps {main[0][0]} to {main[-1][0]}"
    return curve.stage, change, len(main), loss_chart(curve, f"loss {number}", label)
