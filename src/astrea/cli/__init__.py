"""The command line: importing a module of this package adds its commands, in the order of `astrea --help`."""

from astrea.common.interrupts import interruptions_told

try:
    with interruptions_told():  # from the first moment: what is imported here takes a while
        from astrea.cli import train, recipe, join, estimate, ask, retrieve, evaluate, validate, merge  # noqa: F401, I001 - the order is that of the help
        from astrea.cli.app import app, main
except KeyboardInterrupt:
    raise SystemExit(130) from None

__all__ = ["app", "main"]
