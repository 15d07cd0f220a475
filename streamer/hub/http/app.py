"""The routes. Read only, JSON, every parameter checked.

``/healthz`` ``/readyz`` ``/metrics`` ``/api/v1/processes`` ``/api/v1/cameras``
``/api/v1/alerts?from=&limit=&camera=`` ``/api/v1/alerts/{seq}`` ``/api/v1/alerts/{seq}/snapshot?draw=reasons``
``/api/v1/alerts/{seq}/clip``
``/api/v1/events`` (SSE; ``?from=`` ``?camera=``, Last-Event-ID)

With tokens every route but ``/healthz`` wants ``Authorization: Bearer TOKEN``: 401 without a known one, 403 for what it
may not see; alerts of other cameras do not exist (404, and left out of lists). Without tokens the server listens on
loopback only, and a Host that is not this machine's is refused (421): a web page whose name was rebound to 127.0.0.1
must not read alerts through somebody's browser.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from pathlib import Path
from typing import Literal

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from vedette.streamer.address import is_loopback_host
from vedette.streamer.hub.http import views
from vedette.streamer.hub.http.events import MOST_CLIENTS, Bell, stream_events
from vedette.streamer.hub.http.tokens import Scope, Tokens
from vedette.streamer.hub.metrics import Metrics
from vedette.streamer.hub.replay import encode_page
from vedette.streamer.hub.state import HubState
from vedette.streamer.outbox.reader import PAGE_LIMIT, OutboxReader
from vedette.streamer.outbox.records import Stored
from vedette.streamer.types import CAMERA_NAME

#: Alerts in one answer when the client does not say.
DEFAULT_LIMIT = 100
_MAX_SEQ = 2**62

#: Of evidence: a browser may not guess another kind of file.
_AS_SAID = {"X-Content-Type-Options": "nosniff"}
Handler = Callable[[Request, Scope], Awaitable[Response]]


class Api:
    """Handlers over the hub's account, the store and the metrics."""

    def __init__(self, state: HubState, reader: OutboxReader, metrics: Metrics, bell: Bell) -> None:
        self._state, self._reader, self._metrics, self._bell = state, reader, metrics, bell
        self._tokens = Tokens(state.config.http.tokens)

    def routes(self) -> list[Route]:
        """Every route there is."""
        table: dict[str, Handler] = {
            "/readyz": self.readyz,
            "/metrics": self.metrics,
            "/api/v1/processes": self.processes,
            "/api/v1/cameras": self.cameras,
            "/api/v1/alerts": self.alerts,
            "/api/v1/alerts/{seq:int}": self.alert,
            "/api/v1/alerts/{seq:int}/snapshot": self.snapshot,
            "/api/v1/alerts/{seq:int}/clip": self.clip,
            "/api/v1/events": self.events,
        }
        guarded = [Route(path, self._guarded(handler), methods=["GET"]) for path, handler in table.items()]
        return [Route("/healthz", self.healthz, methods=["GET"]), *guarded]

    def _guarded(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await handler(request, self._admit(request))

        return answer

    def _admit(self, request: Request) -> Scope:
        """What this client may see. Raises HTTPException for those who may see nothing."""
        if not self._tokens and not is_loopback_host(_host(request)):
            raise HTTPException(421, "this server answers to 127.0.0.1 and localhost only")
        scope = self._tokens.scope_of(request.headers)
        if scope is None:
            raise HTTPException(401, "needs `Authorization: Bearer TOKEN`", {"WWW-Authenticate": "Bearer"})
        return scope

    async def healthz(self, _request: Request) -> Response:
        """200 while the hub's loop turns, else 503."""
        alive, body = views.health(self._state)
        return JSONResponse(body, 200 if alive else 503)

    async def readyz(self, _request: Request, _scope: Scope) -> Response:
        """200 when alerts can be detected and stored, else 503 with the reason."""
        ready, body = views.readiness(self._state)
        return JSONResponse(body, 200 if ready else 503)

    async def metrics(self, _request: Request, scope: Scope) -> Response:
        """Prometheus text, for those who see every camera: its labels name them all."""
        if scope.cameras is not None:
            raise HTTPException(403, "this token sees only some cameras")
        body = await run_in_threadpool(self._metrics.scrape)
        return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def processes(self, _request: Request, scope: Scope) -> Response:
        """Every process of the daemon."""
        return JSONResponse({"processes": views.processes(self._state, scope)})

    async def cameras(self, _request: Request, scope: Scope) -> Response:
        """Every camera."""
        return JSONResponse({"cameras": views.cameras(self._state, scope)})

    async def alerts(self, request: Request, scope: Scope) -> Response:
        """A page of alerts after ``from``: the replay answer."""
        since = _integer(request, "from", 0, 0, _MAX_SEQ)
        limit = _integer(request, "limit", DEFAULT_LIMIT, 1, PAGE_LIMIT)
        page = await run_in_threadpool(self._reader.page, since, limit, camera=_cameras(request, scope))
        return Response(encode_page(page), media_type="application/json")

    async def alert(self, request: Request, scope: Scope) -> Response:
        """One alert."""
        return Response((await self._find(request, scope)).body, media_type="application/json")

    async def _find(self, request: Request, scope: Scope) -> Stored:
        seq: int = request.path_params["seq"]
        found = None if seq > _MAX_SEQ else await run_in_threadpool(self._reader.alert, seq)
        if found is None or not scope.sees(found.camera):
            raise HTTPException(404, "no such alert")
        return found

    async def snapshot(self, request: Request, scope: Scope) -> Response:
        """The picture of an alert; 410 when retention or a full disk removed it. ``?draw=reasons``: with the alert drawn in."""
        wanted = request.query_params.get("draw")
        if wanted is None:
            return await self._file(request, scope, "snapshot", "image/jpeg")
        if wanted != "reasons":
            raise HTTPException(400, f"draw: needs `reasons`, got {wanted[:40]!r}")
        found = await self._find(request, scope)
        path = await self._path(found, "snapshot")
        try:
            drawn = await run_in_threadpool(_drawn, path, found.body)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        return Response(drawn, media_type="image/jpeg", headers=_AS_SAID)

    async def clip(self, request: Request, scope: Scope) -> Response:
        """The film of an alert: 404 until the rev that brings it, 410 when it was removed."""
        return await self._file(request, scope, "clip", "video/mp4")

    async def _file(self, request: Request, scope: Scope, what: Literal["snapshot", "clip"], media: str) -> Response:
        path = await self._path(await self._find(request, scope), what)
        return FileResponse(path, media_type=media, headers=_AS_SAID)

    async def _path(self, found: Stored, what: Literal["snapshot", "clip"]) -> Path:
        path = await run_in_threadpool(self._reader.evidence, found.seq, what)
        if path is None:
            raise HTTPException(404, f"no {what}")
        if not path.is_file():
            raise HTTPException(410, f"the {what} was removed")
        return path

    async def events(self, request: Request, scope: Scope) -> Response:
        """Alerts as they happen."""
        last_id = request.headers.get("last-event-id", "")
        since = _integer(request, "from", -1, 0, _MAX_SEQ)
        if last_id.isascii() and last_id.isdigit() and len(last_id) < 19:
            since = int(last_id)
        if self._bell.listeners >= MOST_CLIENTS:
            raise HTTPException(503, f"{MOST_CLIENTS} clients are connected already")
        body = self._listen(None if since < 0 else since, _cameras(request, scope))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(body, media_type="text/event-stream", headers=headers)

    async def _listen(self, since: int | None, cameras: Collection[str] | None) -> AsyncIterator[bytes]:
        rung = self._bell.join()
        try:
            async for part in stream_events(self._reader, self._bell, rung, since, cameras):
                yield part
        finally:
            self._bell.leave(rung)


def _drawn(path: Path, body: bytes) -> bytes:
    """The snapshot at a path with its alert drawn in."""
    from vedette.streamer.drawing import drawn_snapshot  # OpenCV costs the hub memory: only where somebody asks

    return drawn_snapshot(path.read_bytes(), json.loads(body))


def _integer(request: Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20) or not low <= int(text) <= high:
        raise HTTPException(400, f"{name}: needs a number from {low} to {high}, got {text[:40]!r}")
    return int(text)


def _cameras(request: Request, scope: Scope) -> Collection[str] | None:
    """The cameras that are asked for and may be seen, None for all."""
    name = request.query_params.get("camera")
    if name is None:
        return scope.cameras
    if CAMERA_NAME.fullmatch(name) is None:
        raise HTTPException(400, f"camera: needs [a-z0-9_-]{{1,32}}, got {name[:40]!r}")
    if not scope.sees(name):
        raise HTTPException(403, "this token does not see that camera")
    return (name,)


def _host(request: Request) -> str:
    """The name in the Host header, without its port."""
    name = request.headers.get("host", "")
    return name if name.endswith("]") else name.rpartition(":")[0] or name


async def _refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def build_app(state: HubState, reader: OutboxReader, metrics: Metrics, bell: Bell) -> Starlette:
    """The ASGI application."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        bell.attach()
        yield

    api = Api(state, reader, metrics, bell)
    return Starlette(routes=api.routes(), lifespan=lifespan, exception_handlers={HTTPException: _refusal})
