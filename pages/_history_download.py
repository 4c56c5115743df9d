"""Download the whole history: a route that streams it, and tickets that let a browser ask for it.

A link cannot carry a header, and a token in an address would stay in the browser's history. A ticket is a random name
for one download of one person, known to this process alone, and good for an hour.
"""

from __future__ import annotations

import csv
import io
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from core.errors import AssayError
from core.formats import csv_cell
from core.history import HistoryFilter
from core.sign_in import Known
from db import blind, history, service
from db.store import utc_now
from pages import _who

PATH = "/api/history"
FORMATS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
_SECONDS, _MOST = 3600.0, 2_000


@dataclass(frozen=True)
class Ticket:
    """What may be downloaded, by whom: None is whoever sits at the machine of an installation without sign-in."""

    filters: HistoryFilter
    format: str
    texts: bool
    person: Known | None


_tickets: OrderedDict[str, tuple[float, Ticket]] = OrderedDict()
_names: dict[Ticket, str] = {}
_lock = threading.Lock()


def address(ticket: Ticket) -> str:
    """The address of a download, relative to a page's; the same again while its ticket is good."""
    now = time.monotonic()
    with _lock:
        name = _names.get(ticket)
        if name is None or _tickets[name][0] < now + _SECONDS / 2:
            name = secrets.token_urlsafe(24)
            _names[ticket] = name
            _tickets[name] = (now + _SECONDS, ticket)
            while len(_tickets) > _MOST:
                old, (_, gone) = _tickets.popitem(last=False)
                if _names.get(gone) == old:
                    del _names[gone]
        return f"{PATH.lstrip('/')}/{name}.{ticket.format}"


def _found(name: str) -> Ticket | None:
    with _lock:
        expires, ticket = _tickets.get(name, (0.0, None))
    return ticket if expires > time.monotonic() else None


def csv_lines(batches: Iterator[pa.Table], columns: tuple[str, ...]) -> Iterator[bytes]:
    """Rows as CSV; what a spreadsheet would run as a formula gets an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for table in batches:
        lists = [table[name].to_pylist() for name in columns]
        writer.writerows([_cell(value) for value in row] for row in zip(*lists, strict=True))
        yield buffer.getvalue().encode("utf-8")
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode("utf-8")


def _cell(value: Any) -> Any:
    return csv_cell(value) if isinstance(value, str) else value


def json_lines(batches: Iterator[pa.Table]) -> Iterator[bytes]:
    """Rows as JSON, one a line; the ``shown`` record is an object in it."""
    for table in batches:
        lines = []
        for row in table.to_pylist():
            row["shown"] = json.loads(row["shown"])
            lines.append(json.dumps(row, ensure_ascii=False))
        yield ("\n".join(lines) + "\n").encode("utf-8")


def download(request: Request) -> Response:
    """All decisions that the ticket names, streamed: no row limit, and memory for some thousand rows only."""
    name, _, format = str(request.path_params["name"]).rpartition(".")
    ticket = _found(name)
    if ticket is None or ticket.format != format:
        return JSONResponse({"error": "This link has expired. Open History again and press the button."}, 404)
    try:
        store = service.current().store
        actor = None if ticket.person is None else _who.actor_of(ticket.person)
        if actor is not None and not actor.may("look"):
            return JSONResponse({"error": "Your role does not let you see the history any more."}, 403)
    except AssayError as error:
        return JSONResponse({"error": str(error)}, 503)
    batches = history.stream(store, ticket.filters, texts=ticket.texts, viewer=blind.viewer_of(actor))
    columns = (*history.STREAM_COLUMNS, *(history.TEXT_COLUMNS if ticket.texts else ()))
    body = csv_lines(batches, columns) if format == "csv" else json_lines(batches)
    file = f"history-{utc_now():%Y%m%d-%H%M%S}.{format}"
    return StreamingResponse(
        body,
        media_type=FORMATS[format],
        headers={"Content-Disposition": f'attachment; filename="{file}"', "Cache-Control": "no-store"},
    )


ROUTES: list[BaseRoute] = [Route(PATH + "/{name}", download)]
