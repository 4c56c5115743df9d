"""What is refused before any page or route sees it: requests from elsewhere where names are taken without passwords.

A server on loopback is reached by any site that a browser on the machine has open: by a form or a fetch (the Origin
tells), or by a host name that was pointed at 127.0.0.1 (DNS rebinding; the Host tells).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.sign_in import host_of, is_loopback

API = "/api/"


@dataclass(frozen=True)
class Rules:
    """``loopback_only``: names without passwords. ``origins``: of the address by which people reach the server."""

    loopback_only: bool = True
    origins: Collection[str] = ()


_rules = Rules()


def use(rules: Rules) -> None:
    """Say which rules hold; the server does this when it starts."""
    global _rules
    _rules = rules


def refusal(rules: Rules, *, path: str, peer: str | None, host: str, origin: str) -> str | None:
    """Why a request is refused, as a sentence, or None. ``peer`` is the address it came from, None where unknown."""
    if rules.loopback_only and peer is not None and not is_loopback(peer):
        return "This server takes names without passwords, so it answers its own machine only."
    if rules.loopback_only and not is_loopback(host_of(host)):
        return (
            f"This server takes names without passwords, so it answers to localhost and 127.0.0.1 only, not to "
            f"{host_of(host)[:80] or 'a request without a host'}."
        )
    if API in path and origin and urlsplit(origin).netloc.lower() != host.lower() and origin not in rules.origins:
        return "This request comes from another site. Nothing was changed."
    return None


class Guard:
    """Refuses what :func:`refusal` names; everything else passes."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before ``app``."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or close the socket before it opens."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"host", b"origin")}
        client = scope.get("client")
        problem = refusal(
            _rules,
            path=scope["path"],
            peer=client[0] if client else None,
            host=headers.get(b"host", ""),
            origin=headers.get(b"origin", ""),
        )
        if problem is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await JSONResponse({"error": problem}, status_code=403)(scope, receive, send)
