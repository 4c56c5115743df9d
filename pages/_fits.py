"""Saved fits: the list, several side by side, exports, a rule of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.errors import AssayError
from core.run_table import BY_HAND, labels_of
from db import fits, studies, study_means
from db.service import Service
from pages import _choose, _fit_result, _rows, _ui

MOST_COMPARED = 4
ROOM = "switch-room"
Saved = Mapping[str, Any]


def show(service: Service) -> None:
    """The room of saved fits."""
    found = fits.fits(service.store)
    if not found:
        _ui.empty(
            "No fit is saved yet. Choose studies and regressors under Fit, then press “Save this fit”: saved fits can "
            "be compared, exported and made into rules."
        )
        return
    names = {row["study_id"]: row["name"] for row in studies.studies(service.store)}
    chosen = _list(found, names)
    if not chosen:
        st.caption(f"Mark one fit to export it or to make a rule of it; mark up to {MOST_COMPARED} to compare them.")
        return
    if len(chosen) > 1:
        _compare(chosen)
    for row in chosen:
        _one(service, row, alone=len(chosen) == 1)


def _list(found: Sequence[Saved], names: Mapping[int, str]) -> list[Saved]:
    """A table of the fits; returns those that are marked, which stand in the URL (``fits``)."""
    ids = [row["fit_id"] for row in found]
    asked = [ids.index(i) for i in _choose.numbers("fits") if i in ids]
    key = f"fits-{_rows.identity(tuple(ids))}"

    def write() -> None:
        marked = st.session_state[key]["selection"]["rows"]
        if marked:
            st.query_params["fits"] = ".".join(str(ids[i]) for i in marked if i < len(ids))
        else:
            st.query_params.pop("fits", None)

    st.dataframe(
        [
            {
                "name": row["name"],
                "studies": ", ".join(names.get(i, "(removed)") for i in row["study_ids"]),
                "response": _fit_result.response_words(row["result"]),
                "regressors": ", ".join(row["result"].spec.regressors),
                "runs": row["result"].n,
                "R²": row["result"].r2,
                "leave-one-out R²": row["result"].loo_r2,
                "AIC": row["result"].aic,
                "saved": row["created_at"],
                "by": row["created_by"],
            }
            for row in found
        ],
        hide_index=True,
        height="content" if len(found) < 8 else 300,
        placeholder="—",
        key=key,
        on_select=write,
        selection_mode="multi-row",
        selection_default={"selection": {"rows": asked}} if asked else None,
        column_config={
            "R²": st.column_config.NumberColumn(format="%.3f"),
            "leave-one-out R²": st.column_config.NumberColumn(format="%.3f"),
            "AIC": st.column_config.NumberColumn(format="%.1f"),
            "saved": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        },
    )
    by_id = {row["fit_id"]: row for row in found}
    marked = [by_id[i] for i in _choose.numbers("fits") if i in by_id]
    if len(marked) > MOST_COMPARED:
        st.caption(f"{len(marked)} fits are marked; the first {MOST_COMPARED} are compared.")
    return marked[:MOST_COMPARED]


# --- side by side ---


def coefficient_lines(chosen: Sequence[Saved]) -> list[dict[str, Any]]:
    """A line for each regressor of any of the fits: coefficient ± standard error and p in a column a fit."""
    order = list(dict.fromkeys(one.name for row in chosen for one in row["result"].coefficients))
    lines = []
    for name in order:
        line: dict[str, Any] = {"regressor": "(intercept)" if name == "const" else name}
        for row in chosen:
            one = next((c for c in row["result"].coefficients if c.name == name), None)
            line[row["name"]] = (
                "—" if one is None else f"{one.value:.4g} ± {one.standard_error:.2g}{_stars(one.p)}".replace("-", "−")
            )
        lines.append(line)
    return lines


def _stars(p: float | None) -> str:
    if p is None:
        return ""
    return " ***" if p < 0.001 else " **" if p < 0.01 else " *" if p < 0.05 else ""


def _compare(chosen: Sequence[Saved]) -> None:
    st.subheader("Side by side", anchor=False)
    lines = coefficient_lines(chosen)
    st.dataframe(lines, hide_index=True, height="content")
    st.caption("Coefficient ± standard error; \\* p below 0.05, \\*\\* below 0.01, \\*\\*\\* below 0.001.")
    merits = {row["name"]: _fit_result.merits(row["result"]) for row in chosen}
    figures = [
        {"": name, **{fit: found[name] for fit, found in merits.items()}} for name in next(iter(merits.values()))
    ]
    figures.append({"": "Standard errors", **{row["name"]: row["result"].spec.robust or "ordinary" for row in chosen}})
    st.dataframe(figures, hide_index=True, height="content")
    different = {row["result"].n for row in chosen}, {row["result"].spec.response_text for row in chosen}
    if any(len(values) > 1 for values in different):
        st.warning(
            "These fits are of different runs or responses: AIC and BIC compare only fits of the same runs and "
            "response.",
            icon=":material/warning:",
        )
    st.download_button(
        "This comparison as CSV", data=_ui.csv_bytes([*lines, *({"regressor": f.pop(""), **f} for f in figures)]),
        file_name="fits.csv", mime="text/csv", key=f"compare-{_rows.identity(tuple(r['fit_id'] for r in chosen))}",
        type="tertiary", icon=":material/download:", on_click="ignore",
    )  # fmt: skip


# --- one fit ---


def _one(service: Service, row: Saved, *, alone: bool) -> None:
    fit_id = row["fit_id"]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{_ui.plain(row['name'])}**", width="stretch")
            st.button(
                "Open under Fit",
                key=f"open-fit-{fit_id}",
                icon=":material/functions:",
                on_click=_open,
                args=(service, row),
            )
            with st.popover("Export", icon=":material/download:"):
                _fit_result.exports(row["result"], name=f"fit-{fit_id}", key=f"export-{fit_id}")
            with st.popover("Make a rule of it", icon=":material/rule:"):
                _rule(service, row)
            with st.popover("Remove", icon=":material/delete:"):
                st.markdown("Remove this fit? Rules made of it stay.")
                st.button(
                    "Remove the fit",
                    key=f"remove-fit-{fit_id}",
                    type="primary",
                    on_click=_remove,
                    args=(service, fit_id),
                    **_ui.allowed("administer"),
                )
        if alone:
            _fit_result.show_numbers(row["result"], {})
            if row["result"].left_out:
                with st.expander(f"{len(row['result'].left_out)} runs were left out"):
                    st.dataframe(
                        [{"run": label, "why": reason} for label, reason in row["result"].left_out], hide_index=True
                    )


def _open(service: Service, row: Saved) -> None:
    """A callback: the choice of the Fit room becomes that of this fit."""
    spec = row["result"].spec
    st.session_state[ROOM] = "fit"
    runs = [run for run in studies.runs(service.store, row["study_ids"]) if run["role"] != "base"]
    by_hand = {label for label, reason in row["result"].left_out if reason == BY_HAND}
    gone = [run["run_id"] for run, label in zip(runs, labels_of(runs), strict=True) if label in by_hand]
    chosen = {
        "room": "",
        "run": "",
        "studies": ".".join(map(str, row["study_ids"])),
        "regressors": ".".join(spec.regressors),
        "response": "" if spec.log_response else "raw",
        "errors": spec.robust or "",
        "without": ".".join(map(str, gone)),
    }
    for name, value in chosen.items():
        if value:
            st.query_params[name] = value
        else:
            st.query_params.pop(name, None)


def _rule(service: Service, row: Saved) -> None:
    runs = studies.runs(service.store, row["study_ids"])
    wanted = list(dict.fromkeys(run["dataset_id"] for run in runs if run["dataset_id"] is not None))
    if not wanted:
        st.caption("The studies of this fit were removed, so it is not known any more which scorers it was fitted on.")
        return
    regressors = row["result"].spec.regressors
    neighbours = sorted({int(key[4:].split("@")[0]) for key in regressors if key.startswith("knn_")})
    try:
        columns = study_means.indicator_columns(service.store, wanted, neighbours=neighbours or [1])
    except AssayError as error:
        st.error(_ui.plain(str(error)))
        return
    _fit_result.make_rule(service, row["result"], columns, key=f"saved-{row['fit_id']}", fit_id=row["fit_id"])


def _remove(service: Service, fit_id: int) -> None:
    """A callback: the fit is removed from the store and from the marked ones."""
    fits.remove_fit(service.store, fit_id)
    left = [i for i in _choose.numbers("fits") if i != fit_id]
    if left:
        st.query_params["fits"] = ".".join(map(str, left))
    else:
        st.query_params.pop("fits", None)
