"""The command line's frame: the application and how its errors are told.

Every command ends with status 0 when it did what was asked, 1 on an error whose message gives a hint, 2 on a misused
command line, 130 when interrupted.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from astrea.cli.lazy import SETTINGS, LazyGroup
from astrea.common.errors import AstreaError
from astrea.common.installation import __version__
from astrea.common.interrupts import interruptions_reported
from astrea.common.output import out
from astrea.common.paths import failed, refuse_url
from astrea.common.terminal import PlainConsole

app = typer.Typer(
    name="astrea",
    cls=LazyGroup,
    help="Vision-language models that look through several vision experts at once.",
    epilog="Start with `astrea quickstart`: it trains, evaluates and explains a model in minutes, on a processor.",
    no_args_is_help=True,
    context_settings=SETTINGS,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        out.print(f"astrea {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """What `astrea` takes without a command."""


def main() -> None:
    """Entry point: errors the user can correct are told in words, without a traceback."""

    def tell(text: str, style: str) -> None:
        PlainConsole(stderr=True).print(text, style=style, highlight=False, soft_wrap=True)

    try:
        with interruptions_reported(), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: tell(f"note: {message}", "yellow")
            _need_a_current_folder()
            _refuse_urls(sys.argv[1:])
            try:
                app(prog_name="astrea")
            finally:
                sys.stdout.flush()  # here, where a full device can still be told of
    except (AstreaError, OSError) as error:
        tell(f"error: {error if isinstance(error, AstreaError) else _of_system(error)}", "red")
        _drop_unwritten()
        raise SystemExit(1) from None
    except KeyboardInterrupt:  # has been told
        raise SystemExit(130) from None


def _refuse_urls(words: Sequence[str]) -> None:
    """No command takes a URL but that of a picture on this machine (file:, data:). Said before anything is looked for,
    or a folder made, under the name that is left of it as a path."""
    for word in words:
        option = re.match(r"-*[\w.-]+=", word)  # --out=..., data.train=...
        value = word[option.end() :] if option else word
        if not value.lower().startswith("file:") and not any(map(str.isspace, value)):
            refuse_url(value)


def _need_a_current_folder() -> None:
    """Paths start there, and some libraries ask for it when they are imported."""
    try:
        os.getcwd()
    except OSError as error:
        raise AstreaError("the current folder is no longer there", "change into another folder") from error


def _of_system(error: OSError) -> AstreaError:
    """What the system refused, and nobody nearer by could say more about, such as writing to standard output."""
    if error.filename is not None:
        return failed(error.filename, error)
    hint = "free some space on the output's device"
    return AstreaError(f"writing failed: {(error.strerror or str(error)).lower()}", hint)


def _drop_unwritten() -> None:
    """Let standard output go, lest Python tries in vain to write the rest of it once more when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
