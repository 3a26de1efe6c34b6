"""The routes of a server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from astrea.common.installation import __version__
from astrea.model.loaded import LoadedModel
from astrea.serving.answers import Wanted, unless_gone
from astrea.serving.chat import Chat, wanted_of
from astrea.serving.conversation import Prompts
from astrea.serving.embeddings import Embedder
from astrea.serving.engine_process import placed_engine
from astrea.serving.errors import ApiError
from astrea.serving.gallery import Gallery, SearchRequest
from astrea.serving.guard import Guard
from astrea.serving.job import Job
from astrea.serving.logs import Trace, log, log_failure
from astrea.serving.metrics import Metrics
from astrea.serving.pages import add_pages
from astrea.serving.pictures import PictureReader
from astrea.serving.reply import Reply, begin
from astrea.serving.responses import Response as TextResponse
from astrea.serving.responses import ResponsesRequest
from astrea.serving.schema import ChatRequest, EmbeddingRequest
from astrea.serving.settings import Settings


class Server:
    """A model being served: the engine, what it needs around it, and the routes that lead to it.

    Attributes:
        broken: whether the engine has ended without being asked to. on_break: called when it does, for whoever should
            end the server, which can't answer any more.
    """

    def __init__(self, loaded: LoadedModel, settings: Settings) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.engine = placed_engine(
            loaded,
            settings.limits,
            self,
            settings.skip_below,
            settings.skip_sure,
            settings.expert_process,
            settings.engine_process,
        )
        processor = loaded.processor
        originals = loaded.model.experts.wants_originals
        self.reader = PictureReader(processor.image_processor.image_size, settings.limits, originals=originals)
        self.prompts = Prompts(processor, self.reader, tuple(loaded.model.experts.names), settings.limits)
        self.embedder = Embedder(self.engine, self.reader)
        self.gallery = None if settings.index is None else Gallery(self.embedder, settings.index)
        self.trace = Trace(settings.trace)
        self.created = int(time.time())
        self.broken = False
        self.on_break: Callable[[], None] = lambda: None

    def step(self, running: int, waiting: int) -> None:
        """The engine made a step."""
        self.metrics.step(running, waiting)

    def failed(self, error: Exception) -> None:
        """Something failed in the engine."""
        log_failure(error)

    def ended(self) -> None:
        """The engine has ended, and nobody asked it to."""
        self.broken = True
        self.on_break()

    @asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """While open, requests can be answered; at its end, those that have been accepted are finished."""
        await self.reader.start()
        await self.engine.opened()
        log("ready", model=self.settings.name)
        try:
            yield
        finally:
            await self.engine.closed()
            await self.reader.close()
            self.trace.close()
            log("stopped")

    async def reply(self, request: Request, body: ChatRequest | ResponsesRequest, wanted: Wanted) -> Reply:
        """Hand a request to the engine.

        Raises:
            ApiError: something is wrong with it, or there is too much to do.
        """
        check_model(self, body.model)

        def note(job: Job) -> None:
            self.metrics.answered(job)
            self.trace.write(request.state.request_id, job)

        stream = await begin(self.engine, self.prompts, body.messages, body.astrea, wanted)
        return Reply(self.engine, stream, self.settings.name, note)


def application(server: Server) -> Guard:
    """The whole server as an ASGI application."""
    app = FastAPI(
        title="Astrea",
        version=__version__,
        lifespan=server.running,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
    )
    _errors(app)
    _routes(app, server)
    if server.gallery is not None:
        _gallery_routes(app, server.gallery)
    add_pages(app, server.settings.example)
    return Guard(app, server.settings, server.metrics)


def _errors(app: FastAPI) -> None:
    """Every error in the one form that clients of this interface read."""

    @app.exception_handler(ApiError)
    async def refuse(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        # Not what was given, which may be a picture; the places are keys of the interface's own.
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"] if step != "body")
        refusal = ApiError(422, f"{place or 'the body'}: {first['msg']}", param=place[:100] or None)
        return JSONResponse(refusal.body, refusal.status)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        refusal = ApiError(error.status_code, str(error.detail))
        return JSONResponse(refusal.body, refusal.status, error.headers)


def _routes(app: FastAPI, server: Server) -> None:
    @app.post("/v1/chat/completions", response_model=None)
    async def chat(request: Request, body: ChatRequest) -> Response:
        """An answer to a conversation."""

        async def begun() -> Chat:
            return Chat(await server.reply(request, body, wanted_of(body, server.settings.limits)), body)

        return await answer(request, begun, stream=bool(body.stream))

    @app.post("/v1/responses", response_model=None)
    async def responses(request: Request, body: ResponsesRequest) -> Response:
        """An answer to a conversation, as OpenAI's newer interface has it."""

        async def begun() -> TextResponse:
            return TextResponse(await server.reply(request, body, body.wanted), body)

        return await answer(request, begun, stream=bool(body.stream))

    @app.post("/v1/embeddings", response_model=None)
    async def embeddings(request: Request, body: EmbeddingRequest) -> Response:
        """Vectors of texts and pictures."""
        check_model(server, body.model)
        work = server.embedder.answer(body, server.settings.name)
        return JSONResponse(await unless_gone(work, request.receive))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [model_card(server)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """What is known of a model."""
        check_model(server, name)
        return model_card(server)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether requests are answered."""
        if not server.engine.alive:
            raise ApiError(503, "the model is not running", kind="server_error")
        return {"status": "ok", "waiting": server.engine.waiting, "running": server.engine.running}

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counts and times, for Prometheus."""
        shown = server.metrics.shown(server.engine.counts)
        return Response(shown, media_type="text/plain; version=0.0.4; charset=utf-8")


def _gallery_routes(app: FastAPI, gallery: Gallery) -> None:
    @app.post("/astrea/search", response_model=None)
    async def search(request: Request, body: SearchRequest) -> Response:
        """The pictures nearest to a text or a picture."""
        return JSONResponse(await unless_gone(gallery.search(body), request.receive))

    @app.get("/astrea/pictures/{number}", response_model=None)
    async def picture(number: int) -> Response:
        """A small view of a picture."""
        return Response(await gallery.thumbnail(number), media_type="image/png")


async def answer(request: Request, begun: Callable[[], Awaitable[Chat | TextResponse]], *, stream: bool) -> Response:
    """The response to a request that is to be begun: whole, unless the client goes, or as a stream."""
    if stream:
        return StreamingResponse((await begun()).events(), media_type="text/event-stream")

    async def whole() -> dict[str, Any]:
        return await (await begun()).whole()

    return JSONResponse(await unless_gone(whole(), request.receive))


def check_model(server: Server, name: str) -> None:
    """Whether a request names the model that is served; one that names none means it.

    Raises:
        ApiError: it does not.
    """
    if name not in ("", server.settings.name):
        raise ApiError(404, f"the model served here is {server.settings.name!r}", param="model", code="model_not_found")


def model_card(server: Server) -> dict[str, Any]:
    """The model as the list of models has it."""
    return {
        "id": server.settings.name,
        "object": "model",
        "created": server.created,
        "owned_by": "astrea",
        "experts": list(server.prompts.experts),
        "pictures": 0 if server.gallery is None else server.gallery.index.manifest.count,
        "example": server.settings.example is not None,
    }
