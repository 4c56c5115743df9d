"""Routes of the meeting board: its state each second, and what presenters and voters do. Token in, JSON out."""

from __future__ import annotations

import json
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from core.errors import NotAllowedError, StoreError
from db import permission, service
from db.permission import Actor
from pages import _who
from pages._board import room

MOST_BYTES = 16 * 1024


def _answer(sent: dict[str, Any], *, act: bool) -> JSONResponse:
    try:
        running = service.current()
    except StoreError as error:
        return JSONResponse({"error": str(error)}, status_code=503)
    try:
        actor = _who.actor_of_token(str(sent.get("token") or ""))
    except NotAllowedError as error:
        return JSONResponse({"error": str(error)}, status_code=401)
    except StoreError as error:
        return JSONResponse({"error": str(error)}, status_code=503)
    if not actor.may("look"):
        return JSONResponse({"error": "Nobody gave you access to this board yet. Ask an admin."}, status_code=403)
    with permission.as_actor(actor):
        said = ""
        if act:
            try:
                said = room.do(running, actor, sent)
            except NotAllowedError as error:
                return JSONResponse({"error": str(error)}, status_code=403)
            except StoreError as error:
                # Refused, not lost: the state of now comes with it, so that the browser draws what is so.
                return JSONResponse({**_state(sent, actor), "error": str(error)}, status_code=409)
        return JSONResponse({**_state(sent, actor), "said": said})


def _state(sent: dict[str, Any], actor: Actor) -> dict[str, Any]:
    mode = sent.get("mode")
    return room.state(
        service.current(),
        actor,
        session=str(sent.get("session") or "")[:64],
        mode=mode if mode in room.MODES else "",
        slide=str(sent.get("slide") or "")[:40],
        knows=sent["knows"] if isinstance(sent.get("knows"), int) else None,
    )


async def _take(request: Request, *, act: bool) -> JSONResponse:
    body = await request.body()
    if len(body) > MOST_BYTES:
        return JSONResponse({"error": "That is too long to be a request of the board."}, status_code=413)
    try:
        sent = json.loads(body)
    except ValueError:
        sent = None
    if not isinstance(sent, dict):
        return JSONResponse({"error": "The request cannot be read. Reload the page."}, status_code=400)
    return await run_in_threadpool(_answer, sent, act=act)


async def state(request: Request) -> JSONResponse:
    """What the board shows now."""
    return await _take(request, act=False)


async def do(request: Request) -> JSONResponse:
    """One action, and what the board shows after it."""
    return await _take(request, act=True)


ROUTES = [
    Route("/api/board/state", state, methods=["POST"]),
    Route("/api/board/do", do, methods=["POST"]),
]
