"""``python -m astrea.cli``."""

from astrea.cli import main

main()
