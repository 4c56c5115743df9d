"""Rules: the published one and those of the store, read, typed, edited and removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.rules import PUBLISHED, Rule, parse
from db import fits
from db.service import Service
from pages import _choose, _pick, _ui

TEXT, NAME, NOTE, SAID = "rule-text", "rule-name", "rule-note", "rule-said"
RULE = "rule"
ORIGINS = {"published": "published", "fit": "fitted", "typed": "typed"}


def show(service: Service) -> None:
    """The room of rules."""
    found = fits.rules(service.store)
    left, right = st.columns([1.6, 1], gap="large")
    with left:
        st.subheader("Rules", anchor=False)
        _one(service, _table(found))
    with right:
        st.subheader("Type a rule", anchor=False)
        _typed(service)


def _table(found: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """A table of the rules; returns the one that is looked at, which stands in the URL (``rule``)."""
    ids = [row["rule_id"] or 0 for row in found]
    asked = _choose.numbers(RULE)
    opened = asked[0] if asked and asked[0] in ids else 0
    key = _pick.widget_key("rules", ids, opened)

    def pick() -> None:
        """A callback: the rule whose line was clicked is looked at."""
        picked = _pick.picked(ids, key, opened)
        if picked:
            st.query_params[RULE] = str(picked)
        else:
            st.query_params.pop(RULE, None)

    st.dataframe(
        [
            {
                "name": row["name"],
                "origin": ORIGINS.get(row["origin"], row["origin"]),
                "indicators": ", ".join(row["rule"].outputs),
                "of the fit": row["fit"],
                "note": row["note"],
                "made": row["created_at"],
                "by": row["created_by"],
            }
            for row in found
        ],
        hide_index=True,
        height="content" if len(found) < 9 else 320,
        placeholder="—",
        column_config={"made": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm")},
        key=key,
        on_select=pick,
        **_pick.options(ids, opened),
    )
    return found[ids.index(opened)]


def _one(service: Service, row: Mapping[str, Any]) -> None:
    rule: Rule = row["rule"]
    rule_id = row["rule_id"] if row["rule_id"] is not None else "published"
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{_ui.plain(row['name'])}**", width="stretch")
            st.page_link("select.py", label="Select by it", icon=":material/filter_alt:")
            st.button("Edit a copy", key=f"edit-rule-{rule_id}", icon=":material/edit:", on_click=_edit, args=(rule,))
            if row["rule_id"] is not None:
                with st.popover("Remove", icon=":material/delete:"):
                    st.markdown("Remove this rule? Selections made by it keep its formula.")
                    st.button(
                        "Remove the rule",
                        key=f"remove-rule-{rule_id}",
                        type="primary",
                        on_click=fits.remove_rule,
                        args=(service.store, row["rule_id"]),
                        **_ui.allowed("administer"),
                    )
        st.code(rule.formula(), language=None, wrap_lines=True)
        if rule.source:
            st.caption(_ui.plain(rule.source))
        if row["note"]:
            st.markdown(_ui.plain(row["note"]))
        _terms(rule)
        if rule.fit is None:
            st.caption("Without a fit's covariance: it predicts, but gives no interval.")


def _terms(rule: Rule) -> None:
    """The terms, and of a fitted rule what their scores must have been made with."""
    st.dataframe(
        [
            {
                "indicator": term.output,
                "coefficient": term.coefficient,
                "better": "higher" if term.coefficient < 0 else "lower",
                "only scores of": _family(term.family),
            }
            for term in rule.terms
        ],
        hide_index=True,
        height="content",
        column_config={
            "coefficient": st.column_config.NumberColumn(format="%.6g"),
            "better": st.column_config.TextColumn("predicts less loss", help="Which end of the indicator does."),
        },
    )


def _family(family: Mapping[str, Any] | None) -> str:
    if family is None:
        return "any scorer"
    settings = ", ".join(str(value) for _, value in sorted((family.get("settings") or {}).items()) if value is not None)
    model = str(family.get("model") or "").rstrip("/").split("/")[-1]
    parts = (model, str(family.get("revision") or "")[:14], family.get("template"), settings)
    return " · ".join([*(str(part) for part in parts if part), f"version {family.get('version')}"])


# --- typing one ---


def _edit(rule: Rule) -> None:
    """A callback: the formula goes into the form, to be saved under another name."""
    st.session_state[TEXT] = rule.formula()
    st.session_state[NAME] = f"{rule.name}, edited"


def _typed(service: Service) -> None:
    st.caption(
        "A constant and indicators with their coefficients, by their keys; lower predicts better. A typed rule takes "
        "any scorer of its indicators."
    )
    text = st.text_area("Formula", key=TEXT, height=110, placeholder=PUBLISHED.formula(), max_chars=4000)
    rule = _read(text)
    if rule is not None:
        st.code(rule.formula(), language=None, wrap_lines=True)
        words = "log evaluation loss" if rule.log_response else "evaluation loss"
        st.caption(f"Read as: {words} by {_ui.plain(', '.join(rule.outputs))}.")
    name = st.text_input("Name of the rule", key=NAME, max_chars=120)
    st.text_input("Note", key=NOTE, max_chars=500)
    st.button(
        "Save the rule",
        type="primary",
        icon=":material/bookmark_add:",
        on_click=_save,
        args=(service,),
        **_ui.allowed("administer", disabled=rule is None or not name.strip()),
    )
    said = st.session_state.pop(SAID, None)
    if said is not None:
        good, words = said
        (st.success if good else st.error)(_ui.plain(words))


def _save(service: Service) -> None:
    """A callback: the typed rule is saved, looked at, and the form is empty again."""
    name = st.session_state[NAME]
    try:
        rule = parse(st.session_state[TEXT], name=name.strip())
        made = fits.save_rule(
            service.store, rule, name=name, note=st.session_state[NOTE], created_by=_ui.reviewer() or None
        )
    except AssayError as error:
        st.session_state[SAID] = (False, str(error))
        return
    st.session_state[SAID] = (True, f"Saved {name.strip()}.")
    st.session_state.update({TEXT: "", NAME: "", NOTE: ""})
    st.query_params[RULE] = str(made)


def _read(text: str) -> Rule | None:
    if not text.strip():
        return None
    try:
        return parse(text, name="typed")
    except AssayError as error:
        st.error(_ui.plain(str(error)), icon=":material/error:")
        return None
