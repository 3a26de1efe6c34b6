"""Groups of commands that import a command's module when it is called, not when it is listed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from astrea.cli.table import COMMANDS, Command
from astrea.common.lazy import load_object

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


class LazyGroup(TyperGroup):
    """The commands of a table, each imported when it is called."""

    def __init__(self, *, table: Sequence[Command] = COMMANDS, **options: Any) -> None:
        super().__init__(**options | {"commands": {command.name: Listed(command) for command in table}})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As the base class has it, with the command's module imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, cast(Listed, command).loaded() if command else None, rest


class Listed(TyperCommand):
    """A command as its group lists it: name and one line of help."""

    def __init__(self, command: Command) -> None:
        super().__init__(command.name, callback=None, help=command.help, hidden=command.renamed is not None)
        self.command = command

    def loaded(self) -> Any:
        """The command itself, with its options; a group with its commands."""
        name, target = self.command.name, self.command.target
        if self.command.renamed is not None:
            warnings.warn(f"astrea {name} is now called astrea {self.command.renamed}", stacklevel=2)
        if isinstance(target, tuple):
            return LazyGroup(
                name=name,
                table=target,
                help=self.command.help,
                no_args_is_help=True,
                context_settings=SETTINGS,
                rich_markup_mode="rich",
            )
        alone = typer.Typer(add_completion=False, rich_markup_mode="rich", context_settings=SETTINGS)
        alone.command(name)(load_object(target))
        return typer.main.get_command(alone)
