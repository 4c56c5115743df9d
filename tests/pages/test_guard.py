"""What never reaches a page or a route: other machines, other host names, other sites."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from pages import _guard
from pages._guard import Rules, refusal

NAMES = Rules(loopback_only=True)
SIGN_IN = Rules(loopback_only=False, origins=frozenset({"https://assay.lab.example"}))
HERE = "localhost:8501"


@pytest.mark.parametrize(
    ("rules", "path", "peer", "host", "origin", "says"),
    [
        (NAMES, "/", "127.0.0.1", HERE, "", None),
        (NAMES, "/api/x", "::1", "[::1]:8501", "http://[::1]:8501", None),
        (NAMES, "/", None, HERE, "", None),  # a socket without an address
        (NAMES, "/", "192.0.2.7", HERE, "", "its own machine only"),
        (NAMES, "/", "127.0.0.1", "evil.example", "", "not to evil.example"),  # a name that was pointed at 127.0.0.1
        (NAMES, "/", "127.0.0.1", "127.0.0.1.evil.example:8501", "", "not to 127.0.0.1.evil.example"),
        (NAMES, "/", "127.0.0.1", "", "", "without a host"),
        (NAMES, "/api/x", "127.0.0.1", HERE, "https://evil.example", "another site"),
        (NAMES, "/api/x", "127.0.0.1", HERE, "http://localhost:9999", "another site"),
        (NAMES, "/api/x", "127.0.0.1", HERE, "null", "another site"),
        (SIGN_IN, "/", "192.0.2.7", "assay.lab.example", "", None),
        (SIGN_IN, "/api/x", "10.0.0.2", "internal:8501", "https://assay.lab.example", None),  # behind a proxy
        (SIGN_IN, "/api/x", "10.0.0.2", "internal:8501", "https://evil.example", "another site"),
        (SIGN_IN, "/base/api/x", "10.0.0.2", "internal:8501", "https://evil.example", "another site"),
    ],
)
def test_who_is_answered(rules: Rules, path: str, peer: str | None, host: str, origin: str, says: str | None) -> None:
    found = refusal(rules, path=path, peer=peer, host=host, origin=origin)
    assert (found is None) if says is None else (found is not None and says in found)


def test_a_refused_request_gets_the_sentence_and_never_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "_rules", NAMES)
    inside = Starlette(
        routes=[Route("/api/x", lambda _request: PlainTextResponse("in"), methods=["GET", "POST"])],
        middleware=[Middleware(_guard.Guard)],
    )
    client = TestClient(inside, base_url="http://127.0.0.1:8501", client=("127.0.0.1", 5000))
    assert client.get("/api/x").text == "in"
    refused = client.post("/api/x", headers={"Origin": "https://evil.example"})
    assert refused.status_code == 403
    assert "another site" in refused.json()["error"]
