"""Kinds of desks beside the queue of a filter: a campaign, its disputed pairs, a second look, a spot check."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from core.campaign import MOST_LEASES, Campaign
from core.errors import NotAllowedError, SettingsError, StoreError
from core.filters import PairFilter
from db import adjudication, campaign_progress, campaigns, decisions, pair_models, review
from db.decisions import Applied, Entry
from db.permission import Actor
from db.service import Service
from pages._review.scopes import AHEAD, FilterScope, FrozenLine, Line, Scope
from pages._review.view import when_said


class LeasedLine:
    """The pairs that a campaign gives to one desk: each is leased to it while it is heard of (db/leases.py)."""

    def __init__(self, service: Service, campaign_id: int, *, identity: str, session: str, length: int) -> None:
        self._leases, self._desk = service.leases, {"identity": identity, "session": session}
        self._identity, self._id, self._length = identity, campaign_id, length

    @property
    def length(self) -> int:
        return self._length

    @property
    def elsewhere(self) -> int:
        return 0

    def more(self, n: int, *, holding: Sequence[int]) -> list[int]:
        if n <= 0:
            return []
        return self._leases.take(self._id, **self._desk, want=n, holding=list(holding))

    def lost(self, holding: Sequence[int], *, want: int = 0) -> list[int]:
        return self._leases.renew(self._id, **self._desk, holding=list(holding))

    def is_over(self) -> bool:
        found = self._leases.outlook(self._id, **self._desk)
        return not found.n_free and (found.is_over or "campaign is" in found.text)

    def left(self, holding: int) -> int:
        return self._leases.outlook(self._id, identity=self._identity).n_free + holding

    def place(self, pair_id: int) -> int | None:
        return None

    def last_words(self) -> str:
        return self._leases.outlook(self._id, **self._desk).text


@dataclass(frozen=True)
class CampaignScope:
    """One's part of a campaign."""

    campaign: Campaign
    purpose: str = "review"
    names_hidden: bool = False
    check_seen: bool = False
    ahead: Mapping[str, int] = field(default_factory=lambda: {"least": MOST_LEASES, "most": MOST_LEASES})

    @property
    def named(self) -> dict[str, Any]:
        return {"kind": "campaign", "id": self.campaign.campaign_id}

    @property
    def campaign_id(self) -> int | None:
        return self.campaign.campaign_id

    @property
    def blind(self) -> bool:
        return self.campaign.settings.blind

    @property
    def guidelines(self) -> str | None:
        return self.campaign.guidelines or None

    @property
    def title(self) -> str:
        more = "" if self.campaign.state == "open" else f" ({self.campaign.state})"
        return f"Campaign: {self.campaign.name}{more}"

    def line(self, service: Service, actor: Actor, *, session: str, holding: Sequence[int], fresh: bool) -> Line:
        return LeasedLine(
            service, self.campaign.campaign_id, identity=actor.identity, session=session, length=self.campaign.n_pairs
        )

    def only(self, service: Service, pair_ids: Sequence[int]) -> Line | None:
        return None  # what was skipped comes back by itself, after all others

    def apply(self, service: Service, actor: Actor, entries: Sequence[Entry], *, session: str) -> list[Applied]:
        return service.leases.apply(self.campaign.campaign_id, entries, identity=actor.identity, session=session)

    def voices(self, service: Service, pair_id: int) -> list[dict[str, Any]]:
        return []

    def leave(self, service: Service, actor: Actor, *, session: str) -> None:
        service.leases.release(self.campaign.campaign_id, identity=actor.identity, session=session)

    @property
    def count_key(self) -> list[Any]:
        return ["campaign", self.campaign.campaign_id]

    def counts(self, service: Service) -> dict[str, Any]:
        found = campaign_progress.progress(service.store, self.campaign.campaign_id)
        return {"n_pairs": found.n_pairs, "n_decided": found.n_pairs - found.states.get("waiting", 0)}

    def shown(self) -> dict[str, Any]:
        return {"guidelines_version": self.campaign.guidelines_version} if self.campaign.guidelines_version else {}


@dataclass(frozen=True)
class ListedScope:
    """Some pairs that were picked for a purpose, each to be decided once; ``kind`` and ``number`` name the list."""

    kind: str
    number: int
    title: str
    ids_for: Callable[[Service, str], Sequence[int]]
    taken: Callable[[Service, str, Sequence[int]], set[int]]
    purpose: str
    campaign_id: int | None
    blind: bool
    check_seen: bool
    adjudication: bool = False
    names_hidden: bool = False
    guidelines: str | None = None
    nothing: str = ""
    ahead: Mapping[str, int] = field(default_factory=lambda: AHEAD)

    @property
    def named(self) -> dict[str, Any]:
        return {"kind": self.kind, "id": self.number}

    def _line(self, service: Service, identity: str, pair_ids: Sequence[int], holding: Sequence[int] = ()) -> Line:
        ids = np.asarray(list(pair_ids), np.int64)
        taken = partial(self.taken, service, identity)
        return FrozenLine(ids, taken=taken, holding=holding, nothing=self.nothing)

    def line(self, service: Service, actor: Actor, *, session: str, holding: Sequence[int], fresh: bool) -> Line:
        return self._line(service, actor.identity, self.ids_for(service, actor.identity), holding)

    def only(self, service: Service, pair_ids: Sequence[int]) -> Line | None:
        return self._line(service, "", pair_ids)

    def apply(self, service: Service, actor: Actor, entries: Sequence[Entry], *, session: str) -> list[Applied]:
        guard = None
        if self.adjudication:
            guard = adjudication.guard(
                service.store, self.number, identity=actor.identity, is_admin=actor.may("administer")
            )
        return decisions.apply(service.store, entries, reviewer=actor.identity, guard=guard)

    def voices(self, service: Service, pair_id: int) -> list[dict[str, Any]]:
        if not self.adjudication:
            return []
        found = adjudication.voices(service.store, pair_id, hide_names=self.names_hidden)
        return [
            {"name": one["name"], "text": one["text"], "note": one["note"], "kind": one["kind"],
             "when": when_said(one["when"]), "texts": one["texts"]}
            for one in found
        ]  # fmt: skip

    def leave(self, service: Service, actor: Actor, *, session: str) -> None:
        """Nothing lies on it that others could not have."""

    @property
    def count_key(self) -> list[Any]:
        return [self.kind, self.number]

    def counts(self, service: Service) -> dict[str, Any]:
        if self.campaign_id is None:
            return review.counts(service.store)
        found = campaign_progress.progress(service.store, self.campaign_id)
        settled = sum(found.states.get(name, 0) for name in ("agreed", "adjudicated", "bulk"))
        return {"n_pairs": found.n_pairs, "n_decided": settled}

    def shown(self) -> dict[str, Any]:
        return {self.kind: self.number}


