"""The OpenAPI document, and what happens to requests that schemathesis makes up from it."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from astrea.model.loaded import LoadedModel
from astrea.serving.app import Server, application
from astrea.serving.settings import Settings

ROUTES = {
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/models",
    "/v1/models/{name}",
    "/health",
    "/metrics",
}


def test_the_document_names_every_route_and_no_model_of_a_request_is_missing(client: TestClient):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) >= ROUTES
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/embeddings"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body["$ref"].rpartition("/")[2] in document["components"]["schemas"]


@pytest.mark.slow
def test_no_request_that_follows_or_breaks_the_document_is_a_fault_of_the_server(loaded: LoadedModel):
    schemathesis = pytest.importorskip(
        "schemathesis", reason="schemathesis is not installed (pip install schemathesis)"
    )
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    server = Server(loaded, Settings(name="tiny"))
    app = application(server)
    with TestClient(app, raise_server_exceptions=False) as client:
        document = client.get("/openapi.json").json()
        schema = schemathesis.openapi.from_dict(document)
        made = [operation.ok().as_strategy() for operation in schema.get_all_operations()]
        seen: set[int] = set()

        @settings(
            max_examples=120,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.one_of(made))
        def send(case) -> None:
            request = case.as_transport_kwargs(base_url="http://localhost")
            request.pop("cookies", None)
            response = client.request(**request)
            seen.add(response.status_code)
            assert response.status_code < 500, (request, response.text)
            if response.status_code >= 400:
                assert response.json()["error"]["message"]

        send()
        assert seen & {200}
        assert seen & {400, 404, 422}
        assert client.get("/health").json()["status"] == "ok"
