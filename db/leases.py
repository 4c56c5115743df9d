"""Leases: which pairs of a campaign lie on whose desk, so that no two people work on one unless overlap is wanted.

At any moment, for each pair: people whose decision counts + live leases of others <= overlap. A lease lives as long as
its desk is heard of (each sync is a heartbeat). Who holds what is kept in memory, under one lock for each campaign; the
rows of ``leases`` are there for the next start of the server, which honours each for one lease length. Decisions of a
campaign are stored under the same lock, so nobody else's can come between looking for room and storing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, text

from core.campaign import MOST_LEASES, Campaign
from core.errors import NotAllowedError
from core.lease_table import Desk, LeaseTable, Outlook, late_words, why_none
from db import campaigns, decisions, schema
from db.decisions import Applied, Entry, Guard
from db.store import Store, frame, registered, said_plainly, scalar, utc_now

_WINDOW = 500


class Leases:
    """The leases of all campaigns of one store; safe from any thread. ``clock`` gives seconds that only rise."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is read before it is needed."""
        self.store, self.clock = store, clock
        self._lock = threading.Lock()
        self._locks: dict[int, threading.RLock] = {}
        self._tables: dict[int, LeaseTable] = {}

    # --- what desks ask ---

    @said_plainly
    def take(
        self, campaign_id: int, *, identity: str, session: str, want: int, holding: Sequence[int] = ()
    ) -> list[int]:
        """Pair ids for a desk, leased from now on: at most ``want``, beside those it is ``holding`` already.

        A desk holds at most ``MOST_LEASES`` pairs. What lies on this desk but is not among ``holding`` (an answer got
        lost on its way) is given again first. A desk that has nothing, where nothing is free, gets what lies on older
        desks of the same person: a tab that was closed without a word. A paused or closed campaign gives nothing.

        Raises:
            StoreError: there is no such campaign.
            NotAllowedError: this person does not take part in it.
        """
        desk = (identity, session)
        with self._at(campaign_id) as table:
            if not table.campaign.takes_part(identity):
                raise NotAllowedError(
                    f"You do not take part in the campaign {table.campaign.name!r}. Ask an admin to be added."
                )
            self._beat(table, desk)
            if table.campaign.state != "open":
                return []
            held = table.desks.get(desk, set())
            there = {table.place[pair_id] for pair_id in map(int, holding) if pair_id in table.place}
            lost = held - there
            given = sorted(lost, key=lambda place: int(table.order(identity)[place]))[: max(0, want)]
            want = min(want - len(given), MOST_LEASES - len(held))
            fresh = table.free_for(identity, want, but=there)
            if want > 0 and not fresh and not given:
                for idle in table.idle(self.clock(), desk):
                    table.clear(idle)
                fresh = table.free_for(identity, want, but=there)
                if not fresh and not held and not holding:
                    table.take_over(desk)
                    fresh = table.free_for(identity, want)
            for place in fresh:
                table.lease(place, desk)
            if fresh:
                table.decided_at.setdefault(desk, self.clock())
                self._keep(table)
            return [int(table.ids[place]) for place in (*given, *fresh)]

    @said_plainly
    def renew(self, campaign_id: int, *, identity: str, session: str, holding: Sequence[int]) -> list[int]:
        """A heartbeat of a desk. Returns those of ``holding`` that it lost: decided by others meanwhile, or given away.

        A lease that ran out is taken again where the pair still has room.
        """
        desk = (identity, session)
        lost = []
        with self._at(campaign_id) as table:
            self._beat(table, desk)
            for pair_id in holding:
                place = table.place.get(int(pair_id))
                if place is None or table.campaign.state == "closed":
                    lost.append(int(pair_id))
                elif place in table.desks.get(desk, ()):
                    continue
                elif table.campaign.takes_part(identity) and table.may_lie_on(place, identity):
                    table.lease(place, desk)
                else:
                    lost.append(int(pair_id))
            if table.leases() - table.stored:
                self._keep(table)
        return lost

    @said_plainly
    def release(self, campaign_id: int, *, identity: str, session: str, pair_ids: Sequence[int] | None = None) -> None:
        """Give pairs of a desk back; all of them when it closes."""
        desk = (identity, session)
        with self._at(campaign_id) as table:
            if pair_ids is None:
                table.clear(desk)
            for pair_id in pair_ids or ():
                place = table.place.get(int(pair_id))
                if place in table.desks.get(desk, ()):
                    table.drop(place, identity)
            self._keep(table)

    def outlook(self, campaign_id: int, *, identity: str, session: str | None = None) -> Outlook:
        """What is left for a person, in numbers and, where nothing can be given now, in a sentence.

        With ``session`` also what lies on other desks of the same person counts as held.
        """
        with self._at(campaign_id) as table:
            free = table.n_free(identity)
            is_open = table.n_counted < table.campaign.overlap
            held = int((is_open & ~table.mine(identity)).sum()) - free
            held += 0 if session is None else table.n_elsewhere((identity, session))
            n_decided = len(table.decided.get(identity, ()))
            return Outlook(free, held, n_decided, why_none(table, free, held, identity))

    def out(self, campaign_id: int) -> list[dict[str, Any]]:
        """Pairs that lie on desks now: ``pair_id, identity, session, idle_seconds`` (since the desk was heard of)."""
        with self._at(campaign_id) as table:
            now = self.clock()
            return [
                {"pair_id": int(table.ids[place]), "identity": identity, "session": session,
                 "idle_seconds": now - table.beats[identity, session]}
                for place, identity, session in sorted(table.leases())
            ]  # fmt: skip

    # --- decisions ---

    @said_plainly
    def apply(self, campaign_id: int, entries: Sequence[Entry], *, identity: str, session: str) -> list[Applied]:
        """Store a desk's entries as decisions of the campaign: :func:`db.decisions.apply` under the campaign's lock.

        A decision counts if it lies on this person's desk or the pair has room; or if this person's word counts
        already and is replaced. Else it came **late**: it is stored with the purpose "late", which never counts, and
        answered by ``kind="info"`` and a sentence. So a campaign never collects more than its overlap, and no verdict
        is lost. ``shown`` gets the version of the guidelines.

        Raises:
            StoreError: there is no such campaign, or the store failed: nothing of the last transaction is stored then.
            NotAllowedError: the role of who acts does not allow it.
        """
        desk = (identity, session)
        with self._at(campaign_id) as table:
            self._beat(table, desk)
            own = [self._of_campaign(table.campaign, entry) for entry in entries]
            late: dict[str, str] = {}
            found = decisions.apply(self.store, own, reviewer=identity, guard=self._guard(table, identity, late))
            by_press = {entry.press: entry for entry in own}
            again = [replace(by_press[one.press], purpose="late") for one in found if one.press in late]
            kept = {one.press: one for one in decisions.apply(self.store, again, reviewer=identity)}
            found = [self._late(kept[one.press], late[one.press]) if one.press in kept else one for one in found]
            self._settle(table, desk, found, late)
            return self._say(table, found)

    @staticmethod
    def _of_campaign(campaign: Campaign, entry: Entry) -> Entry:
        shown = {**entry.shown, "campaign_id": campaign.campaign_id, "blind": campaign.settings.blind}
        if campaign.guidelines_version:
            shown["guidelines_version"] = campaign.guidelines_version
        return replace(entry, purpose="review", campaign_id=campaign.campaign_id, check_seen=False, shown=shown)

    def _guard(self, table: LeaseTable, identity: str, late: dict[str, str]) -> Guard:
        """Refuses what does not belong here; names in ``late`` the presses that came too late, by their sentence."""
        campaign = table.campaign

        def asked(_connection: Connection, entry: Entry) -> str | None:
            place = table.place.get(entry.pair_id or 0)
            if place is None:
                return f"Pair {entry.pair_id} is not part of the campaign {campaign.name!r}. Nothing was stored."
            if not campaign.takes_part(identity):
                return f"You do not take part in the campaign {campaign.name!r}. Nothing was stored."
            if entry.verdict not in schema.VERDICTS_DECIDED:
                return None
            # Memory follows the store at each call, and nothing else stores decisions of this campaign meanwhile.
            people = table.deciders.get(place, set())
            if campaign.state == "closed":
                late[entry.press] = (
                    f"The campaign was closed before pair {entry.pair_id} was decided. Your verdict is kept in the "
                    "history; it does not count."
                )
            elif identity not in people and not table.has_room(place, identity):
                late[entry.press] = late_words(entry.pair_id, len(people), campaign.overlap)
            return late.get(entry.press)

        return asked

    @staticmethod
    def _late(applied: Applied, sentence: str) -> Applied:
        return replace(applied, kind="info", text=sentence) if applied.kind == "ok" else applied

    def _settle(self, table: LeaseTable, desk: Desk, found: Sequence[Applied], late: Mapping[str, str]) -> None:
        """Take what was stored over into memory; runs after the commit."""
        recount = set()
        for applied in found:
            if applied.decision_id is not None:
                table.recent.add(applied.decision_id)
            place = table.place.get(applied.pair_id or 0)
            if place is None or applied.kind == "error":
                continue
            if applied.verdict == "skip":
                table.skipped.setdefault(desk[0], set()).add(place)
                table.drop(place, desk[0])
            if applied.verdict in schema.VERDICTS_DECIDED:
                table.drop(place, desk[0])
                table.decided_at[desk] = self.clock()
                if applied.known or applied.undone is not None:
                    recount.add(place)
                elif applied.press not in late:
                    table.count(place, table.deciders.get(place, set()) | {desk[0]})
            if applied.undone is not None:
                table.skipped.get(desk[0], set()).discard(place)
        if recount:  # what was taken back may leave an earlier decision of the same person standing
            with self.store.read() as connection:
                self._recount(connection, table, recount)
        for applied in found:  # a pair that was given back by an undo lies on the desk again, where it has room
            place = table.place.get(applied.pair_id or 0)
            if applied.undone is None or place is None or table.campaign.state == "closed":
                continue
            if table.may_lie_on(place, desk[0]):
                table.lease(place, desk)

    def _say(self, table: LeaseTable, found: list[Applied]) -> list[Applied]:
        """Sentences that only the store knows: a resend of a late decision, and what a gold pair expected."""
        plain = [one for one in found if one.kind == "ok" and one.undone is None]
        resent = [one.press for one in plain if one.known]
        gold = [one.pair_id for one in plain] if table.campaign.settings.gold_feedback and table.campaign.n_gold else []
        if not resent and not gold:
            return found
        with self.store.read() as connection:
            late = frame(
                connection,
                "select press from decisions where purpose = 'late' and press in (select unnest($p::varchar[]))",
                {"p": resent},
            )["press"].to_pylist()
            expected = frame(
                connection,
                """select pair_id, gold from campaign_pairs
                where campaign_id = $c and gold is not null and pair_id in (select unnest($ids::bigint[]))""",
                {"c": table.campaign.campaign_id, "ids": gold},
            ).to_pylist()
        wanted = {row["pair_id"]: row["gold"] for row in expected}
        said = []
        for one in found:
            if one.press in late:
                one = replace(one, kind="info", text=late_words(one.pair_id, None, table.campaign.overlap))
            elif one in plain and one.verdict in schema.VERDICTS_DECIDED and one.pair_id in wanted:
                expects = wanted[one.pair_id]
                right = "as expected" if expects == one.verdict else f"{expects.replace('_', ' ')} was expected"
                one = replace(one, kind="info", text=f"Pair {one.pair_id} is a gold pair: {right}.")
            said.append(one)
        return said

    # --- memory and store ---

    @contextmanager
    def _at(self, campaign_id: int) -> Any:
        """The table of a campaign as it is now, alone with it."""
        with self._lock:
            lock = self._locks.setdefault(campaign_id, threading.RLock())
        with lock:
            yield self._table(campaign_id)

    def _table(self, campaign_id: int) -> LeaseTable:
        table = self._tables.get(campaign_id)
        with self.store.read() as connection:
            event_id = scalar(
                connection, "select max(event_id) from campaign_events where campaign_id = :c", c=campaign_id
            )
            if table is not None and table.event_id == event_id:
                self._follow(connection, table)
        if table is None or table.event_id != event_id:
            table = self._tables[campaign_id] = self._load(campaign_id, int(event_id or 0), table)
        table.sweep(self.clock())
        return table

    def _load(self, campaign_id: int, event_id: int, before: LeaseTable | None) -> LeaseTable:
        """Read a campaign; leases come from ``before``, or from the store where the server has just started."""
        campaign = campaigns.campaign(self.store, campaign_id)
        asked = {"campaign": campaign_id}
        with self.store.read() as connection:
            pairs = frame(
                connection, "select pair_id from campaign_pairs where campaign_id = $campaign order by position", asked
            )
            table = LeaseTable(campaign, event_id, pairs["pair_id"].to_numpy())
            table.floor = int(scalar(connection, "select coalesce(max(decision_id), 0) from decisions")) - _WINDOW
            self._recount(connection, table, None)
            skipped = """select distinct pair_id, reviewer from standing_decisions
                where campaign_id = $campaign and verdict = 'skip'"""
            for row in frame(connection, skipped, asked).to_pylist():
                if row["pair_id"] in table.place:
                    table.skipped.setdefault(row["reviewer"], set()).add(table.place[row["pair_id"]])
            kept = frame(
                connection, "select pair_id, identity, session from leases where campaign_id = $campaign", asked
            ).to_pylist()
        now = self.clock()
        if before is None:
            held = [((row["identity"], row["session"]), row["pair_id"]) for row in kept]
            table.beats = {desk: now for desk, _ in held}
            table.decided_at = dict(table.beats)
        else:
            held = [(desk, int(before.ids[place])) for desk, places in before.desks.items() for place in places]
            table.beats, table.decided_at = dict(before.beats), dict(before.decided_at)
        table.stored = {
            (table.place[row["pair_id"]], row["identity"], row["session"])
            for row in kept if row["pair_id"] in table.place
        }  # fmt: skip
        for desk, pair_id in held:
            place = table.place.get(pair_id)
            if place is not None and table.may_lie_on(place, desk[0]):
                table.lease(place, desk)
        return table

    def _follow(self, connection: Connection, table: LeaseTable) -> None:
        """Count what was decided or taken back past these leases (History, another scope)."""
        found = frame(
            connection,
            """select decision_id, pair_id from decisions
            where decision_id > $floor and (campaign_id = $campaign or verdict = 'undo')""",
            {"floor": table.floor, "campaign": table.campaign.campaign_id},
        ).to_pylist()
        fresh = {
            table.place[row["pair_id"]] for row in found
            if row["decision_id"] not in table.recent and row["pair_id"] in table.place
        }  # fmt: skip
        if fresh:
            self._recount(connection, table, fresh)
        # Ids are drawn before the commit: one that commits late lies below the newest, so a window is read again.
        newest = max((row["decision_id"] for row in found), default=table.floor)
        table.floor = max(table.floor, newest - _WINDOW)
        table.recent = {row["decision_id"] for row in found if row["decision_id"] > table.floor}

    def _recount(self, connection: Connection, table: LeaseTable, places: Iterable[int] | None) -> None:
        campaign_id = table.campaign.campaign_id
        wanted = None if places is None else [int(table.ids[place]) for place in places]
        found = _deciders(connection, campaign_id, wanted)
        for pair_id in wanted if wanted is not None else found:
            if pair_id in table.place:
                table.count(table.place[pair_id], found.get(pair_id, set()))

    def _beat(self, table: LeaseTable, desk: Desk) -> None:
        table.beats[desk] = self.clock()  # a dictionary: desks stay in the order in which they were opened

    def _keep(self, table: LeaseTable) -> None:
        """Make the rows of ``leases`` what lies on desks now; when this returns, a restart will honour it."""
        live = table.leases()
        fresh, gone = sorted(live - table.stored), sorted(table.stored - live)
        if not fresh and not gone:
            return
        with self.store.write("review") as connection:
            asked = {"campaign": table.campaign.campaign_id}
            for sql, changed, more in ((_DROP, gone, {}), (_PUT, fresh, {"now": utc_now()})):
                if changed:
                    rows = pa.table(
                        {
                            "pair_id": pa.array([int(table.ids[place]) for place, _, _ in changed], pa.int64()),
                            "identity": [identity for _, identity, _ in changed],
                            "session": [session for _, _, session in changed],
                        }
                    )
                    with registered(connection, "changed", rows):
                        connection.execute(text(sql), {**asked, **more})
        table.stored = live


_DROP = """delete from leases using changed c where leases.campaign_id = :campaign and leases.pair_id = c.pair_id
    and leases.identity = c.identity and leases.session = c.session"""
_PUT = """insert into leases select nextval('lease_ids'), :campaign, pair_id, identity, session, :now from changed"""


def _deciders(connection: Connection, campaign_id: int, pair_ids: Sequence[int] | None) -> dict[int, set[str]]:
    """Whose decisions count, by pair."""
    sql = f"select distinct pair_id, reviewer from standing_decisions where {campaigns.COUNTS}"
    asked: dict[str, object] = {"campaign": campaign_id}
    if pair_ids is not None:
        sql, asked = f"{sql} and list_contains($ids, pair_id)", {**asked, "ids": list(pair_ids)}
    found: dict[int, set[str]] = {}
    for row in frame(connection, sql, asked).to_pylist():
        found.setdefault(row["pair_id"], set()).add(row["reviewer"])
    return found
