"""Adjudication: pairs on which people differ, who said what, who may rule; and blind second looks at one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from core.campaign import Campaign
from db import campaign_progress, campaigns, people, schema
from db.decisions import VERDICT_WORDS, Entry, Guard
from db.store import Store, frame, scalar


def disputed(store: Store, campaign_id: int, identity: str | None = None) -> list[int]:
    """Pair ids to adjudicate, in the order of the campaign; with ``identity`` only those that this person may rule on
    (not one's own disputes, where somebody else can).

    Raises:
        StoreError: there is no such campaign.
    """
    found = campaign_progress.disputed_ids(store, campaign_id)
    if identity is None or not found:
        return found
    campaign = campaigns.campaign(store, campaign_id)
    if campaign.settings.own_disputes:
        return found
    with store.read() as connection:
        words = _people_with_words(connection, found)
        others = _other_adjudicators(connection, campaign, identity)
    return [one for one in found if identity not in words.get(one, ()) or not others - words[one]]


def _people_with_words(connection: Connection, pair_ids: Sequence[int]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    sql = "select pair_id, reviewer from reviewer_decisions where list_contains($ids, pair_id)"
    for row in frame(connection, sql, {"ids": list(pair_ids)}).to_pylist():
        found.setdefault(row["pair_id"], set()).add(row["reviewer"])
    return found


def _other_adjudicators(connection: Connection, campaign: Campaign, identity: str) -> set[str]:
    """Who else may rule: the adjudicators that were named, and people to whom the role admin was given."""
    admins = frame(connection, "select identity from current_roles where role = 'admin'")["identity"].to_pylist()
    return {*campaign.settings.adjudicators, *admins} - {identity}


def _refusal(
    connection: Connection,
    campaign: Campaign,
    pair_id: int | None,
    identity: str,
    *,
    is_admin: bool,
    called: Mapping[str, str],
) -> str | None:
    """Why this person may not rule on this pair, in a sentence; None: they may."""
    if not is_admin and identity not in campaign.settings.adjudicators:
        return (
            f"Admins and the adjudicators of {campaign.name!r} rule on its disputes. Nothing was stored; ask an admin."
        )
    part_of = "select 1 from campaign_pairs where campaign_id = :c and pair_id = :p"
    if not scalar(connection, part_of, c=campaign.campaign_id, p=pair_id or 0):
        return f"Pair {pair_id} is not part of the campaign {campaign.name!r}. Nothing was stored."
    if campaign.settings.own_disputes:
        return None
    words = _people_with_words(connection, [pair_id or 0]).get(pair_id or 0, set())
    others = _other_adjudicators(connection, campaign, identity) - words
    if identity in words and others:
        other = called.get(min(others), min(others))
        return f"You have a word on pair {pair_id} yourself; {other} can rule on it. Nothing was stored."
    return None


def guard(store: Store, campaign_id: int, *, identity: str, is_admin: bool) -> Guard:
    """What refuses a ruling, for :func:`db.decisions.apply` with entries of the purpose "adjudication".

    Raises:
        StoreError: there is no such campaign.
    """
    campaign = campaigns.campaign(store, campaign_id)
    called = people.names(store)  # here: inside a transaction its lock could wait for one that waits for the other

    def asked(connection: Connection, entry: Entry) -> str | None:
        return _refusal(connection, campaign, entry.pair_id, identity, is_admin=is_admin, called=called)

    return asked


def voices(store: Store, pair_id: int, *, hide_names: bool = False) -> list[dict[str, Any]]:
    """Who said what of a pair: each person's word, then the ruling that stands, if there is one.

    ``decision_id, name, verdict, text`` (the verdict in words), ``kind`` (accept or reject), ``note, seconds, when``
    (naive UTC), ``purpose, texts`` (of an edit: instruction, input, output; else None). With ``hide_names`` people are
    "Reviewer 1", "Reviewer 2", in an order that says nothing of who came first.
    """
    with store.read() as connection:
        found = frame(
            connection,
            """select d.*, e.instruction, e.input, e.output from (
                select decision_id, reviewer, verdict, note, seconds, decided_at, purpose, result_id
                from reviewer_decisions where pair_id = $pair
                union all
                select decision_id, reviewer, verdict, note, seconds, decided_at, purpose, result_id
                from current_decisions where pair_id = $pair and purpose in ('adjudication', 'bulk')) d
            left join examples e on e.example_id = d.result_id and d.verdict = 'edit'
            order by purpose <> 'review', decision_id""",
            {"pair": pair_id},
        ).to_pylist()
    if hide_names:
        found.sort(key=lambda row: (row["purpose"] != "review", _mark(0, row["reviewer"], pair_id)))
    return [_voice(row, f"Reviewer {i}" if hide_names else row["reviewer"]) for i, row in enumerate(found, start=1)]


def _voice(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    ruling = {"adjudication": "ruled: ", "bulk": "in bulk: "}.get(row["purpose"], "")
    return {
        "decision_id": row["decision_id"],
        "name": name,
        "verdict": row["verdict"],
        "text": ruling + VERDICT_WORDS[row["verdict"]],
        "kind": "reject" if row["verdict"] == "reject" else "accept",
        "note": row["note"] or "",
        "seconds": row["seconds"],
        "when": row["decided_at"],
        "purpose": row["purpose"],
        "texts": {key: row[key] for key in ("instruction", "input", "output")} if row["verdict"] == "edit" else None,
    }


def _mark(seed: int, identity: str, pair_id: int) -> float:
    """A number in [0, 1) that looks random and is always the same."""
    digest = hashlib.sha256(f"{seed}\x00{identity}\x00{pair_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def second_look_ids(store: Store, campaign_id: int, identity: str) -> list[int]:
    """Pairs that come back to the person who decided them, blind, the longest ago first.

    The campaign's share of that person's own decisions, chosen by chance but always the same; a pair comes back when
    the person has decided ``second_look_after`` others since, and once only. Empty where the share is 0.

    Raises:
        StoreError: there is no such campaign.
    """
    campaign = campaigns.campaign(store, campaign_id)
    settings = campaign.settings
    if not settings.second_look_share:
        return []
    with store.read() as connection:
        found = frame(
            connection,
            f"""with words as (
                select pair_id, max(decision_id) decision_id from standing_decisions
                where {campaigns.COUNTS} and reviewer = $identity group by pair_id)
            select pair_id from (select *, count(*) over (order by decision_id desc) - 1 n_since from words)
            where n_since >= $after and pair_id not in (
                select pair_id from standing_decisions
                where campaign_id = $campaign and reviewer = $identity and purpose = 'second_look'
                    and verdict in {schema.VERDICTS_DECIDED!r})
            order by decision_id""",
            {"campaign": campaign_id, "identity": identity, "after": settings.second_look_after},
        )
    ids = found["pair_id"].to_pylist()
    return [pair_id for pair_id in ids if _mark(settings.seed, identity, pair_id) < settings.second_look_share]
