"""Campaigns: made once, their pairs frozen; each later change (people, state, guidelines, settings) is one event."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, text

from core.campaign import CHANGEABLE, Campaign, CampaignSettings, check_people
from core.errors import MissingError, StoreError
from db import schema
from db.store import Store, frame, registered, rows, said_plainly, scalar, utc_now

LONGEST_NAME, LONGEST_GUIDELINES = 120, 100_000
_STATE_OF = {"created": "open", "paused": "paused", "resumed": "open", "closed": "closed"}
COUNTS = f"campaign_id = $campaign and purpose = 'review' and verdict in {schema.VERDICTS_DECIDED!r}"
"""SQL: which ``standing_decisions`` count against the overlap of ``$campaign``."""
LAST_STATE = f"""(select arg_max(e.kind, e.event_id) from campaign_events e
        where e.campaign_id = c.campaign_id and e.kind in {tuple(_STATE_OF)!r})"""
"""SQL: the event that made a campaign ``c`` what it is now: "created", "paused", "resumed" or "closed"."""


@said_plainly
def create(
    store: Store,
    *,
    name: str,
    pair_ids: Sequence[int],
    people: Sequence[str] = (),
    overlap: int = 1,
    guidelines: str = "",
    gold: Mapping[int, str] | None = None,
    blind: bool = True,
    lease_seconds: int | None = None,
    created_by: str | None = None,
    settings: CampaignSettings | None = None,
) -> int:
    """Make a campaign over ``pair_ids``, in their order, and return its id. Without ``people`` everybody reviews.

    ``gold``: the expected verdict of some of its pairs. ``settings`` holds all else; ``blind`` and ``lease_seconds``
    and whether everybody reviews are put into it.

    Raises:
        StoreError: no pair, an unknown pair, a name that is empty or taken, a gold pair that is not in it.
        SettingsError: fewer people than ``overlap``, or a setting out of range.
    """
    clean, ids = _name(name), list(dict.fromkeys(int(pair_id) for pair_id in pair_ids))
    if overlap < 1:
        raise StoreError("Each pair needs at least one decision. Nothing was made; choose an overlap of 1 or more.")
    chosen = replace(settings or CampaignSettings(), blind=blind, everybody=not any(one.strip() for one in people))
    chosen = chosen if lease_seconds is None else replace(chosen, lease_seconds=lease_seconds)
    named = check_people(people, overlap=overlap, everybody=chosen.everybody)
    with store.write() as connection:
        if scalar(connection, "select 1 from campaigns where name = :name", name=clean):
            raise StoreError(f"There is a campaign named {clean!r} already. Choose another name; nothing was made.")
        campaign_id = int(scalar(connection, "select nextval('campaign_ids')"))
        connection.execute(
            text("insert into campaigns values (:id, :name, :overlap, :settings, :at, :by)"),
            {"id": campaign_id, "name": clean, "overlap": overlap, "at": utc_now(), "by": created_by,
             "settings": json.dumps(chosen.to_dict(), sort_keys=True)},
        )  # fmt: skip
        _add_pairs(connection, campaign_id, ids, gold=gold or {})
        _put_people(connection, campaign_id, named)
        _event(connection, campaign_id, "created", {"people": list(named), "n_pairs": len(ids)}, by=created_by)
        if guidelines.strip():
            _event(connection, campaign_id, "guidelines", {"text": _guidelines(guidelines)}, by=created_by)
    return campaign_id


def _name(name: str) -> str:
    clean = " ".join(name.split())
    if not clean:
        raise StoreError("The campaign has no name. Give it one; nothing was made.")
    if len(clean) > LONGEST_NAME:
        raise StoreError(f"The name is longer than {LONGEST_NAME} characters. Shorten it; nothing was made.")
    return clean


def _guidelines(guidelines: str) -> str:
    if len(guidelines) > LONGEST_GUIDELINES:
        raise StoreError(
            f"The guidelines have {len(guidelines):,} characters; {LONGEST_GUIDELINES:,} are the most. Nothing changed."
        )
    return guidelines.strip()


def _event(connection: Connection, campaign_id: int, kind: str, details: Mapping[str, Any], *, by: str | None) -> None:
    connection.execute(
        text(
            "insert into campaign_events values (nextval('campaign_event_ids'), :campaign, :kind, :details, :at, :by)"
        ),
        {"campaign": campaign_id, "kind": kind, "details": json.dumps(dict(details)), "at": utc_now(), "by": by},
    )


def _add_pairs(connection: Connection, campaign_id: int, ids: Sequence[int], *, gold: Mapping[int, str]) -> None:
    if not ids:
        raise StoreError("The campaign has no pair. Choose a wider filter; nothing was made.")
    wrong = sorted({verdict for verdict in gold.values() if verdict not in schema.VERDICTS_DECIDED})
    if wrong:
        raise StoreError(f"{wrong[0]!r} is no verdict that a gold pair can expect. Nothing was made.")
    outside = [pair_id for pair_id in gold if pair_id not in set(ids)]
    if outside:
        raise StoreError(f"Gold pair {outside[0]} is not among the pairs of the campaign. Nothing was made.")
    first = int(scalar(connection, "select coalesce(max(position), -1) + 1 from campaign_pairs where campaign_id = :c",
                       c=campaign_id))  # fmt: skip
    table = pa.table(
        {
            "pair_id": pa.array(ids, pa.int64()),
            "position": pa.array(range(first, first + len(ids)), pa.int64()),
            "gold": pa.array([gold.get(pair_id) for pair_id in ids], pa.string()),
        }
    )
    with registered(connection, "incoming", table):
        unknown = scalar(connection, "select min(i.pair_id) from incoming i anti join pairs p on p.pair_id = i.pair_id")
        if unknown is not None:
            raise StoreError(f"Pair {unknown} is not in the store any more. Nothing was made; choose the pairs anew.")
        connection.execute(
            text(
                "insert into campaign_pairs (campaign_id, pair_id, position, gold) "
                "select :campaign, pair_id, position, gold from incoming"
            ),
            {"campaign": campaign_id},
        )


def _put_people(connection: Connection, campaign_id: int, people: Iterable[str]) -> None:
    for identity in people:
        connection.execute(
            text("insert into campaign_people values (:campaign, :identity)"),
            {"campaign": campaign_id, "identity": identity},
        )


# --- reads ---

_CAMPAIGNS = f"""
    select c.campaign_id, c.name, c.overlap, c.settings, c.created_at, c.created_by,
        (select count(*) from campaign_pairs p where p.campaign_id = c.campaign_id) n_pairs,
        (select count(p.gold) from campaign_pairs p where p.campaign_id = c.campaign_id) n_gold,
        {LAST_STATE} last_kind,
        (select count(*) from campaign_events e where e.campaign_id = c.campaign_id and e.kind = 'guidelines')
            guidelines_version,
        (select arg_max(e.details, e.event_id) from campaign_events e where e.campaign_id = c.campaign_id
            and e.kind = 'guidelines') guidelines,
        (select list(m.identity order by m.identity) from campaign_people m where m.campaign_id = c.campaign_id) people
    from campaigns c"""


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _campaign(row: Mapping[str, Any]) -> Campaign:
    guidelines = _json(row["guidelines"])
    return Campaign(
        campaign_id=int(row["campaign_id"]),
        name=row["name"],
        overlap=int(row["overlap"]),
        settings=CampaignSettings.from_dict(_json(row["settings"])),
        state=_STATE_OF[row["last_kind"] or "created"],
        people=tuple(row["people"] or ()),
        guidelines=guidelines["text"] if guidelines else "",
        guidelines_version=int(row["guidelines_version"]),
        n_pairs=int(row["n_pairs"]),
        n_gold=int(row["n_gold"]),
        created_at=row["created_at"],
        created_by=row["created_by"],
    )


def campaigns(store: Store) -> list[Campaign]:
    """All campaigns, the newest first."""
    with store.read() as connection:
        return [_campaign(row) for row in rows(connection, f"{_CAMPAIGNS} order by c.campaign_id desc")]


def campaign(store: Store, campaign_id: int) -> Campaign:
    """One campaign.

    Raises:
        MissingError: there is none of this id.
    """
    with store.read() as connection:
        found = rows(connection, f"{_CAMPAIGNS} where c.campaign_id = :id", id=campaign_id)
    if not found:
        raise _missing(campaign_id)
    return _campaign(found[0])


def _missing(campaign_id: int) -> MissingError:
    return MissingError(f"There is no campaign {campaign_id} in this store. Choose one from the list.")


def pair_ids(store: Store, campaign_id: int) -> list[int]:
    """Its pairs in their order."""
    with store.read() as connection:
        found = frame(
            connection,
            "select pair_id from campaign_pairs where campaign_id = $c order by position",
            {"c": campaign_id},
        )
    return [int(pair_id) for pair_id in found["pair_id"].to_pylist()]


def events(store: Store, campaign_id: int) -> list[dict[str, Any]]:
    """What was changed, the newest first: ``event_id, kind, details, happened_at, done_by``; for guidelines also their
    ``version``."""
    with store.read() as connection:
        found = rows(
            connection,
            """select event_id, kind, details, happened_at, done_by,
                case when kind = 'guidelines' then row_number() over (partition by kind order by event_id) end version
            from campaign_events where campaign_id = :id order by event_id desc""",
            id=campaign_id,
        )
    return [{**row, "details": _json(row["details"])} for row in found]


# --- changes ---


def _change_state(store: Store, campaign_id: int, kind: str, *, allowed: Sequence[str], by: str | None) -> None:
    now = campaign(store, campaign_id)
    if now.state not in allowed:
        raise StoreError(f"The campaign is {now.state} already. Nothing was changed.")
    with store.write() as connection:
        _event(connection, campaign_id, kind, {}, by=by)


@said_plainly
def pause(store: Store, campaign_id: int, *, by: str | None = None) -> None:
    """Give out no further pair; what lies on desks may still be decided."""
    _change_state(store, campaign_id, "paused", allowed=("open",), by=by)


@said_plainly
def resume(store: Store, campaign_id: int, *, by: str | None = None) -> None:
    """Go on with a campaign that was paused or closed."""
    _change_state(store, campaign_id, "resumed", allowed=("paused", "closed"), by=by)


@said_plainly
def close(store: Store, campaign_id: int, *, by: str | None = None) -> None:
    """End it: no further decision counts. Its decisions stay, and adjudication goes on."""
    _change_state(store, campaign_id, "closed", allowed=("open", "paused"), by=by)


@said_plainly
def change_people(store: Store, campaign_id: int, people: Sequence[str], *, by: str | None = None) -> None:
    """Say anew who reviews; decisions of those who leave stay.

    Raises:
        SettingsError: fewer than the overlap. StoreError: everybody reviews in this campaign.
    """
    now = campaign(store, campaign_id)
    if now.settings.everybody:
        raise StoreError("Everybody with the role reviewer takes part in this campaign. Nothing was changed.")
    named = check_people(people, overlap=now.overlap, everybody=False)
    with store.write() as connection:
        for identity in set(now.people) - set(named):
            connection.execute(
                text("delete from campaign_people where campaign_id = :campaign and identity = :identity"),
                {"campaign": campaign_id, "identity": identity},
            )
        _put_people(connection, campaign_id, [one for one in named if one not in now.people])
        _event(connection, campaign_id, "people", {"people": list(named)}, by=by)


@said_plainly
def change_settings(
    store: Store, campaign_id: int, *, by: str | None = None, **those: Any
) -> dict[str, dict[str, Any]]:
    """Set some of ``core.campaign.CHANGEABLE`` anew. Returns what changed, by name: ``from`` and ``to``; what is as it
    was is no change.

    Raises:
        MissingError: there is no such campaign.
        SettingsError: one of them cannot be changed, or is out of range.
    """
    with store.write() as connection:
        stored = scalar(connection, "select settings from campaigns where campaign_id = :id", id=campaign_id)
        if stored is None:
            raise _missing(campaign_id)
        before = CampaignSettings.from_dict(_json(stored))
        after = before.changed(**those)
        old, new = before.to_dict(), after.to_dict()
        changed = {name: {"from": old[name], "to": new[name]} for name in CHANGEABLE if old[name] != new[name]}
        if changed:
            connection.execute(
                text("update campaigns set settings = :settings where campaign_id = :id"),
                {"id": campaign_id, "settings": json.dumps(new, sort_keys=True)},
            )
            _event(connection, campaign_id, "settings", changed, by=by)
    return changed


@said_plainly
def add_pairs(
    store: Store,
    campaign_id: int,
    ids: Sequence[int],
    *,
    gold: Mapping[int, str] | None = None,
    by: str | None = None,
) -> int:
    """Put further pairs at the end; those that are in it already are left out. Returns how many were added."""
    known = set(pair_ids(store, campaign(store, campaign_id).campaign_id))
    fresh = [pair_id for pair_id in dict.fromkeys(map(int, ids)) if pair_id not in known]
    if not fresh:
        return 0
    with store.write() as connection:
        _add_pairs(connection, campaign_id, fresh, gold={k: v for k, v in (gold or {}).items() if k not in known})
        _event(connection, campaign_id, "pairs", {"n_pairs": len(fresh)}, by=by)
    return len(fresh)


@said_plainly
def change_guidelines(store: Store, campaign_id: int, guidelines: str, *, by: str | None = None) -> int:
    """Write the next version of the guidelines and return its number; the same text again is no new version."""
    now = campaign(store, campaign_id)
    if guidelines.strip() == now.guidelines:
        return now.guidelines_version
    with store.write() as connection:
        _event(connection, campaign_id, "guidelines", {"text": _guidelines(guidelines)}, by=by)
    return now.guidelines_version + 1
