"""The outermost layer: key, addressed host, size and pace of bodies, number of requests, clean errors, a log line.

It stands before everything else, on all routes: what does not get past it costs next to nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from astrea.serving.errors import ApiError, busy, internal
from astrea.serving.logs import log, log_failure
from astrea.serving.metrics import Metrics
from astrea.serving.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
HELD_BODIES = 8
"""Bodies of the largest size that may be in memory together; more small ones may."""


class Guard:
    """An ASGI application around another. ``held``: bytes of the bodies that are in memory."""

    def __init__(self, app: Callable[..., Awaitable[None]], settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.limits, self.metrics = app, settings, settings.limits, metrics
        self._key = None if settings.key is None else _digest(settings.key)
        self._requests = self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            await _Exchange(self, scope, receive, send).run()

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Whether a request may be looked at at all.

        Raises:
            ApiError: it is addressed to another host, or lacks the key.
        """
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        if self.settings.hosts is not None and name not in self.settings.hosts:
            raise ApiError(421, "this server is not known under this name", code="wrong_host")
        if self._key is None:
            return
        scheme, _, given = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() == "basic":  # what a browser sends after asking for name and password
            with contextlib.suppress(binascii.Error, ValueError):
                given = base64.b64decode(given, validate=True).decode("utf-8").partition(":")[2]
        if not hmac.compare_digest(_digest(given.strip()), self._key):
            raise ApiError(401, "the key is missing or wrong", kind="authentication_error", code="invalid_api_key")

    @contextlib.contextmanager
    def admitted(self) -> Any:
        """While open, one more request is being answered.

        Raises:
            ApiError: there are too many.
        """
        if self._requests >= self.limits.running + self.limits.waiting:
            raise busy()
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """A whole body; it counts as held until whoever gets it takes its size off ``held`` again.

        Raises:
            ApiError: it is too large, comes too slowly, or the client has gone.
        """
        declared = headers.get(b"content-length", b"0")
        parts: list[bytes] = []
        size = int(declared) if declared.isdigit() and len(declared) < 16 else self.limits.body_bytes + 1
        came = 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while size <= self.limits.body_bytes:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(400, "the request ended before its body did")
                    parts.append(message.get("body", b""))
                    came, self.held = came + len(parts[-1]), self.held + len(parts[-1])
                    size = max(size, came)
                    if self.held > HELD_BODIES * self.limits.body_bytes:
                        raise busy()
                    if not message.get("more_body", False) and size <= self.limits.body_bytes:
                        return b"".join(parts)
            raise ApiError(413, f"the body has more than {self.limits.body_bytes:,} bytes", code="request_too_large")
        except TimeoutError:
            self.held -= came
            raise ApiError(408, "the body of the request came too slowly", kind="timeout_error") from None
        except BaseException:
            self.held -= came
            raise


class _Exchange:
    """One request and its response."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self.scope, self._receive, self._send = guard, scope, receive, send
        self.status = 0
        self.id = uuid.uuid4().hex
        self._body: bytes | None = None

    async def run(self) -> None:
        began = time.monotonic()
        try:
            await self._answer()
        except ApiError as error:
            await self._refuse(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log_failure(error)
            await self._refuse(internal())
        finally:
            # The route's own path, not what was asked for, which may be anything.
            route = getattr(self.scope.get("route"), "path", "other")
            seconds = time.monotonic() - began
            self.guard.metrics.requests.labels(route, str(self.status)).inc()
            self.guard.metrics.seconds.labels(route).observe(seconds)
            log("request", request=self.id, route=route, status=self.status, seconds=round(seconds, 4))

    async def _answer(self) -> None:
        headers = dict(self.scope["headers"])
        self.guard.check(headers)
        self.scope.setdefault("state", {})["request_id"] = self.id
        if self.scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.guard.app(self.scope, self._receive, self.send)
            return
        with self.guard.admitted():
            self._body = await self.guard.body(headers, self._receive)
            size = len(self._body)
            try:
                await self.guard.app(self.scope, self.receive, self.send)
            finally:
                self.guard.held -= size

    async def receive(self) -> Message:
        """The body that was read, once; after it what else comes, such as that the client has gone."""
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """As it is, with the headers that every response has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name.lower() for name, _ in message.get("headers", [])}
            more = {"X-Request-Id": self.id, **SECURITY}
            own = [(k.lower().encode(), v.encode()) for k, v in more.items() if k.lower().encode() not in given]
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await self._send(message)

    async def _refuse(self, error: ApiError) -> None:
        """Answer with an error, unless an answer has begun: then the connection can only end."""
        if self.status:
            return
        body = json.dumps(error.body).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
        if error.status == 401:
            headers["www-authenticate"] = 'Basic realm="astrea", charset="UTF-8"'
        if error.status in (408, 413):
            headers["connection"] = "close"
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": pairs})
        await self.send({"type": "http.response.body", "body": body})


def _digest(text: str) -> bytes:
    # Of one length, whatever the key's is, and of any characters.
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
