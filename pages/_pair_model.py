"""The Model tab of the Pairs page: a model of the decisions so far, what it proposes to accept, and its spot check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core import decision_evidence
from core.charts import pair_model as charts
from core.errors import AssayError
from db import pair_models, pair_queue, pair_training
from db.bulk import BulkPlan
from db.pair_models import Offer, PairModel
from db.pair_training import Decided, TrainingTask
from db.service import Service
from db.store import Store
from pages import _sign_in, _ui

TARGET, USUAL_PERCENT = "error", 5.0
PARAMETERS = (TARGET,)
"""What this tab keeps in the URL of the page."""

_PLAN, _DONE = "pair-model-plan", "pair-model-done"
_WANTED = "pair-model-wanted"
"""What was pressed ("train" or "accept"): kept while a name is asked for."""
_STEPS = {
    "reading": "Reading the decided pairs with their scores and embeddings …",
    "fitting": "Fitting, and choosing the penalty by cross-validation …",
    "predicting": "Predicting all pairs …",
}


def show(service: Service) -> None:
    """Draw the tab."""
    store = service.store
    st.caption(
        "A small logistic regression learns from the decisions of people so far (bulk decisions left out) what is "
        "accepted. It orders the queue by what it is least sure of, and proposes pairs to accept without a person, "
        "with the error that it made on decisions it did not see."
    )
    found = pair_training.decided(store)
    task = pair_training.training(store)
    if task is not None and not task.over:
        st.fragment(_progress, run_every=1)(task)
        return
    if task is not None and task.error is not None:
        st.error(_ui.plain(task.error), icon=":material/error:")
    model = pair_models.latest(store)
    _train(store, found, model)
    if model is None:
        return
    _quality(model)
    st.subheader("Accept without a person", anchor=False)
    _offer(store, model)
    _spot_checks(store)


# --- training ---


def _progress(task: TrainingTask) -> None:
    if task.over:
        st.rerun()
    st.progress(task.fraction, text=f"{_STEPS.get(task.state, '')} {_ui.duration(task.seconds)} so far.")
    st.caption("It goes on if you leave this page.")


def _train(store: Store, found: Decided, model: PairModel | None) -> None:
    n = found.n_accepted + found.n_rejected
    if found.problem is not None:
        _ui.empty(
            f"{'There is no model yet. ' if model is None else 'It cannot be trained again yet. '}"
            f"{_ui.plain(found.problem)} It learns from scores and embeddings, as far as the rows have them.",
            page="review.py",
            label="Review pairs",
        )
        return
    left, right = st.columns([3, 1], vertical_alignment="center")
    refusal = _ui.why_not("review")
    if model is None:
        left.markdown(f"{n:,} pairs are decided: {found.n_accepted:,} accepted, {found.n_rejected:,} rejected.")
    else:
        called = _ui.people_names(store, [model.trained_by] if model.trained_by else [])
        trained_by = called.get(model.trained_by or "", "somebody")
        n_new = pair_training.n_new_decisions(store, model.model_id)
        news = (
            f"{n_new:,} decision{'s' if n_new != 1 else ''} since: train again to use them"
            if n_new
            else "no decision since"
        )
        left.markdown(
            f"Model {model.model_id}, trained {_ui.ago(model.trained_at)} by "
            f"{_ui.plain(trained_by)} on {model.metrics['n_train']:,} decisions, with "
            f"{model.metrics['held_out']['n']:,} held out; {news}."
        )
    pressed = right.button(
        "Train" if model is None else "Train again",
        key="pair-model-train",
        type="primary" if model is None else "secondary",
        icon=":material/model_training:",
        disabled=refusal is not None,
        help=refusal or "Half of the originals are learnt from, a quarter chooses thresholds, a quarter measures them.",
        width="stretch",
    )
    if pressed:
        st.session_state[_WANTED] = "train"
    if st.session_state.get(_WANTED) == "train":
        _sign_in.ask_name("training a model", button="Train")
        st.session_state.pop(_WANTED)
        try:
            pair_training.start_training(store, trained_by=_ui.reviewer())
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        st.rerun()


# --- how good it is ---


def _percent(share: Mapping[str, Any]) -> str:
    return "—" if share["share"] is None else f"{share['share']:.1%}"


def _quality(model: PairModel) -> None:
    held = model.metrics["held_out"]
    own, base, student = held["model"], held["base"], held["student"]
    chance = f" By chance it would be {held['n_accepted'] / held['n']:.3f}." if held["n"] else ""
    told = (
        (
            "ROC area",
            _ui.number(held["auc"]),
            "The chance that of an accepted and a rejected pair the accepted one has the larger p. 0.5 is chance.",
        ),
        (
            "Average precision",
            _ui.number(held["average_precision"]),
            f"The area under precision against recall.{chance}",
        ),
        ("Right at p = 0.5", _percent(own["accuracy"]), "The part of the held-out decisions that the model says."),
        (
            "Brier score",
            _ui.number(own["brier"]),
            "The mean squared difference of p and the decision: 0 is perfect; smaller is better.",
        ),
    )
    with st.container(horizontal=True, gap="small"):
        for label, value, explained in told:
            st.metric(label, value, help=explained, width=150)
    st.caption(
        f"On {held['n']:,} held-out decisions ({held['n_accepted']:,} accepted). Without a model: always the more "
        f"frequent verdict is right in {_percent(base['accuracy'])} (Brier {_ui.number(base['brier'])}); the student's "
        f"proposal in {_percent(student['accuracy'])}, and {_percent(student['error_of_accepted'])} of the "
        f"{student['error_of_accepted']['n']:,} pairs that it would take were rejected."
    )
    st.page_link(
        "review.py",
        label="Review the pairs that it is least sure of",
        icon=":material/help_center:",
        query_params={"order": "most uncertain"},
    )
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**What it leans on**")
        _ui.chart(
            charts.coefficients_figure(model.metrics["coefficients"]),
            key=f"pair-model-coefficients-{model.model_id}",
            data=model.metrics["coefficients"],
            name=f"model-{model.model_id}-coefficients",
        )
        st.caption(
            "Change: reflected − original. Inputs that say nearly the same share their weight, so a small bar may "
            "still matter."
        )
    with right:
        st.markdown("**Can its p be believed?**")
        _ui.chart(
            charts.reliability_figure(held["reliability"]),
            key=f"pair-model-reliability-{model.model_id}",
            data=held["reliability"],
            name=f"model-{model.model_id}-reliability",
        )
        st.caption("On the dashed line, of the pairs with p = 0.8 people accepted 80 %. Whiskers: 95 % intervals.")


# --- the offer ---


def _target() -> float:
    """The tolerated error, kept in the URL in percent."""
    try:
        wanted = float(st.query_params.get(TARGET, ""))
    except ValueError:
        wanted = USUAL_PERCENT
    usual = min(30.0, max(0.5, wanted)) if wanted == wanted else USUAL_PERCENT
    chosen = st.slider(
        "Tolerated error, % of the accepted pairs",
        0.5,
        30.0,
        usual,
        0.5,
        key="pair-model-error",
        help="How many of the pairs that are accepted without a person may be such as people would have rejected.",
    )
    st.query_params[TARGET] = f"{chosen:g}"
    return chosen / 100


def _offer(store: Store, model: PairModel) -> None:
    left, right = st.columns(2, gap="large")
    below = st.container()
    with left:
        done = st.session_state.pop(_DONE, None)
        if done is not None:
            st.success(_ui.plain(done), icon=":material/done_all:")
        target = _target()
        offer = pair_models.proposal(store, model, target_error=target)
        _sentence(offer)
        asked = _looked_at(store, model, offer)
    with right:
        choose = model.choose
        rows = decision_evidence.curves(choose)
        if rows:
            _ui.chart(
                charts.error_figure(rows, n=len(choose), target_error=target, threshold=offer.proposal.threshold),
                key=f"pair-model-error-{model.model_id}",
                data=rows,
                name=f"model-{model.model_id}-error",
            )
            st.caption(
                f"On the {len(choose):,} held-out decisions where thresholds are chosen; the error of a proposal is "
                f"measured on {len(model.measure):,} others."
            )
    if asked is not None:
        with below:  # last: asking for a name ends the run
            _confirm(store, model, offer, asked)


def _sentence(offer: Offer) -> None:
    proposal = offer.proposal
    if proposal.threshold is None:
        st.info(_ui.plain(proposal.problem or "There is no proposal."), icon=":material/do_not_disturb_on:")
        return
    if proposal.ok and not offer.n:
        st.info(
            _ui.plain(
                f"None of {offer.n_open:,} undecided pairs lies at p ≥ {proposal.threshold:.3f}: "
                f"{pair_models.said(proposal.measured)}."
                if offer.n_open
                else "No undecided pair outside the campaigns is left to accept."
            ),
            icon=":material/rule:",
        )
        return
    words = (
        f"Auto-accept {offer.n:,} of {offer.n_open:,} undecided pairs at p ≥ {proposal.threshold:.3f}: "
        f"{pair_models.said(proposal.measured)}."
    )
    if proposal.ok:
        st.success(_ui.plain(words), icon=":material/rule:")
    else:
        st.warning(_ui.plain(f"{words} {proposal.problem}"), icon=":material/warning:")
    more = ["Undecided: no decision stands, no flag, and in no campaign."]
    if offer.n_unknown:
        more.append(f"{offer.n_unknown:,} undecided pairs came after the training; train again to have them in.")
    more.append(
        "Go by the upper end of the interval, not by the measured error itself: the true error may well be that large. "
        "It is of decisions so far. Pairs that wait may be of another kind, so have a sample of what was "
        "accepted spot-checked. Trying many values of the slider and taking the luckiest flatters it."
    )
    st.caption(" ".join(more))


def _looked_at(store: Store, model: PairModel, offer: Offer) -> BulkPlan | None:
    """The dry run of this very offer, or None where it was not asked for; draws the button that asks for it."""
    if not offer.proposal.ok or not offer.n:
        return None
    mark = (model.model_id, offer.proposal.threshold, offer.n)
    refusal = _ui.why_not("administer")
    kept = st.session_state.get(_PLAN)
    if kept is None or kept[0] != mark:
        if st.button(
            f"Look at what would be accepted ({offer.n:,})",
            key="pair-model-plan-button",
            icon=":material/preview:",
            disabled=refusal is not None,
            help=refusal or "A dry run: nothing is stored.",
        ):
            st.session_state[_PLAN] = (mark, pair_models.plan_auto_accept(store, offer))
            st.rerun()
        return None
    plan: BulkPlan = kept[1]
    return plan


def _confirm(store: Store, model: PairModel, offer: Offer, plan: BulkPlan) -> None:
    with st.container(border=True):
        st.markdown(f"**Dry run: {plan.n:,} pairs would be accepted, {plan.n_left_alone:,} left alone.**")
        st.dataframe(
            [{"dataset": name, "pairs": n} for _, name, n in plan.by_dataset], hide_index=True, height="content"
        )
        sample = pair_queue.table_of(store, plan.sample_ids)
        st.dataframe(
            [{name: row[name] for name in ("pair_id", "instruction", "reflected")} for row in sample],
            column_config={"pair_id": st.column_config.NumberColumn("pair", width="small")},
            hide_index=True,
            height="content",
        )
        st.caption(f"{len(sample)} of them, by chance; side by side they are in the tab Bulk and in a spot check.")
        st.caption(
            "One bulk decision with one undo (tab Bulk). Each pair carries a note with this model and its error."
        )
        left, right = st.columns(2)
        if left.button("Not now", key="pair-model-cancel", width="stretch"):
            st.session_state.pop(_PLAN, None)
            st.session_state.pop(_WANTED, None)
            st.rerun()
        if right.button(
            f"Accept {plan.n:,} pairs", key="pair-model-accept", type="primary", width="stretch",
            disabled=_ui.why_not("administer") is not None,
        ):  # fmt: skip
            st.session_state[_WANTED] = "accept"
        if st.session_state.get(_WANTED) != "accept":
            return
        _sign_in.ask_name("accepting pairs", button=f"Accept {plan.n:,} pairs")
        st.session_state.pop(_WANTED)
        st.session_state.pop(_PLAN, None)
        try:
            bulk_id = pair_models.auto_accept(store, model, offer, plan, by=_ui.reviewer())
        except AssayError as error:
            st.error(_ui.plain(str(error)))
            return
        st.session_state[_DONE] = f"Accepted {plan.n:,} pairs (bulk decision {bulk_id}). Spot-check a sample of them."
        st.rerun()


# --- spot checks ---


def _spot_checks(store: Store) -> None:
    accepts = pair_models.auto_accepts(store)
    if not accepts:
        return
    st.subheader("Spot checks", anchor=False)
    for model_id in dict.fromkeys(row["model_id"] for row in accepts):
        own = [row for row in accepts if row["model_id"] == model_id]
        found = pair_models.spot_check(store, model_id)
        measured = ", ".join(sorted({pair_models.said(row["measured"]) for row in own}))
        words = (
            f"Model {model_id} accepted {found.n_accepted:,} pairs, {found.n_standing:,} of which stand "
            f"(undo: tab Bulk). Before that: {measured}."
        )
        wrong = found.wrong
        if wrong.share is None:
            words += f" None of the {found.n_asked} sampled ones is checked yet."
        else:
            low, high = (f"{100 * (one or 0.0):.1f}" for one in (wrong.low, wrong.high))
            words += (
                f" Spot check: {wrong.n_of} of {wrong.n} checked pairs were rejected, {100 * wrong.share:.1f} % (95 % "
                f"interval {low}–{high} %); {found.n_asked - wrong.n} of the sample wait."
            )
        left, right = st.columns([3, 1], vertical_alignment="center")
        left.markdown(_ui.plain(words))
        with right:
            st.page_link(
                "review.py",
                label="Spot-check a sample, blind",
                icon=":material/fact_check:",
                query_params={"spot_check": str(model_id)},
            )
