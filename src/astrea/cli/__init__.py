"""The command line. `table` names every command; its options lie in `commands`, what it does in `actions`.

`astrea --help` reads the table alone, `astrea COMMAND --help` the options alone: neither imports torch.
"""

from astrea.common.interrupts import interruptions_reported

try:
    with interruptions_reported():  # from the first moment: what is imported here takes a while
        from astrea.cli.app import app, main
except KeyboardInterrupt:
    raise SystemExit(130) from None

__all__ = ["app", "main"]
