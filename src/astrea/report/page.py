"""The whole page: sections put together, written beside the results."""

from __future__ import annotations

from pathlib import Path

import astrea
from astrea.common.errors import AstreaError
from astrea.common.files import write_atomic
from astrea.report.curves import curves_section
from astrea.report.experts import masking_section, own_scores_section, shares_section
from astrea.report.load import RunFiles, read_run
from astrea.report.markup import absent, escape, section
from astrea.report.samples import samples_section
from astrea.report.scores import conditions_section, headline, tasks_section

# Nothing is fetched and nothing runs, whatever a file of the run folder may hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = Path(__file__).with_name("page.css")
_CONTENTS = {
    "tasks": "Twelve tasks",
    "conditions": "Conditions",
    "experts": "The experts alone",
    "shares": "Who is looked at",
    "masking": "Without one expert",
    "training": "Training",
    "samples": "Test pictures",
    "recipe": "Recipe",
}


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
    results = files.results
    contents = _CONTENTS | ({"tasks": "Kinds of answers"} if results.own_data else {})
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in contents.items())
    body = "".join(
        [
            headline(files),
            f'<nav aria-label="Sections">{links}</nav><main>',
            tasks_section(results),
            conditions_section(results),
            own_scores_section(results),
            shares_section(results),
            masking_section(results),
            curves_section(files.curves),
            samples_section(files),
            _recipe_section(files),
            "</main>",
            _footer(files),
        ]
    )
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{escape(files.name)} · Astrea report</title><style>{_STYLE.read_text('utf-8')}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _recipe_section(files: RunFiles) -> str:
    if files.recipe is None:
        return section("recipe", "Recipe", absent("<code>recipe.yaml</code> is absent."))
    body = f"<details><summary>The settings this run was made with</summary><pre>{escape(files.recipe)}</pre></details>"
    return section("recipe", "Recipe", body)


def _footer(files: RunFiles) -> str:
    version = escape(getattr(astrea, "__version__", ""))
    return (
        f"<footer><p>Made by Astrea {version} from the files of this run. To make this page again: "
        f"<code>astrea report {escape(files.name)}</code>, with the path of the run's folder.</p></footer>"
    )
