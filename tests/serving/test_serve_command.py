"""The command `serve`: what it refuses before it loads anything, and what it hands to the server."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from astrea.cli.actions import serve as actions
from astrea.common.installation import MODULES
from astrea.serving.app import Server
from command_line import Astrea, refused

KEY = "a-long-random-text-of-nobody"


def test_other_machines_need_a_key_and_a_key_is_long(astrea: Astrea, tiny_folder: Path, tmp_path: Path):
    refused(astrea("serve", tiny_folder, "--host", "0.0.0.0"), "there is no key", "--api-key-file")
    (tmp_path / "key").write_text("short\n")
    refused(astrea("serve", tiny_folder, "--host", "0.0.0.0", "--api-key-file", tmp_path / "key"), "at least 16")
    refused(astrea("serve", tiny_folder, "--api-key-file", tmp_path / "none"), tmp_path / "none")


def test_with_a_key_it_serves_others_who_know_it(
    astrea: Astrea, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`astrea serve MODEL --host 0.0.0.0 --api-key-file KEY`."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    served: list[uvicorn.Config] = []
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(actions, "log_to_standard_error", lambda: None)
    monkeypatch.setattr(uvicorn.Server, "run", lambda server: served.append(server.config))
    result = astrea("serve", tiny_folder, "--host", "0.0.0.0", "--port", 1234, "--api-key-file", tmp_path / "key")
    assert result.code == 0, result.err
    assert (served[0].host, served[0].port) == ("0.0.0.0", 1234)
    with TestClient(served[0].app) as client:  # type: ignore[arg-type]
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_a_server_whose_model_has_gone_ends_with_an_error(
    astrea: Astrea, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whatever watches over it, such as Docker or systemd, sees that and starts it again."""
    made: list[Server] = []

    def kept(*given: Any) -> Server:
        made.append(Server(*given))
        return made[0]

    def run(listening: uvicorn.Server) -> None:
        with TestClient(listening.config.app, base_url="http://localhost") as client:  # type: ignore[arg-type]
            assert client.get("/health").status_code == 200
            assert not listening.should_exit
            made[0].engine._process.kill()  # type: ignore[attr-defined]
            until = time.monotonic() + 60
            while not listening.should_exit:
                assert time.monotonic() < until
                time.sleep(0.05)

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(actions, "log_to_standard_error", lambda: None)
    monkeypatch.setattr(actions, "Server", kept)
    monkeypatch.setattr(uvicorn.Server, "run", run)
    refused(astrea("serve", tiny_folder, "--engine-process", "--no-expert-process"), "has ended by itself", "its log")


@pytest.mark.parametrize("words", ["0", "2:1", "two", "1:", ":2"])
def test_what_is_no_number_of_replicas_is_refused(
    words: str, astrea: Astrea, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(MODULES, "ray", ())
    refused(astrea("serve", tiny_folder, "--replicas", words), f"--replicas {words}", "1:8")


def test_numbers_of_replicas():
    assert actions.read_replicas("2") == (2, 2)
    assert actions.read_replicas("1:8") == (1, 8)


def test_several_servers_need_ray(astrea: Astrea, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # type: ignore[arg-type]
    refused(astrea("serve", tiny_folder, "--replicas", "2"), "the library ray", "[ray]")
