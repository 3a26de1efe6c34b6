"""The same server several times under Ray Serve: replicas behind one address, on one machine or on many.

Each replica is a server with a model of its own; Ray starts them, hands requests to those that have the fewest, puts
another in the place of one that has died, and adds and removes them as requests come and go.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from astrea.common.devices import Device
from astrea.common.errors import AstreaError
from astrea.common.installation import import_extra
from astrea.model.loaded import load
from astrea.serving.app import Server, application
from astrea.serving.guard import Guard
from astrea.serving.limits import Limits
from astrea.serving.logs import log, log_to_standard_error
from astrea.serving.settings import Settings

PURPOSE = "a server of several replicas"
NAME = "astrea"
"""What Ray calls the deployment and the application that consists of it."""

GRACE = 5.0
"""Seconds beyond the deadline of requests that a replica has for answering what it has accepted before it is ended."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where every replica's model comes from; see `astrea.load`. With the device "cuda" each has a GPU of its own;
    otherwise Ray lets it see none."""

    model: Path
    device: Device = "auto"
    trust_remote_code: bool = False


class Replica:
    """One server. Ray asks every few seconds how it is."""

    def __init__(self, source: Source, settings: Settings) -> None:
        log_to_standard_error()
        loaded = load(source.model, device=source.device, trust_remote_code=source.trust_remote_code)
        self.server = Server(loaded, settings)

    def __serve_build_asgi_app__(self) -> Guard:
        """What Ray serves, which it begins and ends as every ASGI server does."""
        return application(self.server)

    def check_health(self) -> None:
        """Whether it works; if not, another replica takes its place.

        Raises:
            RuntimeError: its engine has ended.
        """
        if not self.server.engine.alive:
            raise RuntimeError("the model is not running")


def deployed(source: Source, settings: Settings, least: int, most: int) -> Any:
    """An application of Ray Serve, for `run` or ``serve.run``: one deployment of ``least`` to ``most`` replicas.

    Clients are refused by a replica's own limits, and by Ray, with status 503, where more requests wait for a replica
    than these let wait.
    """
    serve = import_extra("ray.serve", "ray", PURPOSE)
    limits = settings.limits
    options: dict[str, Any] = {"num_replicas": least}
    if least < most:
        # As many requests as one replica decodes together are what it should have to do.
        wanted = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": limits.running}
        options = {"autoscaling_config": wanted}
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name=NAME,
        max_ongoing_requests=limits.running + limits.waiting,
        max_queued_requests=limits.waiting,
        graceful_shutdown_timeout_s=limits.seconds + GRACE,
        ray_actor_options={"num_cpus": 1, "num_gpus": int(source.device == "cuda")},
        **options,
    )
    return deployment.bind(source, settings)


def run(app: Any, host: str, port: int, limits: Limits) -> None:
    """Serve until the process is asked to end; then answer what was accepted.

    Joins the cluster that RAY_ADDRESS names; without one, Ray is started on this machine, for this alone.

    Raises:
        AstreaError: Ray is not installed, or the replicas did not start.
    """
    ray = import_extra("ray", "ray", PURPOSE)
    serve = import_extra("ray.serve", "ray", PURPOSE)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers how it is used
    ray.init(include_dashboard=None if os.environ.get("RAY_ADDRESS") else False)
    ended = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        ended.set()

    try:
        serve.start(http_options={"host": host, "port": port, "request_timeout_s": limits.seconds + GRACE})
        try:
            serve.run(app, name=NAME, route_prefix="/")
        except RuntimeError as error:  # its message is a page of Ray's own; the replicas have told theirs
            raise AstreaError("the replicas could not be started", "their log, above, says why") from error
        for asked_to_end in (signal.SIGINT, signal.SIGTERM):
            signal.signal(asked_to_end, end)
        ended.wait()
        serve.delete(NAME)
    finally:
        ray.shutdown()
        log("stopped")