def _settled(service: Service, _identity: str, pair_ids: Sequence[int]) -> set[int]:
    return review.decided_among(service.store, pair_ids)


def _checked(service: Service, _identity: str, pair_ids: Sequence[int]) -> set[int]:
    """Pairs of a spot check that a person has decided since the model did."""
    with service.store.read() as connection:
        found = review.standing(connection, decisions.events_of(connection, pair_ids))
    return {pair_id for pair_id, row in found.items() if row["purpose"] != "bulk"}


def _adjudication(campaign: Campaign, actor: Actor) -> Scope:
    if not actor.may("administer") and actor.identity not in campaign.settings.adjudicators:
        raise NotAllowedError(
            f"Admins and the adjudicators of {campaign.name!r} rule on its disputes. Ask an admin to name you."
        )
    number = campaign.campaign_id
    return ListedScope(
        kind="adjudication", number=number, title=f"Adjudication: {campaign.name}",
        ids_for=lambda service, identity: adjudication.disputed(service.store, number, identity), taken=_settled,
        purpose="adjudication", campaign_id=number, blind=False, check_seen=True, adjudication=True,
        names_hidden=campaign.settings.blind, guidelines=campaign.guidelines or None,
        nothing="No pair of this campaign waits for your ruling: none is disputed, or only pairs that you decided "
        "yourself, which others rule on.",
    )  # fmt: skip


def _second_look(campaign: Campaign, actor: Actor) -> Scope:
    if not campaign.takes_part(actor.identity):
        raise NotAllowedError(f"You do not take part in the campaign {campaign.name!r}. Ask an admin to be added.")
    number = campaign.campaign_id

    def seen_again(service: Service, identity: str, pair_ids: Sequence[int]) -> set[int]:
        return (
            set()
            if not identity
            else set(pair_ids) - set(adjudication.second_look_ids(service.store, number, identity))
        )

    return ListedScope(
        kind="second_look", number=number, title=f"A second look: {campaign.name}",
        ids_for=lambda service, identity: adjudication.second_look_ids(service.store, number, identity),
        taken=seen_again, purpose="second_look", campaign_id=number, blind=True, check_seen=False,
        guidelines=campaign.guidelines or None, nothing="No pair waits for your second look now.",
    )  # fmt: skip


def _spot_check(service: Service, model_id: int) -> Scope:
    if all(one["model_id"] != model_id for one in pair_models.auto_accepts(service.store)):
        raise StoreError(f"No model {model_id} has accepted pairs here. Look for its bulk decisions on the Pairs page.")
    return ListedScope(
        kind="spot_check", number=model_id, title=f"Spot check of what model {model_id} accepted",
        ids_for=lambda service, _identity: pair_models.spot_check_ids(service.store, model_id), taken=_checked,
        purpose="review", campaign_id=None, blind=True, check_seen=False,
    )  # fmt: skip


def read(service: Service, actor: Actor, named: Mapping[str, Any]) -> Scope:
    """The scope that JSON names, for this person.

    Raises:
        AssayError: it names nothing that is there; a sentence.
        NotAllowedError: this person has no part in it.
    """
    kind, number = named.get("kind"), named.get("id")
    if kind == "filter":
        params = named.get("params")
        if not isinstance(params, Mapping):
            raise SettingsError("The queue of this desk cannot be read. Reload the page.")
        try:
            json.dumps(dict(params), ensure_ascii=False).encode()
        except ValueError as error:  # half a character (a lone surrogate) can be looked for nowhere
            raise SettingsError("The queue of this desk holds a text that is no text. Reload the page.") from error
        return FilterScope(PairFilter.from_params({str(key): str(value) for key, value in params.items()}))
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**62:
        raise SettingsError(f"There is no review of the kind {kind!r} without a number. Reload the page.")
    match kind:
        case "campaign":
            campaign = campaigns.campaign(service.store, number)
            if not campaign.takes_part(actor.identity):
                raise NotAllowedError(
                    f"{actor.name} does not take part in the campaign {campaign.name!r}. Ask an admin to be added."
                )
            return CampaignScope(campaign)
        case "adjudication":
            return _adjudication(campaigns.campaign(service.store, number), actor)
        case "second_look":
            return _second_look(campaigns.campaign(service.store, number), actor)
        case "spot_check":
            return _spot_check(service, number)
    raise SettingsError(f"There is no review of the kind {kind!r}. Reload the page.")
