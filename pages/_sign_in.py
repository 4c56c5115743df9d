"""Sign-in as people see it: the page before it, the form for a name, and who one is, at the foot of the sidebar."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import streamlit as st

from core import sign_in
from core.errors import AssayError
from core.sign_in import NAMES, PROVIDER
from db import people
from db.permission import Actor
from pages import _ui, _who
from pages._who import who

ROLE_WORDS: Mapping[str, str] = {
    "none": "signed in, sees nothing yet",
    "viewer": "sees everything, changes nothing",
    "reviewer": "decides pairs, judges, votes, keeps filters and drafts",
    "admin": "everything: data, jobs, campaigns, bulk decisions, exports, roles",
}
_PICTURE = Path(__file__).parent / "pictures" / "icon.png"
_KEEP = """export default function ({ data }) {
  const value = data.here ? encodeURIComponent(location.pathname + location.search) : data.value;
  document.cookie = `${data.name}=${value}; path=/; max-age=${data.seconds}; samesite=lax`;
}"""
WANTED, WANTED_SECONDS = "assay_wanted", 600
"""The cookie with the page that was asked for before the sign-in, which comes back to the first page only."""
RETURNED = "returned_to_wanted"


def ask_name(purpose: str, *, button: str | None = None) -> None:
    """Ask once who this is, where no provider says it; the rest of the page waits. ``purpose``: "reviewing"."""
    if _who.known() is not None:
        return
    known = sorted(people.names(_ui.current_service().store).values())
    with st.container(border=True, width=620), st.form("ask_name", border=False):
        st.markdown(f"**Who is {purpose}?** Your name is kept with all that you decide, and in this browser.")
        name = st.text_input("Your name", max_chars=sign_in.MOST_NAME_CHARACTERS, placeholder="Ada Lovelace")
        if known:
            st.caption(_ui.plain(f"People so far: {', '.join(known[:12])}."))
        given = st.form_submit_button(button or f"Start {purpose}", type="primary", icon=":material/play_arrow:")
    if given and sign_in.clean_name(name):
        st.session_state[_who.NAME] = sign_in.clean_name(name)
        st.rerun()
    if given:
        st.error("Write a name first; decisions are kept under it.")
    st.stop()


def is_admitted() -> bool:
    """Whether who sits here may see pages: signed in where there is a provider, and with a role."""
    here = who()
    return _who.source() == NAMES if here is None else here.role != "none"


def show_door() -> None:
    """What stands in place of every page for those who are not admitted."""
    here = who()
    with st.container(horizontal_alignment="center"), st.container(width=420, key="assay-card", gap="small"):
        st.image(str(_PICTURE), width=56)
        if here is None:
            _login()
            _keep(WANTED, "", seconds=WANTED_SECONDS, here=True)
        else:
            _waiting(here)


def show_who() -> None:
    """Name and role in the sidebar; a name that was given is kept in the browser."""
    _keep_name()
    with st.sidebar:
        _who_one_is(who())


def show_refusal(error: AssayError) -> None:
    """What the role of who acts does not allow, in words."""
    st.error(_ui.plain(str(error)), icon=":material/lock:")


def _login() -> None:
    """One button for each provider."""
    st.title("Assay", anchor=False)
    st.markdown("Curate instruction-tuning data together: score, learn, select, reflect, review.")
    providers = _who.providers()
    for name in providers:
        st.button(
            f"Sign in with {_ui.plain(name.capitalize())}" if name else "Sign in",
            type="primary" if name == providers[0] else "secondary",
            width="stretch", icon=":material/login:", key=f"sign-in-{name}",
            on_click=st.login, args=(name or None,),
        )  # fmt: skip
    st.caption("Your e-mail becomes your name here: it is kept with what you decide. No password comes to Assay.")


def _waiting(here: Actor) -> None:
    """Signed in without a role: whom to ask, with what."""
    st.title("You have no access yet", anchor=False)
    st.markdown(f"You are signed in as **{_ui.plain(here.name)}**. An admin gives you a role on the page People.")
    st.caption("Send this to an admin:")
    st.code(here.identity, language=None, wrap_lines=True)
    admins = _admins()
    if admins:
        st.markdown("Admins: " + ", ".join(_ui.plain(one) for one in admins))
    else:
        st.warning(
            "There is no admin yet. Whoever runs this server starts it with ASSAY_ADMINS set to the e-mail of the "
            "first one."
        )
    with st.container(horizontal=True):
        st.button("Look again", icon=":material/refresh:", type="primary")
        _leave_button()


def _admins() -> list[str]:
    service = _ui.current_service()
    names = people.names(service.store)
    granted = {one["identity"] for one in people.people(service.store) if one["role"] == "admin"}
    return sorted(names.get(one, one) for one in granted | set(service.settings.admins))


def _leave_button() -> None:
    if _who.source() == PROVIDER:
        st.button("Log out", icon=":material/logout:", on_click=st.logout, key="log-out")
    else:
        st.button("Be somebody else", icon=":material/logout:", on_click=_forget_name, key="log-out")


def _forget_name() -> None:
    st.session_state[_who.NAME] = ""


def _take_name() -> None:
    name = sign_in.clean_name(str(st.session_state["session_name"]))
    if name:
        st.session_state[_who.NAME] = name


def _who_one_is(here: Actor | None) -> None:
    """Name and role, with the way out, below the navigation."""
    label = "No name given" if here is None else f"{_ui.plain(here.name)} · {here.role}"
    with st.popover(label, icon=":material/person:", type="tertiary", width="stretch", key="who-one-is"):
        if here is not None:
            st.caption(_ui.plain(f"{here.role}: {ROLE_WORDS[here.role]}."))
        if _who.source() == NAMES:
            st.session_state["session_name"] = "" if here is None else here.name
            st.text_input(
                "Work under the name", key="session_name", max_chars=sign_in.MOST_NAME_CHARACTERS, on_change=_take_name
            )
            st.caption("Names are not verified here; this browser keeps yours.")
        else:
            st.caption(_ui.plain(here.identity if here is not None else ""))
        if here is not None:
            _leave_button()


@functools.cache
def _keeper() -> Callable[..., Any]:
    return st.components.v2.component("assay_cookie", html="<span></span>", js=_KEEP)


def _keep(name: str, value: str, *, seconds: int, here: bool = False) -> None:
    """Have the browser keep a cookie, for 0 seconds: drop it. ``here``: its value is the address of this page."""
    # A key must not hold "__", which one token in a hundred does.
    mark = hashlib.sha256(value.encode()).hexdigest()[:12]
    with st.container(key=f"assay-keeper-{name}"):
        _keeper()(key=f"{name}-{mark}", data={"name": name, "value": value, "seconds": seconds, "here": here})


def _keep_name() -> None:
    """Have the browser keep the name of this session, where it keeps another or none."""
    if _who.source() != NAMES:
        return
    name = sign_in.clean_name(str(st.session_state.get(_who.NAME, "")))
    if name != _who.kept_name():
        _keep(_who.cookie_name(), _who.name_token(name) if name else "", seconds=sign_in.NAME_SECONDS if name else 0)


def return_to_wanted(pages: Iterable[st.Page], shown: st.Page) -> None:
    """After a sign-in, which ends at the first page: go to the page that was asked for before it, once."""
    wanted = st.context.cookies.get(WANTED)
    if _who.source() != PROVIDER or not isinstance(wanted, str) or not wanted:
        return
    if RETURNED not in st.session_state:
        st.session_state[RETURNED] = True
        address = urlsplit(unquote(wanted))
        path = address.path.strip("/").rpartition("/")[2]
        found = next((page for page in pages if path and page.url_path == path), None)
        if found is not None and not shown.url_path:
            st.switch_page(found, query_params=dict(parse_qsl(address.query)))
    _keep(WANTED, "", seconds=0)
