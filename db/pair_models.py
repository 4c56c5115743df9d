"""Models of decisions in the store: what they propose to accept, auto-accepts and their spot checks.

db/pair_training.py makes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core import decision_evidence as evidence
from core.decision_evidence import Held, Proposal, Share
from core.errors import StoreError
from db import bulk
from db.schema import VERDICTS_DECIDED
from db.store import Store, frame, rows

SPOT_CHECK = 50

# --- what a model says ---


@dataclass(frozen=True)
class PairModel:
    """A trained model: what it was made of (``settings``) and how good it is (``metrics``, of ``pair_training``)."""

    model_id: int
    settings: Mapping[str, Any]
    metrics: Mapping[str, Any]
    n_decisions: int
    trained_at: Any
    trained_by: str | None

    @property
    def choose(self) -> Held:
        """The held-out decisions on which thresholds are chosen."""
        return Held.from_dict(self.metrics["choose"])

    @property
    def measure(self) -> Held:
        """Those on which their error is measured."""
        return Held.from_dict(self.metrics["measure"])


def latest(store: Store) -> PairModel | None:
    """The newest model, or None."""
    with store.read() as connection:
        found = rows(
            connection,
            """select model_id, settings::varchar settings, metrics::varchar metrics, n_decisions, trained_at,
                trained_by from pair_models order by model_id desc limit 1""",
        )
    if not found:
        return None
    read = {name: json.loads(found[0][name]) for name in ("settings", "metrics")}
    return PairModel(**{**found[0], **read})


@dataclass(frozen=True)
class Offer:
    """A proposal, and what it would do now: ``pair_ids`` of the ``n_open`` pairs lie at or above its threshold.

    Open: nothing stands on the pair, it has no flag, is in no campaign (its people decide it), and the model knows it.
    ``n_unknown`` open pairs came after the training.
    """

    proposal: Proposal
    pair_ids: np.ndarray
    n_open: int
    n_unknown: int

    @property
    def n(self) -> int:
        """How many pairs would be accepted."""
        return len(self.pair_ids)


def proposal(store: Store, model: PairModel, *, target_error: float) -> Offer:
    """What a model proposes to accept without a person at a tolerated error, with that error as it was measured."""
    found = evidence.propose(model.choose, model.measure, target_error=target_error)
    with store.read() as connection:
        table = frame(
            connection,
            """select p.pair_id, m.p_accept from pairs p
            left join pair_predictions m on m.pair_id = p.pair_id and m.model_id = $model
            where p.pair_id not in (select pair_id from current_decisions)
                and p.pair_id not in (select pair_id from current_flags where verdict = 'flag')
                and p.pair_id not in (select pair_id from campaign_pairs)
            order by p.pair_id""",
            {"model": model.model_id},
        )
    ids, p = table["pair_id"].to_numpy(), np.asarray(table["p_accept"].to_numpy(), np.float64)
    known = np.isfinite(p)
    above = ids[known & (p >= found.threshold)] if found.threshold is not None else ids[:0]
    return Offer(found, above, int(np.count_nonzero(known)), int(np.count_nonzero(~known)))


def plan_auto_accept(store: Store, offer: Offer) -> bulk.BulkPlan:
    """The dry run of an offer, as of any bulk decision.

    Raises:
        StoreError: the offer has no threshold whose measured error is within the target.
    """
    if not offer.proposal.ok:
        raise StoreError(f"Nothing is accepted. {offer.proposal.problem}")
    return bulk.plan(store, offer.pair_ids.tolist(), "accept")


def auto_accept(store: Store, model: PairModel, offer: Offer, plan: bulk.BulkPlan, *, by: str) -> int:
    """Accept the pairs of ``plan`` (the dry run of ``offer``) as one bulk decision; returns its id.

    Raises:
        StoreError: it was not :attr:`Proposal.ok`, or something changed since the dry run; nothing was stored.
        NotAllowedError: whoever acts is no admin.
    """
    if not offer.proposal.ok or offer.proposal.threshold is None:
        raise StoreError(f"Nothing is accepted. {offer.proposal.problem}")
    threshold, measured = offer.proposal.threshold, offer.proposal.measured
    note = f"Model {model.model_id}, p of at least {threshold:.3f}: {said(measured)}"
    about = {
        "model_id": model.model_id,
        "threshold": threshold,
        "target_error": offer.proposal.target_error,
        "measured": vars(measured),
    }
    return bulk.apply(store, plan, by=by, note=note, about=about)


def said(measured: Share) -> str:
    """A measured error in words: "measured error 1.8 % (95 % interval 0.4–5.1 %, 6 of 331 held-out decisions)"."""
    if measured.share is None or measured.low is None or measured.high is None:
        return "error not measured"
    percent, low, high = (f"{100 * one:.1f}" for one in (measured.share, measured.low, measured.high))
    counts = f"{measured.n_of:,} of {measured.n:,} held-out decisions"
    return f"measured error {percent} % (95 % interval {low}–{high} %, {counts})"


# --- spot checks ---


def auto_accepts(store: Store) -> list[dict[str, Any]]:
    """Bulk decisions that followed a model, newest first.

    ``bulk_id, model_id, threshold, measured`` (a Share)``, n_pairs, done_at, done_by``.
    """
    with store.read() as connection:
        found = rows(
            connection,
            """select bulk_id, filter::varchar about, n_pairs, done_at, done_by from bulk_actions
            where undoes is null and filter ->> 'model_id' is not null order by bulk_id desc""",
        )
    made = []
    for row in found:
        about = json.loads(row.pop("about"))
        made.append(
            {
                **row,
                "model_id": int(about["model_id"]),
                "threshold": float(about["threshold"]),
                "measured": Share(**about["measured"]),
            }
        )
    return made


_ACCEPTED_BY = """select d.pair_id, max(d.decision_id) decision_id from decisions d join bulk_actions b
    on b.bulk_id = d.bulk_id and b.undoes is null where d.purpose = 'bulk' and d.verdict = 'accept'
    and try_cast(b.filter ->> 'model_id' as bigint) = {model} group by d.pair_id"""


def spot_check_ids(store: Store, model_id: int, *, n: int = SPOT_CHECK, seed: int = 0) -> list[int]:
    """``n`` of the pairs that were accepted by this model, drawn by chance, in an order by chance.

    The same for a seed, whatever was decided since, so whoever stops early has checked a random sample too.
    """
    with store.read() as connection:
        found = frame(
            connection,
            f"""select pair_id from ({_ACCEPTED_BY.format(model=int(model_id))})
            order by hash(pair_id * 1000003 + $seed), pair_id limit {int(n)}""",
            {"seed": seed},
        )
    return list(found["pair_id"].to_pylist())


@dataclass(frozen=True)
class SpotCheck:
    """How the checked ones of ``n_asked`` sampled pairs (of ``n_accepted`` accepted in all) came out.

    ``wrong``: the share that people rejected, with its interval; of all pairs that the model accepted, not only of
    those that stand. ``n_standing``: how many of those acceptances stand now.
    """

    n_accepted: int
    n_standing: int
    n_asked: int
    wrong: Share


def spot_check(store: Store, model_id: int, *, n: int = SPOT_CHECK, seed: int = 0) -> SpotCheck:
    """What people said, after the auto-accept, of the pairs of :func:`spot_check_ids`: of each the latest verdict."""
    asked = spot_check_ids(store, model_id, n=n, seed=seed)
    with store.read() as connection:
        accepted = frame(
            connection,
            f"""with a as ({_ACCEPTED_BY.format(model=int(model_id))})
            select count(*) n, count(c.pair_id) n_standing from a
            left join current_decisions c on c.pair_id = a.pair_id and c.decision_id = a.decision_id""",
        ).to_pylist()[0]
        verdicts = frame(
            connection,
            f"""with a as ({_ACCEPTED_BY.format(model=int(model_id))})
            select d.pair_id, d.verdict = 'reject' wrong from standing_decisions d join a on a.pair_id = d.pair_id
            where d.decision_id > a.decision_id and d.purpose <> 'bulk' and list_contains($ids, d.pair_id)
                and d.verdict in {VERDICTS_DECIDED!r}
            qualify row_number() over (partition by d.pair_id order by d.decision_id desc) = 1""",
            {"ids": asked},
        )
    wrong = verdicts["wrong"].to_pylist()
    return SpotCheck(accepted["n"], accepted["n_standing"], len(asked), evidence.share(sum(wrong), len(wrong)))
