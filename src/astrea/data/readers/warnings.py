"""Rate-limited warnings about bad records during training: each record once, and few lines in all."""

from __future__ import annotations

from collections.abc import Callable

from astrea.data.readers.check import SeenIds
from astrea.data.readers.issues import NOTES, Issue
from astrea.data.readers.trainable import NO_PAIR

SHOWN = 20
"""Bad records that get a line each; of further ones only the number is shown."""

COUNTED = 100_000
"""Bad records that are remembered (a few megabytes); more are not counted."""


class RateLimitedWarnings:
    """Called with an issue each time that a bad record is read; warns of each record once.

    Args:
        say: takes a line for people.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.count = 0
        self._seen = SeenIds()

    def __call__(self, issue: Issue) -> None:
        """Warn of an issue, unless it has been shown. A record without a picture is passed over in silence."""
        name = f"{issue.where} {issue.message}" if issue.kind in NOTES else str(issue.where)  # a file can have several
        if issue.kind == NO_PAIR or self.count == COUNTED or not self._seen.add(name):
            return
        self.count += 1
        if self.count <= SHOWN:
            self.say(f"{'note' if issue.kind in NOTES else 'left out'}: {issue}")
        elif self.count == SHOWN + 1:
            self.say("left out: more bad records; see all of them with `astrea validate`")
        elif self.count == COUNTED:
            self.say(f"left out so far: {COUNTED:,} bad records; more are not counted")
        elif str(self.count).strip("0") == "1":  # 100, 1000, ...
            self.say(f"left out so far: {self.count:,} bad records")
