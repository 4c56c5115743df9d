"""Who sits at this session, and who stands behind a request: nothing is drawn here.

With a provider ([auth] in secrets.toml) that is who signed in; without one, the name that was given in this browser.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from core import sign_in
from core.errors import AssayError, NotAllowedError, StoreError
from core.settings import Settings
from core.sign_in import NAMES, PROVIDER, Known
from db import people, permission, service
from db.permission import Actor

NAME = "reviewer_name"
"""Key of the session state that holds the name given in this session."""
SEEN = "person_seen"
KEEP, API = "keep a name", "api"
NOBODY = Actor(identity="", name="Somebody who is not signed in", role="none")


# Settled at server start: a secrets.toml that is broken while the server runs must not turn sign-in off.
_settled: tuple[str, ...] | None = None


def settle(names: Sequence[str] | None) -> None:
    """Hold to these providers until the server ends; None: look again at each call."""
    global _settled
    _settled = None if names is None else tuple(names)


def providers() -> list[str]:
    """The names of the configured providers; "" is the one that stands in [auth] itself. Empty: no sign-in."""
    if _settled is not None:
        return list(_settled)
    if not st.secrets.load_if_toml_exists():
        return []
    section = st.secrets.get("auth")
    if not isinstance(section, Mapping):
        return []
    named = [str(key) for key, value in section.items() if isinstance(value, Mapping) and "client_id" in value]
    return ([""] if "client_id" in section else []) + sorted(named)


def provider_problem() -> str | None:
    """What is missing in [auth], or None. Asked at server start, so that nobody meets it at the sign-in."""
    if not st.secrets.load_if_toml_exists():
        there = [str(one) for one in st.get_option("secrets.files") if Path(one).is_file()]
        return f"{there[0]} cannot be read as TOML, so nobody knows whether it sets up sign-in." if there else None
    if "auth" not in st.secrets:
        return None
    section = st.secrets["auth"]
    needed = {"redirect_uri": section, "cookie_secret": section}
    for name in providers() or [""]:
        one = section[name] if name else section
        needed |= {f"{name}.{key}".lstrip("."): one for key in ("client_id", "client_secret", "server_metadata_url")}
    missing = [key for key, holder in needed.items() if not holder.get(key.rpartition(".")[2])]
    if missing:
        return f"[auth] in secrets.toml has no {', '.join(missing)}; the README says what sign-in needs."
    if len(str(section["cookie_secret"])) < 32:
        return "cookie_secret in secrets.toml has under 32 characters: anyone who guesses it can be anybody here."
    return None


def public_origins() -> frozenset[str]:
    """The origin by which people reach a server with sign-in, which a proxy before it may hide from the Host."""
    if not providers():
        return frozenset()
    found = urlsplit(str(st.secrets["auth"].get("redirect_uri", "")))
    return frozenset({f"{found.scheme}://{found.netloc}"} if found.netloc else ())


def source() -> str:
    """Where identities come from in this installation: ``PROVIDER`` or ``NAMES``."""
    return PROVIDER if providers() else NAMES


def default_role(settings: Settings) -> str:
    """The role of a person whom nobody gave one."""
    return settings.default_role or ("none" if source() == PROVIDER else "admin")


@functools.lru_cache(maxsize=4)
def _key(path: Path) -> bytes:
    return sign_in.signing_key(path)


def _service() -> service.Service | None:
    try:
        return service.current()
    except StoreError:
        return None


def actor_of(known: Known) -> Actor:
    """A person with the role of this moment.

    Raises:
        StoreError: the server is still starting.
    """
    running = service.current()
    return people.actor(
        running.store,
        known.identity,
        known.name,
        default=default_role(running.settings),
        admins=running.settings.admins,
    )


def cookie_name() -> str:
    """The name of the cookie that keeps a name: cookies know no ports, and two installations may share a host."""
    return f"assay_name_{sign_in.key_name(_key(service.current().settings.key_path))}"


def kept_name() -> str:
    """The name that this browser kept from an earlier session, or ""."""
    running = _service()
    cookie = st.context.cookies.get(cookie_name()) if running is not None else None
    if running is None or not isinstance(cookie, str):
        return ""
    try:
        known = sign_in.read(cookie, purpose=KEEP, key=_key(running.settings.key_path), now=time.time())
    except NotAllowedError:
        return ""
    return known.identity if known.source == NAMES else ""


def name_token(name: str) -> str:
    """What the cookie of a kept name holds."""
    key = _key(service.current().settings.key_path)
    return sign_in.issue(Known(name, name, NAMES), purpose=KEEP, key=key, expires=time.time() + sign_in.NAME_SECONDS)


def known() -> Known | None:
    """Whom this session names, whatever the role; None: not signed in, or no name given yet."""
    if source() == PROVIDER:
        claims: dict[str, Any] = dict(st.user.to_dict())
        return sign_in.known_by_claims(claims) if claims.get("is_logged_in") else None
    if NAME not in st.session_state:
        st.session_state[NAME] = kept_name()
    name = sign_in.clean_name(str(st.session_state[NAME]))
    return Known(name, name, NAMES) if name else None


def who() -> Actor | None:
    """Who sits at this session; None: nobody yet. The first call of a session keeps the person in the store."""
    found = known()
    running = _service()
    if found is None or running is None:
        return None
    if st.session_state.get(SEEN) != found:
        st.session_state[SEEN] = found
        people.see(running.store, found.identity, found.name, found.source)
    return actor_of(found)


def api_token() -> str:
    """A token for the requests of a component, good for a day; "" where nobody sits here."""
    found, running = known(), _service()
    if found is None or running is None:
        return ""
    expires = time.time() + sign_in.API_SECONDS
    return sign_in.issue(found, purpose=API, key=_key(running.settings.key_path), expires=expires)


def actor_of_token(token: str) -> Actor:
    """Who stands behind a request, with the role of this moment.

    Raises:
        NotAllowedError: the token is not ours, has expired, or is of a time when names came from elsewhere.
        StoreError: the server is still starting.
    """
    key = _key(service.current().settings.key_path)
    found = sign_in.read(str(token), purpose=API, key=key, now=time.time())
    if found.source != source():
        raise NotAllowedError("This token is of a time before sign-in was changed. Reload the page to go on.")
    return actor_of(found)


def _resolve() -> Actor | None:
    """Who acts in this thread: a page's run acts for who sits there, any other thread for the server."""
    if get_script_run_ctx(suppress_warning=True) is None:
        return None
    try:
        found = who()
        running = _service()
    except AssayError:
        return NOBODY
    if found is not None:
        return found
    if running is None or source() == PROVIDER:
        return NOBODY
    return Actor(identity="", name="Somebody without a name", role=default_role(running.settings))


permission.set_resolver(_resolve)
