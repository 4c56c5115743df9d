"""The server of Assay: `streamlit run app.py`. Pages are declared in pages/_entry.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import streamlit as st
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import core
from core.errors import SettingsError
from core.settings import load_settings
from db import service
from pages._routes import ROUTES


@asynccontextmanager
async def lifespan(_app: Any) -> AsyncIterator[None]:
    """Open the store and run the scheduler for as long as the server runs, with or without a browser."""
    try:
        settings = load_settings()
    except SettingsError as error:
        raise SystemExit(f"Assay does not start: {error}") from error
    service.start(settings)
    try:
        yield
    finally:
        service.stop()


def health(_request: Request) -> JSONResponse:
    """Whether the store is open: 200 with the version, or 503 with the problem in plain words."""
    problem = service.problem()
    if problem is not None:
        return JSONResponse({"status": "unavailable", "problem": problem}, status_code=503)
    running = service.current()
    states = [status.state for status in running.scheduler.statuses().values()]
    return JSONResponse(
        {
            "status": "ok",
            "version": core.__version__,
            "schema": running.store.schema,
            "jobs": {state: states.count(state) for state in sorted(set(states))},
        }
    )


app = st.App("pages/_entry.py", lifespan=lifespan, routes=[Route("/api/health", health), *ROUTES])
