"""A server of the small random model, and clients that reach it without a port."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from starlette.testclient import TestClient

from astrea import AstreaForConditionalGeneration, AstreaProcessor
from astrea.model.loaded import LoadedModel
from astrea.serving.app import Server, application
from astrea.serving.limits import Limits
from astrea.serving.settings import Settings
from serving_clients import asking

SMALL = Limits(running=8, waiting=40, tokens=24, picture_seconds=20, seconds=60)


@pytest.fixture(scope="module")
def loaded(tiny_model: AstreaForConditionalGeneration, tiny_processor: AstreaProcessor) -> LoadedModel:
    """The small random model as `astrea.load` would give it."""
    return LoadedModel(tiny_model, tiny_processor)


@pytest.fixture(scope="module")
def client(loaded: LoadedModel) -> Iterator[TestClient]:
    """A server without a key, running."""
    with TestClient(application(Server(loaded, Settings(name="tiny", limits=SMALL)))) as running:
        yield running


@pytest.fixture(scope="module")
def ask(client: TestClient) -> Callable[..., dict[str, object]]:
    """A question about pictures -> the whole response."""

    def asked(question: str, *urls: str, **more: object) -> dict[str, object]:
        body = {"model": "tiny", "messages": asking(question, *urls), "max_tokens": 12, **more}
        response = client.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    return asked
