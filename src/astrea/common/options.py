"""The options and arguments that several commands share, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from astrea.common.devices import Device
from astrea.common.installation import SHIPPED_NAME
from astrea.common.paths import is_file

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
OptionalModel = Annotated[
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
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let the model import the expert classes that it names.")
]


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
