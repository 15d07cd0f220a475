"""The routes. Read only, JSON, every parameter checked.

``/healthz`` ``/readyz`` ``/metrics`` ``/api/v1/processes`` ``/api/v1/cameras``
``/api/v1/alerts?from=&limit=&camera=`` ``/api/v1/alerts/{seq}`` ``/api/v1/alerts/{seq}/snapshot``
``/api/v1/events`` (SSE; ``?from=`` ``?camera=``, Last-Event-ID)
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from vedette.streamer.http import views
from vedette.streamer.http.events import MOST_CLIENTS, Bell, stream_events
from vedette.streamer.hubstate import HubState
from vedette.streamer.metrics import Metrics
from vedette.streamer.outboxreader import PAGE_LIMIT, OutboxReader
from vedette.streamer.replay import encode_page
from vedette.streamer.types import CAMERA_NAME

#: Alerts in one answer when the client does not say.
DEFAULT_LIMIT = 100
_MAX_SEQ = 2**62

Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """Handlers over the hub's account, the store and the metrics."""

    def __init__(self, state: HubState, reader: OutboxReader, metrics: Metrics, bell: Bell) -> None:
        self._state, self._reader, self._metrics, self._bell = state, reader, metrics, bell

    def routes(self) -> list[Route]:
        """Every route there is."""
        table: dict[str, Handler] = {
            "/healthz": self.healthz,
            "/readyz": self.readyz,
            "/metrics": self.metrics,
            "/api/v1/processes": self.processes,
            "/api/v1/cameras": self.cameras,
            "/api/v1/alerts": self.alerts,
            "/api/v1/alerts/{seq:int}": self.alert,
            "/api/v1/alerts/{seq:int}/snapshot": self.snapshot,
            "/api/v1/events": self.events,
        }
        return [Route(path, handler, methods=["GET"]) for path, handler in table.items()]

    async def healthz(self, _request: Request) -> Response:
        """200 while the hub's loop turns, else 503."""
        alive, body = views.health(self._state)
        return JSONResponse(body, 200 if alive else 503)

    async def readyz(self, _request: Request) -> Response:
        """200 when alerts can be detected and stored, else 503 with the reason."""
        ready, body = views.readiness(self._state)
        return JSONResponse(body, 200 if ready else 503)

    async def metrics(self, _request: Request) -> Response:
        """Prometheus text."""
        body = await run_in_threadpool(self._metrics.scrape)
        return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def processes(self, _request: Request) -> Response:
        """Every process of the daemon."""
        return JSONResponse({"processes": views.processes(self._state)})

    async def cameras(self, _request: Request) -> Response:
        """Every camera."""
        return JSONResponse({"cameras": views.cameras(self._state)})

    async def alerts(self, request: Request) -> Response:
        """A page of alerts after ``from``: the replay answer."""
        since = _integer(request, "from", 0, 0, _MAX_SEQ)
        limit = _integer(request, "limit", DEFAULT_LIMIT, 1, PAGE_LIMIT)
        page = await run_in_threadpool(self._reader.page, since, limit, camera=_camera(request))
        return Response(encode_page(page), media_type="application/json")

    async def alert(self, request: Request) -> Response:
        """One alert."""
        found = await run_in_threadpool(self._reader.alert, _seq(request))
        if found is None:
            raise HTTPException(404, "no such alert")
        return Response(found.body, media_type="application/json")

    async def snapshot(self, request: Request) -> Response:
        """The picture of an alert; 410 when retention or a full disk removed it."""
        seq = _seq(request)
        path = await run_in_threadpool(self._reader.snapshot, seq)
        if path is None or not path.is_file():
            found = await run_in_threadpool(self._reader.alert, seq)
            had_one = found is not None and b'"snapshot":"' in found.body
            raise HTTPException(410 if had_one else 404, "the picture was removed" if had_one else "no picture")
        return FileResponse(path, media_type="image/jpeg", headers={"X-Content-Type-Options": "nosniff"})

    async def events(self, request: Request) -> Response:
        """Alerts as they happen."""
        last_id = request.headers.get("last-event-id", "")
        since = _integer(request, "from", -1, 0, _MAX_SEQ)
        if last_id.isascii() and last_id.isdigit() and len(last_id) < 19:
            since = int(last_id)
        if self._bell.listeners >= MOST_CLIENTS:
            raise HTTPException(503, f"{MOST_CLIENTS} clients are connected already")
        camera = _camera(request)
        body = self._listen(None if since < 0 else since, camera)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(body, media_type="text/event-stream", headers=headers)

    async def _listen(self, since: int | None, camera: str | None) -> AsyncIterator[bytes]:
        rung = self._bell.join()
        try:
            async for part in stream_events(self._reader, self._bell, rung, since, camera):
                yield part
        finally:
            self._bell.leave(rung)


def _integer(request: Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20) or not low <= int(text) <= high:
        raise HTTPException(400, f"{name}: needs a number from {low} to {high}, got {text[:40]!r}")
    return int(text)


def _seq(request: Request) -> int:
    seq: int = request.path_params["seq"]
    if seq > _MAX_SEQ:
        raise HTTPException(404, "no such alert")
    return seq


def _camera(request: Request) -> str | None:
    name = request.query_params.get("camera")
    if name is not None and CAMERA_NAME.fullmatch(name) is None:
        raise HTTPException(400, f"camera: needs [a-z0-9_-]{{1,32}}, got {name[:40]!r}")
    return name


async def _refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


def build_app(state: HubState, reader: OutboxReader, metrics: Metrics, bell: Bell) -> Starlette:
    """The ASGI application."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        bell.attach()
        yield

    api = Api(state, reader, metrics, bell)
    return Starlette(routes=api.routes(), lifespan=lifespan, exception_handlers={HTTPException: _refusal})
