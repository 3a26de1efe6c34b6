"""The command line's frame: the application, what its commands share, and how errors are told.

Every command ends with status 0 when it did what was asked, 1 on an error whose message gives a hint, 2 on a misused
command line, 130 when interrupted.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from astrea.common.devices import Device
from astrea.common.errors import AstreaError
from astrea.common.installation import SHIPPED_NAME, __version__
from astrea.common.interrupts import interruptions_told
from astrea.common.paths import failed, file_guard, is_file, refuse_url
from astrea.common.terminal import PlainConsole

if TYPE_CHECKING:
    from PIL.Image import Image

app = typer.Typer(
    name="astrea",
    help="Vision-language models that look through several vision experts at once.",
    epilog="Start with `astrea quickstart`: it trains, evaluates and explains a model in minutes, on a processor.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out = PlainConsole()

RunFolder = Annotated[Path, typer.Option("--out", help="Run folder to write.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Changes to the recipe, such as seed=1 tune.steps=800.", metavar="KEY=VALUE")
]
ModelFolder = Annotated[
    Path,
    typer.Argument(
        help="Model folder, such as runs/quickstart/model; shipped: the one in the package.", metavar="MODEL"
    ),
]
# A list, because only of a list does the command line know that what follows it comes first.
PerhapsModel = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Model folder, such as runs/quickstart/model. Left out: the model that comes with the package.",
        metavar="MODEL",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def _device(word: str) -> Device:
    if word not in get_args(Device):  # said here: typer's own words are those of the library that it checks with
        raise typer.BadParameter(f"{word!r} is none of {', '.join(get_args(Device))}")
    return cast(Device, word)


OnDevice = Annotated[
    Device,
    typer.Option(
        "--device",
        parser=_device,
        metavar="|".join(get_args(Device)),
        help="Where the model computes; auto: on a GPU if there is one.",
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let the model import the expert classes that it names.")
]


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


def model_folder(context: typer.Context, given: list[Path] | None, first: Path, last: str) -> Path:
    """The one model folder that was given, or the name of the shipped model; ``first`` is the argument after it.

    Raises:
        click.UsageError: more than one was given, or it is the ``last`` argument that was left out.
    """
    if given and len(given) > 1:
        context.fail(f"Got {len(given) - 1} more argument(s) than MODEL and what follows it")
    if not given and is_file(first / "config.json"):
        context.fail(f"Missing argument '{last}'.")
    return given[0] if given else Path(SHIPPED_NAME)


def print_path(what: str, path: Path) -> None:
    """Where something lies, in one line that can be copied."""
    out.print(f"{what + ':':<8} {path}", highlight=False, soft_wrap=True)


def save_picture(picture: Image, path: Path) -> None:
    """Write a picture in the format that the path's ending names."""
    with file_guard(path):
        try:
            picture.save(path)
        except (ValueError, KeyError) as error:  # Pillow knows no such ending, or can only read that format
            raise AstreaError(f"{path}: no picture can be written under this name", "end it in .png") from error


def print_json(value: object) -> None:
    """Plain JSON on standard output, whatever the terminal's width; what is NaN was not measured and is null."""
    from astrea.common.files import finite_or_null

    sys.stdout.write(json.dumps(finite_or_null(value), indent=2, allow_nan=False) + "\n")


def main() -> None:
    """Entry point: errors the user can correct are told in words, without a traceback."""

    def tell(text: str, style: str) -> None:
        PlainConsole(stderr=True).print(text, style=style, highlight=False, soft_wrap=True)

    try:
        with interruptions_told(), warnings.catch_warnings():
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
