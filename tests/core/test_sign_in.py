"""Identities and signed tokens: what is forged, stale or made for something else names nobody."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from core import sign_in
from core.errors import NotAllowedError, SettingsError
from core.settings import load_settings
from core.sign_in import NAMES, PROVIDER, Known

ADA = Known("ada@lab.example", "Ada Lovelace", PROVIDER)
KEY = bytes(range(32))


def token(known: Known = ADA, *, purpose: str = "api", key: bytes = KEY, expires: float = 100.0) -> str:
    return sign_in.issue(known, purpose=purpose, key=key, expires=expires)


def test_a_token_names_who_it_was_made_for_until_it_expires() -> None:
    odd = Known("Ünal | \u202e<b>", 'A "quoted" \\ name', NAMES)
    assert sign_in.read(token(odd), purpose="api", key=KEY, now=99.9) == odd
    with pytest.raises(NotAllowedError, match="expired"):
        sign_in.read(token(), purpose="api", key=KEY, now=100.0)


def test_a_token_of_another_purpose_or_key_names_nobody() -> None:
    """The cookie that keeps a name must not open the API, nor one installation's token another's."""
    with pytest.raises(NotAllowedError, match="something else"):
        sign_in.read(token(purpose="keep a name"), purpose="api", key=KEY, now=0)
    with pytest.raises(NotAllowedError, match="no token"):
        sign_in.read(token(key=b"x" * 32), purpose="api", key=KEY, now=0)


def forged() -> str:
    """Another person's payload under Ada's signature."""
    payload, _, signature = token().partition(".")
    content = json.loads(base64.urlsafe_b64decode(payload + "==")) | {"i": "grace@lab.example"}
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=") + "." + signature


@pytest.mark.parametrize(
    "wrong",
    ["", ".", "a.b", token()[:-1], token() + "A", token().upper(), "é" + token(), token() + "=" * 5000, forged()],
)
def test_what_was_touched_is_no_token(wrong: str) -> None:
    with pytest.raises(NotAllowedError, match="carries no token of this server"):
        sign_in.read(wrong, purpose="api", key=KEY, now=0)


def test_the_key_is_made_once_for_its_owner_only_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "home" / "session.key"
    key = sign_in.signing_key(path)
    assert len(key) == 32
    assert sign_in.signing_key(path) == key
    path.chmod(0o644)  # a copy or a backup that widened it
    sign_in.signing_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["session.key"]
    path.write_bytes(b"short")
    with pytest.raises(SettingsError, match="Delete it"):
        sign_in.signing_key(path)


@pytest.mark.parametrize(
    ("claims", "identity"),
    [
        ({"email": "Ada@Lab.example", "email_verified": True, "iss": "https://i", "sub": "1"}, "ada@lab.example"),
        ({"email": "ada@lab.example", "email_verified": "true", "iss": "https://i", "sub": "1"}, "ada@lab.example"),
        ({"email": "ada@lab.example", "email_verified": False, "iss": "https://i", "sub": "1"}, "https://i|1"),
        ({"email": "ada@lab.example", "iss": "https://i", "sub": "1"}, "https://i|1"),
        ({"email": "no address", "email_verified": True, "iss": "https://i", "sub": "1"}, "https://i|1"),
        ({"email": "ada@lab.example"}, None),
        ({}, None),
    ],
)
def test_only_a_verified_email_makes_somebody_that_person(claims: dict[str, object], identity: str | None) -> None:
    known = sign_in.known_by_claims(claims)
    assert (known and known.identity) == identity


def test_a_name_is_kept_without_what_would_hide_in_it() -> None:
    assert sign_in.clean_name("  Ada \n\t Lovelace\u202e\x00 ") == "Ada Lovelace"
    assert sign_in.clean_name("x" * 100) == "x" * 60
    assert sign_in.clean_name(" \u200b\n") == ""


def test_who_is_typed_is_who_signs_in() -> None:
    """An admin wrote Ada@Lab.example into a campaign, and ada@lab.example, as sign-in has it, was not in it."""
    claims = {"email": "Ada@Lab.example", "email_verified": True}
    known = sign_in.known_by_claims(claims)
    assert known is not None
    assert sign_in.typed_identity(" Ada@Lab.example ", source=sign_in.PROVIDER) == known.identity
    unverified = sign_in.known_by_claims({"iss": "https://i", "sub": "Xy"})
    assert unverified is not None
    assert sign_in.typed_identity("https://i|Xy", source=sign_in.PROVIDER) == unverified.identity
    assert sign_in.typed_identity(" Ada  Lovelace", source=sign_in.NAMES) == "Ada Lovelace"


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True), ("[::1]", True),
        ("::ffff:127.0.0.1", True), (None, False), ("", False), ("0.0.0.0", False), ("::", False),
        ("192.0.2.7", False), ("localhost.evil.example", False), ("127.0.0.1.evil.example", False),
    ],
)  # fmt: skip
def test_what_listens_on_this_machine_only(address: str | None, loopback: bool) -> None:
    assert sign_in.is_loopback(address) is loopback
    problem = sign_in.listening_problem(address, has_provider=False, is_open=False)
    assert (problem is None) is loopback
    if problem:
        assert all(way in problem for way in ("127.0.0.1", "secrets.toml", f'ASSAY_OPEN="{sign_in.OPEN}"'))
    assert sign_in.listening_problem(address, has_provider=True, is_open=False) is None
    assert sign_in.listening_problem(address, has_provider=False, is_open=True) is None


@pytest.mark.parametrize(
    ("netloc", "host"), [("a:80", "a"), ("A", "a"), ("[::1]:8501", "::1"), ("[::1]", "::1"), ("", "")]
)
def test_the_host_of_a_request(netloc: str, host: str) -> None:
    assert sign_in.host_of(netloc) == host


def test_openness_takes_the_whole_sentence() -> None:
    assert load_settings({"ASSAY_OPEN": sign_in.OPEN}).is_open
    assert not load_settings({}).is_open
    for words in ("1", "true", "yes", sign_in.OPEN.upper()):
        with pytest.raises(SettingsError, match="takes effect only as"):
            load_settings({"ASSAY_OPEN": words})


def test_admins_and_the_default_role_come_from_the_environment() -> None:
    found = load_settings({"ASSAY_ADMINS": " Ada@Lab.example ,, grace@lab.example", "ASSAY_DEFAULT_ROLE": "viewer"})
    assert found.admins == {"ada@lab.example", "grace@lab.example"}
    assert found.default_role == "viewer"
    assert load_settings({}).default_role is None
    with pytest.raises(SettingsError, match="ASSAY_DEFAULT_ROLE"):
        load_settings({"ASSAY_DEFAULT_ROLE": "owner"})
