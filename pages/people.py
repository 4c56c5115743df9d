"""People: who was here, what each may do, and who said so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core import sign_in
from core.errors import AssayError
from core.sign_in import NAMES, PROVIDER
from db import people
from db.permission import ROLES
from db.service import Service
from pages import _sign_in, _ui, _who

LIST, PERSON, ROLE, NEW = "people-list", "people-person", "people-role", "people-new"
SAID = "people-said"


def _role(row: Mapping[str, Any], service: Service) -> str:
    """What holds for a person now: ASSAY_ADMINS, what was granted, or the default."""
    if str(row["identity"]).lower() in service.settings.admins:
        return "admin"
    return str(row["role"] or _who.default_role(service.settings))


def _because(row: Mapping[str, Any], service: Service) -> str:
    if str(row["identity"]).lower() in service.settings.admins:
        return "ASSAY_ADMINS"
    return "given" if row["role"] else "default"


def _table(found: Sequence[Mapping[str, Any]], service: Service) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "Name": row["name"],
                "Identity": row["identity"],
                "Role": _role(row, service),
                "Role by": _because(row, service),
                "Known by": row["source"] or "decisions only",
                "Last seen": row["last_seen_at"],
                "Decisions": row["n_decisions"],
                "Last decision": row["last_decision_at"],
            }
            for row in found
        ]
    )


def _how_it_works() -> None:
    """The roles in one line each, and how far an identity can be trusted here."""
    if _who.source() == NAMES:
        st.info(
            "No sign-in is set up, so names are not verified: anybody at this machine can work under any name, and "
            "everybody is admin unless a role below says otherwise. The README says how to set up sign-in.",
            icon=":material/lock_open:",
        )
    with st.expander("What the roles allow", icon=":material/info:"):
        st.markdown("\n".join(f"- **{role}**: {_ui.plain(_sign_in.ROLE_WORDS[role])}" for role in ROLES))
        st.caption(
            "The server asks for the role in every action, whatever a page shows. A changed role holds from the next "
            "action on."
        )


def _give(service: Service, identity: str, role: str) -> None:
    """A button's callback: it gets what was on screen when it was drawn."""
    try:
        people.grant(
            service.store, identity, role, _ui.reviewer() or None,
            default=_who.default_role(service.settings), admins=service.settings.admins,
        )  # fmt: skip
        st.session_state[SAID] = (True, f"{identity} is {role} now.")
    except AssayError as error:
        st.session_state[SAID] = (False, str(error))


def _say() -> None:
    said = st.session_state.pop(SAID, None)
    if said is not None:
        (st.success if said[0] else st.error)(_ui.plain(said[1]))


def _change(service: Service, row: Mapping[str, Any]) -> None:
    """Another role for the chosen person."""
    identity, now = str(row["identity"]), _role(row, service)
    with st.container(border=True):
        name = str(row["name"])
        st.markdown(f"**{_ui.plain(name)}**" + (f" · {_ui.plain(identity)}" if identity != name else ""))
        role = st.segmented_control(
            "Role",
            ROLES,
            default=now,
            required=True,
            key=f"{ROLE}-{identity}-{now}",
            disabled=not _ui.may("administer"),
        )
        st.caption(_ui.plain(f"{role}: {_sign_in.ROLE_WORDS[str(role)]}."))
        st.button(
            f"Make {_ui.plain(str(row['name']))} {role}" if role != now else f"Is {now} already",
            key=f"people-give-{identity}-{role}",
            type="primary",
            on_click=_give,
            args=(service, identity, str(role)),
            **_ui.allowed("administer", disabled=role == now),
        )


def _invite(service: Service) -> None:
    """A role for somebody who was not here yet."""
    with st.expander("Give a role to somebody who was not here yet", icon=":material/person_add:"):
        what = "E-mail, as the provider knows it" if _who.source() == PROVIDER else "Name"
        typed = st.text_input(what, key=NEW, max_chars=200)
        identity = sign_in.typed_identity(typed, source=_who.source())
        role = st.segmented_control("Their role", ROLES[1:], default="reviewer", required=True, key=f"{NEW}-role")
        st.button(
            "Give the role",
            on_click=_give,
            args=(service, identity, str(role)),
            key="people-invite",
            **_ui.allowed("administer", disabled=not identity, help=None if identity else "Write who it is first."),
        )


def _history(service: Service) -> None:
    changes = people.role_changes(service.store)
    st.subheader("Changes of roles", anchor=False)
    if not changes:
        st.caption("No role was given yet: everybody has the default one.")
        return
    called = _ui.people_names(service.store, (row["changed_by"] for row in changes if row["changed_by"]))
    changes = [{**row, "changed_by": called.get(row["changed_by"])} for row in changes]
    table = pd.DataFrame(changes).rename(
        columns={"changed_at": "When", "identity": "Identity", "name": "Name", "role": "Role", "changed_by": "By"}
    )
    st.dataframe(table, hide_index=True, width="stretch", placeholder="—", key="people-changes")
    st.download_button(
        "Download these changes", _ui.csv_bytes(table), "role-changes.csv", "text/csv", type="tertiary",
        icon=":material/download:", key="people-changes-csv", on_click="ignore",
    )  # fmt: skip


def main() -> None:
    """The page."""
    service = _ui.current_service()
    _ui.header("People", "Who was here, what each may do, and who said so.")
    _how_it_works()
    _say()
    found = people.people(service.store)
    if not found:
        _ui.empty(
            "**Nobody was here under a name yet.** Whoever gives a name, at the foot of the sidebar or before the "
            "first review, stands here from then on.",
            page="review.py", label="Review", icon=":material/compare:",
        )  # fmt: skip
        _invite(service)
        return
    waiting = [row for row in found if _role(row, service) == "none"]
    if waiting and _ui.may("administer"):
        names = ", ".join(str(row["name"]) for row in waiting[:6])
        st.warning(_ui.plain(f"{len(waiting)} without access yet: {names}."), icon=":material/person_alert:")
    find = st.text_input("Find", placeholder="name, e-mail or role", key="people-find", bind="query-params").strip()
    table = _table(found, service)
    if find:
        shown = table[["Name", "Identity", "Role"]].apply(
            lambda column: column.str.contains(find, case=False, regex=False)
        )
        table = table[shown.any(axis=1)]
    chosen = st.dataframe(
        table, hide_index=True, width="stretch", placeholder="—", on_select="rerun", selection_mode="single-row",
        key=f"{LIST}-{find}-{len(table)}",
        column_config={
            "Last seen": st.column_config.DatetimeColumn(format="distance"),
            "Last decision": st.column_config.DatetimeColumn(format="distance"),
            "Decisions": st.column_config.NumberColumn(format="localized"),
        },
    )  # fmt: skip
    by_identity = {str(row["identity"]): row for row in found}
    rows = chosen["selection"]["rows"]
    wanted = st.query_params.get("person", "")
    if rows:
        wanted = str(table.iloc[rows[0]]["Identity"])
        st.query_params["person"] = wanted
    if wanted in by_identity:
        _change(service, by_identity[wanted])
    else:
        st.caption("Mark a person in the list to see or change the role." if len(table) else "Nobody matches.")
    _invite(service)
    _history(service)


main()
