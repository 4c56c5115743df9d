"""What the review desk in the browser asks without a page run: pairs, and to store what was decided.

``POST /api/review/sync`` takes the numbered log of a tab and answers when it is on the disk;
``GET /api/review/pair`` and ``GET /api/review/similar`` read. Every request carries the token that the page gave out
(in its body; of a GET in the header ``X-Assay-Token``): 401 without a good one, 403 where the role does not allow it,
503 while the store fails (the same may be sent again).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.errors import AssayError, MissingError, NotAllowedError, StoreError
from db import permission, service, similar_pairs
from db.permission import Actor
from db.service import Service
from db.store import said_plainly
from pages import _who
from pages._review.desk import DESKS
from pages._review.request import Request

LONGEST_BYTES = 32 << 20
"""Fifty edits of long texts fit."""
SIMILAR_SHOWN = 8
TOKEN = "X-Assay-Token"
"""The header of a GET: in an address the token would stand in logs."""

log = logging.getLogger("assay")


def _error(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status_code=status, headers={"Cache-Control": "no-store"})


def _answered(token: Any, carry_out: Callable[[Service, Actor], Any]) -> Response:
    """The answer to a request of whoever the token names; errors as the module says."""
    try:
        running = service.current()
    except StoreError as error:
        return _error(503, str(error))
    try:
        actor = said_plainly(_who.actor_of_token)(token if isinstance(token, str) else "")
    except NotAllowedError as error:
        return _error(401, str(error))
    except AssayError as error:
        return _error(503, str(error))
    try:
        with permission.as_actor(actor):
            permission.require("review")
            found = said_plainly(carry_out)(running, actor)
    except NotAllowedError as error:
        return _error(403, str(error))
    except MissingError as error:
        return _error(400, str(error))
    except StoreError as error:
        log.warning("A review request of %s failed: %s", actor.identity, error)
        return _error(503, str(error))
    except AssayError as error:
        return _error(400, str(error))
    return Response(
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"),
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


async def sync(request: HttpRequest) -> Response:
    """Store a log's entries, and give the pairs that come next."""
    body = bytearray()
    async for part in request.stream():  # not by its Content-Length, which a request may leave out
        body += part
        if len(body) > LONGEST_BYTES:
            return _error(413, "This is too much at once. Nothing was stored.")
    return await run_in_threadpool(_sync, bytes(body))


def _sync(body: bytes) -> Response:
    try:
        sent = json.loads(body)
    except (ValueError, RecursionError):  # no JSON, or lists within lists a thousandfold
        sent = None
    if not isinstance(sent, dict):
        return _error(400, "The request cannot be read. Nothing was stored; reload the page.")

    def carry_out(running: Service, actor: Actor) -> Any:
        asked = Request.read(sent)
        return DESKS.get(running, actor, desk=asked.desk, scope=asked.scope).sync(actor, asked)

    return _answered(sent.get("token"), carry_out)


def _number(request: HttpRequest) -> int:
    text = request.query_params.get("id", "")
    if not text.isdecimal() or len(text) > 18:
        raise AssayError(f"The pair {text[:40]!r} in this request is not a number.")
    return int(text)


def pair(request: HttpRequest) -> Response:
    """One pair as the desk shows it."""

    def carry_out(running: Service, actor: Actor) -> Any:
        pair_id = _number(request)
        desk = DESKS.known(running, actor, request.query_params.get("desk", ""))
        if desk is None:
            raise AssayError("This desk is not known any more. Reload the page.")
        found = desk.one(pair_id)
        if found is None:
            raise AssayError(f"Pair {pair_id} is not in the store.")
        return {"pair": found}

    return _answered(request.headers.get(TOKEN), carry_out)


def similar(request: HttpRequest) -> Response:
    """Pairs whose texts lie near one pair's; where there can be none, the reason.

    With their state, but for a desk that is blind, or is not known (any more): what others decided is not told there.
    """

    def carry_out(running: Service, actor: Actor) -> Any:
        pair_id = _number(request)
        reason = similar_pairs.why_none(running.store, pair_id)
        found = [] if reason else similar_pairs.similar(running.store, pair_id, limit=SIMILAR_SHOWN)
        desk = DESKS.known(running, actor, request.query_params.get("desk", ""))
        if desk is None or desk.scope.blind:
            found = [{**one, "state": None} for one in found]
        return {"pairs": found, "reason": reason or ""}

    return _answered(request.headers.get(TOKEN), carry_out)


ROUTES = [
    Route("/api/review/sync", sync, methods=["POST"]),
    Route("/api/review/pair", pair, methods=["GET"]),
    Route("/api/review/similar", similar, methods=["GET"]),
]
