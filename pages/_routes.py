"""Routes of the server beside the pages: what the components in the browser ask without a page run."""

from __future__ import annotations

from starlette.routing import BaseRoute

from pages._board.routes import ROUTES as BOARD_ROUTES
from pages._history_download import ROUTES as HISTORY_ROUTES
from pages._review.routes import ROUTES as REVIEW_ROUTES

ROUTES: list[BaseRoute] = [*REVIEW_ROUTES, *HISTORY_ROUTES, *BOARD_ROUTES]
