"""One line of JSON per request on standard error, and in the trace: numbers and names, never words or pictures."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from astrea.common.paths import file_guard
from astrea.serving.job import Job

LOGGER = logging.getLogger("astrea.serving")


def log_to_standard_error() -> None:
    """Where the server's log goes, and what uvicorn warns of."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    logging.getLogger("uvicorn.error").addHandler(handler)


def log(event: str, **fields: Any) -> None:
    """A line of the log."""
    LOGGER.info(json.dumps({"time": round(time.time(), 3), "event": event, **fields}))


def log_failure(error: BaseException) -> None:
    """Where something failed that nobody foresaw. Not its message, which may quote what a request held."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    places = [f"{frame.filename.rpartition('astrea/')[2] or frame.filename}:{frame.lineno}" for frame in frames]
    log("failure", kind=type(error).__name__, places=places)


class Trace:
    """A JSONL file with a line per request: which experts fired, and how long everything took.

    Args:
        path: is appended to; None = no file.

    Raises:
        AstreaError: it cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        with file_guard(path or "."):
            self._file = None if path is None else path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, request: str, job: Job) -> None:
        """A request that has been answered."""
        if self._file is None:
            return
        timing = job.timing
        line = {
            "request": request,
            "time": round(time.time(), 3),
            "gate_weights": [{name: round(w, 4) for name, w in one.items()} for one in job.shares],
            "skipped": [sorted(one) for one in job.skipped],
            "without": sorted(job.prompt.without),
            "prompt_tokens": len(job.prompt.ids),
            "tokens": [len(answer.tokens) for answer in job.answers],
            "seconds": {
                "waiting": round(timing.waiting, 4),
                "experts": round(timing.experts, 4),
                "fusion": round(timing.fusion, 4),
                "language": round(timing.language, 4),
                "first_token": round(timing.first - timing.came, 4),
                "all": round(timing.last - timing.came, 4),
            },
        }
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
