"""Errors as chat-completions clients read them. Nothing that a request held is quoted in one at any length."""

from __future__ import annotations

import re
from typing import Any

from astrea.common.errors import AstreaError

MOST_CHARACTERS = 400
_ENCODED = re.compile(r"[A-Za-z0-9+/_=-]{25,}")
"""What could be a part of a picture or a key."""


class ApiError(Exception):
    """A refusal.

    Args:
        status: of the HTTP response. kind, param, code: as OpenAI's errors have them. retry_after: seconds, if the
            same request may succeed then.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, clean(message), kind
        self.param, self.code, self.retry_after = param, code, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response beside those that all have."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    @property
    def body(self) -> dict[str, Any]:
        """The response's JSON."""
        return {
            "error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code},
        }


def refused(error: AstreaError, param: str | None = None) -> ApiError:
    """An error of the library that a request caused. Its hint is for people at a terminal, and is left out."""
    return ApiError(400, error.message, param=param)


def busy(seconds: int = 1) -> ApiError:
    """Too many requests are being answered."""
    return ApiError(
        429, "too many requests are waiting", kind="rate_limit_error", code="queue_full", retry_after=seconds
    )


def too_late() -> ApiError:
    """The deadline of a request has passed."""
    return ApiError(408, "the request was not answered in time", kind="timeout_error", code="deadline")


def internal() -> ApiError:
    """Something that the server did not foresee; what it was is in its log only."""
    return ApiError(500, "the server failed on this request", kind="server_error")


def clean(message: str) -> str:
    """A message with nothing in it that is long, encoded or cannot be written as UTF-8."""
    text = message.encode("utf-8", "replace").decode("utf-8")
    text = _ENCODED.sub("...", text)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."
