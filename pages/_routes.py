"""Routes of the server beside the pages: what the components in the browser ask without a page run."""

from __future__ import annotations

from starlette.routing import BaseRoute

ROUTES: list[BaseRoute] = []
