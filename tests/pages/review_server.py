"""The review desk's routes over a real store in a process of their own, without Streamlit: up in a second or two.

python -m tests.pages.review_server HOME PORT
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.browser.conftest import ROOT, Server

PATIENCE_SECONDS = 60.0


def start(home: Path, *, port: int) -> Server:
    """Start it and wait until it answers."""
    with (home / "routes.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.pages.review_server", str(home), str(port)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ),
        )  # fmt: skip
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=2):
                return Server(url, home, process)
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise AssertionError(f"the routes did not start:\n{(home / 'routes.log').read_text()[-3000:]}")


def main() -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from core.settings import Settings
    from db import service
    from pages._review.routes import ROUTES

    home, port = Path(sys.argv[1]), int(sys.argv[2])

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        service.start(Settings(home=home, data_roots=()))
        yield
        service.stop()

    ready = Route("/ready", lambda _request: PlainTextResponse("ready"))
    uvicorn.run(Starlette(routes=[ready, *ROUTES], lifespan=lifespan), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main()
