"""Plug-ins by name: built in, from an installed package's entry points, or written out as "module:Class".

Built-in ones are strings too, imported when they are asked for: so a registry imports none of what it lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from astrea.common.errors import AstreaError
from astrea.common.lazy import load_object


@dataclass(frozen=True, slots=True)
class Registry:
    """Names of one kind of plug-in.

    what: how messages call one, such as "world". built_in: name -> "module:Class". group: of entry points, such as
    "astrea.worlds"; None where other packages cannot add any.
    """

    what: str
    built_in: Mapping[str, str]
    group: str | None = None

    def registered(self) -> dict[str, EntryPoint]:
        """What installed packages have registered, by name. A built-in name cannot be taken."""
        if self.group is None:
            return {}
        return {point.name: point for point in entry_points(group=self.group) if point.name not in self.built_in}

    def known(self) -> list[str]:
        """Every name, the built-in ones first."""
        return [*self.built_in, *self.registered()]

    def find(self, name: str, *, allow_import: bool) -> Any:
        """What a name stands for.

        Args:
            allow_import: whether "module:Class" may be imported. A recipe is the user's own word and may; a model
                folder may come from anybody and may only with ``trust_remote_code=True``.

        Raises:
            AstreaError: an unknown name (lists the known ones), an import that fails or is not allowed.
        """
        if name in self.built_in:
            return load_object(self.built_in[name])
        point = self.registered().get(name)
        if point is None and ":" not in name:
            more = "" if self.group is None else '; or write "module:Class"'
            raise AstreaError(f"unknown {self.what} {name!r}", f"known: {', '.join(self.known()) or 'none'}{more}")
        if point is None and (self.group is None or not allow_import):
            raise AstreaError(
                f"the model asks to import the {self.what} {name!r}",
                "if you trust whoever made this model: --trust-remote-code, or trust_remote_code=True in Python",
            )
        try:
            return load_object(name) if point is None else point.load()
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            hint = "check the module's name and that it is installed"
            raise AstreaError(f"{self.what} {name!r}: {error}", hint) from error
