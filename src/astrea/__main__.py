"""``python -m astrea``, for where the command ``astrea`` is not on the search path."""

from astrea.cli import main

if __name__ == "__main__":
    main()
