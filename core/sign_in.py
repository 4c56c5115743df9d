"""Who somebody is: identities, signed tokens, and where a server may listen without sign-in. Pure but for the key file.

A token is ``base64url(payload).base64url(HMAC-SHA256 of the payload)`` with the key of this installation. It says who
somebody is and until when, never what they may do: roles are looked up at each use.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import ipaddress
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import NotAllowedError, SettingsError

KEY_BYTES = 32
MOST_NAME_CHARACTERS = 60
MOST_TOKEN_CHARACTERS = 4000
API_SECONDS = 24 * 3600
"""How long the token of a component is good for: longer than a working day."""
NAME_SECONDS = 180 * 24 * 3600
"""How long a browser keeps the name that was given in it."""

NAMES, PROVIDER = "name", "sign-in"
"""Where an identity comes from: a name that somebody gave, or the sign-in of a provider."""

OPEN = "anyone who reaches this server may change everything"
"""What ASSAY_OPEN must say, word for word, to serve other machines without sign-in."""


@dataclass(frozen=True)
class Known:
    """A person whom a token or a sign-in names. ``source``: ``NAMES`` or ``PROVIDER``."""

    identity: str
    name: str
    source: str


def signing_key(path: Path) -> bytes:
    """The key of an installation, made on first use with read and write for its owner only.

    Raises:
        SettingsError: the file cannot be read or written, or is no key.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(KEY_BYTES))
            with contextlib.suppress(FileExistsError):  # somebody else was first: theirs is the key
                os.link(fresh, path)
            fresh.unlink()
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        key = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"The key of this installation, {path}, cannot be used: {error.strerror}.") from error
    if len(key) != KEY_BYTES:
        raise SettingsError(
            f"{path} is no key of {KEY_BYTES} bytes. Delete it and start again: everybody signs in once more then."
        )
    return key


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _signature(payload: str, *, key: bytes) -> str:
    return _encode(hmac.new(key, payload.encode("ascii"), hashlib.sha256).digest())


def key_name(key: bytes) -> str:
    """Eight letters that tell one installation's key from another's, without telling the key."""
    return hashlib.sha256(b"name of the key" + key).hexdigest()[:8]


def issue(known: Known, *, purpose: str, key: bytes, expires: float) -> str:
    """A token for ``purpose`` that holds until ``expires`` (seconds since 1970)."""
    content = {"p": purpose, "i": known.identity, "n": known.name, "s": known.source, "e": int(expires)}
    payload = _encode(json.dumps(content, ensure_ascii=False).encode("utf-8"))
    return f"{payload}.{_signature(payload, key=key)}"


def read(token: str, *, purpose: str, key: bytes, now: float) -> Known:
    """Whom a token names.

    Raises:
        NotAllowedError: it is not ours, was made for something else, or has expired.
    """
    again = "Reload the page to go on; nothing was changed."
    payload, _, signature = token.partition(".")
    genuine = (
        len(token) <= MOST_TOKEN_CHARACTERS
        and token.isascii()
        and hmac.compare_digest(_signature(payload, key=key), signature)
    )
    if not genuine:
        raise NotAllowedError(f"This request carries no token of this server. {again}")
    try:
        content = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        known = Known(str(content["i"]), str(content["n"]), str(content["s"]))
        made_for, expires = content["p"], float(content["e"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:  # signed by us, in a form of another version
        raise NotAllowedError(f"This token is of another version of Assay. {again}") from error
    if made_for != purpose:
        raise NotAllowedError(f"This token was made for something else. {again}")
    if expires <= now:
        raise NotAllowedError(f"This token has expired. {again}")
    return known


def clean_name(text: str) -> str:
    """A name as it is kept: without control characters, single spaces, at most 60 characters."""
    shown = "".join(one if one.isprintable() else " " for one in text)
    return " ".join(shown.split())[:MOST_NAME_CHARACTERS].rstrip()


def typed_identity(text: str, *, source: str) -> str:
    """The identity that somebody means who types it: a name, an e-mail in any case, or an ``issuer|subject``."""
    if source == NAMES:
        return clean_name(text)
    clean = " ".join(text.split())
    return clean if "|" in clean else clean.lower()


def known_by_claims(claims: Mapping[str, Any]) -> Known | None:
    """Who an ID token names: the e-mail where the provider verified it, else ``issuer|subject``; None: nobody.

    An e-mail that is not verified (OpenID Connect Core 1.0, 5.1 ``email_verified``) is what somebody typed, and would
    let them be another person here. A claim that is absent counts as not verified.
    """
    email, verified = str(claims.get("email") or "").strip().lower(), claims.get("email_verified")
    issuer, subject = str(claims.get("iss") or ""), str(claims.get("sub") or "")
    if email and "@" in email and verified in (True, "true"):
        identity = email
    elif issuer and subject:
        identity = f"{issuer}|{subject}"
    else:
        return None
    name = clean_name(str(claims.get("name") or claims.get("preferred_username") or email or subject))
    return Known(identity, name or identity, PROVIDER)


def is_loopback(address: str | None) -> bool:
    """Whether an address to listen on, or of a peer, is this machine only. None and "" mean all interfaces."""
    if not address:
        return False
    host = address.strip().strip("[]").lower()
    if host == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def host_of(netloc: str) -> str:
    """The host of ``host:port`` as a browser sends it: ``[::1]:8501`` -> ``::1``."""
    clean = netloc.strip().lower()
    if clean.startswith("["):
        return clean[1:].partition("]")[0]
    return clean.partition(":")[0]


def listening_problem(address: str | None, *, has_provider: bool, is_open: bool) -> str | None:
    """Why a server must not start on ``address``, with the ways out; None: it may."""
    if has_provider or is_open or is_loopback(address):
        return None
    where = f"at {address}" if address else "on all network interfaces (server.address is empty)"
    return (
        f"this server would listen {where} without sign-in, so anyone who reaches it could take any name. Choose one "
        "of three: listen on this machine only (--server.address 127.0.0.1, and a tunnel such as ssh -L for others); "
        "set up sign-in ([auth] in .streamlit/secrets.toml, see the README); or accept it in plain words with "
        f'ASSAY_OPEN="{OPEN}".'
    )
