"""A small OpenID Connect provider that really is one: code flow with PKCE, RSA-signed ID tokens, one click to sign in.

``with provider() as running`` serves it on localhost; the people on its page are :data:`PEOPLE`. What a client gets
wrong (secret, redirect address, code, verifier) is refused, as a provider in the world does.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

PEOPLE: tuple[Mapping[str, Any], ...] = (
    {"sub": "1001", "email": "ada@lab.example", "email_verified": True, "name": "Ada Lovelace"},
    {"sub": "1002", "email": "grace@lab.example", "email_verified": True, "name": "Grace Hopper"},
    {"sub": "1003", "email": "alan@lab.example", "email_verified": True, "name": "Alan Turing"},
    {"sub": "1004", "email": "ada@lab.example", "email_verified": False, "name": "Ada Lovelace (says she)"},
)
"""Admin, reviewer and viewer of the walks, and one who typed another's e-mail."""

CODE_SECONDS = 60.0


@dataclass
class Provider:
    """A running provider, what a client needs to know of it, and what was asked of it (``requests``: paths)."""

    url: str
    client_id: str
    client_secret: str
    requests: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Grant:
    person: Mapping[str, Any]
    redirect_uri: str
    nonce: str
    challenge: str
    expires: float


class _RefusedError(Exception):
    pass


class _Endpoints:
    """The routes over one provider's keys, codes and access tokens."""

    def __init__(self, provider: Provider, people: Sequence[Mapping[str, Any]]) -> None:
        self.provider, self.people = provider, people
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"}, private=True)
        self.codes: dict[str, _Grant] = {}
        self.tokens: dict[str, Mapping[str, Any]] = {}

    def routes(self) -> list[Route]:
        return [
            Route("/.well-known/openid-configuration", self.discovery),
            Route("/jwks", self.jwks),
            Route("/authorize", self.authorize),
            Route("/token", self.token, methods=["POST"]),
            Route("/userinfo", self.userinfo),
        ]

    async def discovery(self, _request: Request) -> Response:
        url = self.provider.url
        return JSONResponse(
            {
                "issuer": url,
                "authorization_endpoint": f"{url}/authorize",
                "token_endpoint": f"{url}/token",
                "userinfo_endpoint": f"{url}/userinfo",
                "jwks_uri": f"{url}/jwks",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": ["openid", "profile", "email"],
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                "code_challenge_methods_supported": ["S256"],
            }
        )

    async def jwks(self, _request: Request) -> Response:
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})

    async def authorize(self, request: Request) -> Response:
        """The page with the people; a click comes back here with ``person`` and gets a code."""
        asked = dict(request.query_params)
        self.provider.requests.append("/authorize")
        if asked.get("client_id") != self.provider.client_id or not asked.get("redirect_uri"):
            return HTMLResponse("Unknown client.", status_code=400)
        if asked.get("code_challenge_method") != "S256" or not asked.get("nonce") or not asked.get("state"):
            return HTMLResponse("PKCE, nonce and state are needed.", status_code=400)
        if "person" not in asked:
            links = "".join(
                f'<p><a href="/authorize?{html.escape(urlencode({**asked, "person": one["sub"]}))}">'
                f"{html.escape(one['name'])}</a></p>"
                for one in self.people
            )
            return HTMLResponse(f"<title>Example provider</title><h1>Who are you?</h1>{links}")
        person = next(one for one in self.people if one["sub"] == asked["person"])
        code = secrets.token_urlsafe(24)
        self.codes[code] = _Grant(
            person, asked["redirect_uri"], asked["nonce"], asked["code_challenge"], time.monotonic() + CODE_SECONDS
        )
        back = urlencode({"code": code, "state": asked["state"]})
        return RedirectResponse(f"{asked['redirect_uri']}?{back}", status_code=302)

    async def token(self, request: Request) -> Response:
        form = {key: str(value) for key, value in (await request.form()).items()}
        self.provider.requests.append("/token")
        try:
            grant = self._redeem(form, request.headers.get("authorization", ""))
        except _RefusedError as error:
            return JSONResponse({"error": "invalid_grant", "error_description": str(error)}, status_code=400)
        now = int(time.time())
        claims = {
            **grant.person,
            **{"iss": self.provider.url, "aud": self.provider.client_id, "nonce": grant.nonce},
            **{"iat": now, "exp": now + 3600},
        }
        access = secrets.token_urlsafe(24)
        self.tokens[access] = grant.person
        return JSONResponse(
            {
                "access_token": access,
                "token_type": "Bearer",
                "expires_in": 3600,
                "id_token": jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key),
            }
        )

    def _redeem(self, form: Mapping[str, str], authorization: str) -> _Grant:
        given = (form.get("client_id", ""), form.get("client_secret", ""))
        if authorization.startswith("Basic "):
            user, _, password = base64.b64decode(authorization[6:]).decode().partition(":")
            given = (user, password)
        if given != (self.provider.client_id, self.provider.client_secret):
            raise _RefusedError("wrong client")
        grant = self.codes.pop(form.get("code", ""), None)  # a code is good once
        if grant is None or grant.expires < time.monotonic():
            raise _RefusedError("unknown code")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != grant.challenge:
            raise _RefusedError("wrong verifier")
        if form.get("redirect_uri") != grant.redirect_uri:
            raise _RefusedError("another redirect address")
        return grant

    async def userinfo(self, request: Request) -> Response:
        person = self.tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        return JSONResponse(person) if person is not None else JSONResponse({"error": "invalid_token"}, status_code=401)


@contextmanager
def provider(port: int | None = None, *, people: Sequence[Mapping[str, Any]] = PEOPLE) -> Iterator[Provider]:
    """Serve a provider for the length of the block, in a thread of this process."""
    running = Provider("", "assay", secrets.token_urlsafe(24))
    endpoints = _Endpoints(running, people)
    config = uvicorn.Config(
        Starlette(routes=endpoints.routes()), host="127.0.0.1", port=port or 0, log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            if time.monotonic() > deadline or not thread.is_alive():
                raise RuntimeError("the provider did not start")
            time.sleep(0.02)
        running.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield running
    finally:
        server.should_exit = True
        thread.join(10)


def write_secrets(folder: Path, running: Provider, redirect_uri: str) -> Path:
    """Write ``secrets.toml`` into ``folder`` as a client of ``running``; returns its path.

    A server takes it by STREAMLIT_SECRETS_FILES, which keeps it out of the checkout.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "secrets.toml"
    settings = {
        "redirect_uri": redirect_uri,
        "cookie_secret": secrets.token_hex(32),
        "client_id": running.client_id,
        "client_secret": running.client_secret,
        "server_metadata_url": f"{running.url}/.well-known/openid-configuration",
    }
    path.write_text("[auth]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    path.chmod(0o600)
    return path
