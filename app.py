"""The server of Assay: `streamlit run app.py`. Pages are declared in pages/_entry.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import core
from core import sign_in
from core.errors import NotAllowedError, SettingsError
from core.settings import Settings, load_settings
from db import service
from pages import _guard, _sign_in, _who
from pages._routes import ROUTES


def check_listening(settings: Settings) -> None:
    """Nothing, or why this server must not start where it is told to listen.

    Raises:
        SettingsError: sign-in is half configured, or other machines would be served without it.
    """
    problem = _who.provider_problem() or sign_in.listening_problem(
        st.get_option("server.address"), has_provider=bool(_who.providers()), is_open=settings.is_open
    )
    if problem is not None:
        raise SettingsError(problem)
    _guard.use(_guard.Rules(loopback_only=not _who.providers() and not settings.is_open, origins=_who.public_origins()))


def refused_in_words(error: Exception) -> bool:
    """Show what a role does not allow as the sentence that it is; all else goes its usual way."""
    if isinstance(error, NotAllowedError):
        _sign_in.show_refusal(error)
        return True
    return False


@asynccontextmanager
async def lifespan(_app: Any) -> AsyncIterator[None]:
    """Open the store and run the scheduler for as long as the server runs, with or without a browser."""
    try:
        settings = load_settings()
        check_listening(settings)
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


app = st.App(
    "pages/_entry.py",
    lifespan=lifespan,
    routes=[Route("/api/health", health), *ROUTES],
    middleware=[Middleware(_guard.Guard)],
    on_script_error=refused_in_words,
)
