"""The one error type that a user of Astrea is meant to read."""

from __future__ import annotations


class AstreaError(Exception):
    """Something the user can correct. ``str(error)`` says what is wrong (with file, line, sample or option) and,
    after it, the hint. The command line prints it without a traceback and exits with status 1.

    Args:
        message: what is wrong, naming the file, line, sample or option.
        hint: what to do about it, one sentence.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message}\n  -> {hint}" if hint else message)


def shortened(text: str, longest: int = 60) -> str:
    """A text as messages quote it: whole up to ``longest`` characters, otherwise its beginning and its end."""
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[: longest - 3 - half]}...{text[-half:]}"
