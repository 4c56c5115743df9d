"""People and roles: who was seen, whose role holds from when on, and that nobody is locked out."""

from __future__ import annotations

import threading

import pytest

from core.errors import NotAllowedError, StoreError
from core.sign_in import NAMES, PROVIDER
from db import decisions, people, permission
from db.permission import Actor
from db.store import Store, rows, scalar
from tests.db.conftest import EXAMPLES, add_pair

ADA, GRACE = "ada@lab.example", "grace@lab.example"


def test_a_person_is_kept_once_with_the_latest_name_and_moment(store: Store) -> None:
    people.see(store, ADA, "Ada", NAMES)
    first = people.people(store)[0]
    people.see(store, ADA, "Ada Lovelace", PROVIDER)
    (now,) = people.people(store)
    assert (now["name"], now["source"], now["role"], now["n_decisions"]) == ("Ada Lovelace", PROVIDER, None, 0)
    assert now["first_seen_at"] == first["first_seen_at"] < now["last_seen_at"]
    assert people.names(store) == {ADA: "Ada Lovelace"}


def test_many_sessions_of_one_person_at_a_time(store: Store) -> None:
    """Two updates of one row conflict in DuckDB: ten tabs that reload at once must not lose one to it."""
    failed: list[StoreError] = []

    def see() -> None:
        try:
            people.see(store, ADA, "Ada", PROVIDER)
        except StoreError as error:
            failed.append(error)

    threads = [threading.Thread(target=see) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(people.people(store)) == 1


def test_somebody_without_a_role_is_seen_so_that_an_admin_finds_them(store: Store) -> None:
    with permission.as_actor(Actor(GRACE, "Grace", "none")):
        people.see(store, GRACE, "Grace", PROVIDER)
    assert [one["identity"] for one in people.people(store)] == [GRACE]


def test_a_role_holds_from_the_next_question_on_and_the_change_is_kept(store: Store) -> None:
    assert people.role_of(store, GRACE, "none") == "none"
    people.grant(store, GRACE, "reviewer", ADA, admins={ADA})
    assert people.role_of(store, GRACE, "none") == "reviewer"
    people.grant(store, GRACE, "viewer", ADA, admins={ADA})
    assert people.role_of(store, GRACE, "admin") == "viewer"
    assert [(one["role"], one["changed_by"]) for one in people.role_changes(store)] == [
        ("viewer", ADA),
        ("reviewer", ADA),
    ]


def test_admins_of_the_environment_are_admins_whatever_the_table_says(store: Store) -> None:
    with store.write() as connection:
        connection.exec_driver_sql(
            "insert into role_changes values (nextval('role_change_ids'), 'Ada@Lab.example', 'none', now(), null)"
        )
    assert people.role_of(store, "Ada@Lab.example", "none", admins={ADA}) == "admin"
    with pytest.raises(StoreError, match="ASSAY_ADMINS"):
        people.grant(store, ADA, "viewer", None, admins={ADA})


def test_the_last_admin_stays(store: Store) -> None:
    people.grant(store, ADA, "admin", None)
    with pytest.raises(StoreError, match="last admin"):
        people.grant(store, ADA, "reviewer", ADA)
    assert people.role_of(store, ADA, "none") == "admin"
    people.grant(store, GRACE, "admin", ADA)
    people.grant(store, ADA, "reviewer", GRACE)
    with pytest.raises(StoreError, match="last admin"):
        people.grant(store, GRACE, "none", GRACE)
    people.grant(store, GRACE, "viewer", GRACE, default="admin")  # whoever comes next is admin: nobody is locked out


def test_two_admins_who_demote_each_other_at_one_moment_leave_one(store: Store) -> None:
    for identity in (ADA, GRACE):
        people.grant(store, identity, "admin", None)
    start = threading.Barrier(2)
    refused: list[str] = []

    def demote(whom: str) -> None:
        start.wait()
        try:
            people.grant(store, whom, "viewer", None)
        except StoreError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=demote, args=(whom,)) for whom in (ADA, GRACE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        left = scalar(connection, "select count(*) from current_roles where role = 'admin'")
    assert (left, len(refused)) == (1, 1)


@pytest.mark.parametrize(("identity", "role"), [(ADA, "owner"), (ADA, ""), (" ", "viewer")])
def test_what_is_no_role_or_nobody_is_refused(store: Store, identity: str, role: str) -> None:
    with pytest.raises(StoreError, match="Nothing was changed"):
        people.grant(store, identity, role, None)
    assert people.role_changes(store) == []


@pytest.mark.parametrize("role", ["none", "viewer", "reviewer"])
def test_only_an_admin_gives_roles(store: Store, role: str) -> None:
    with permission.as_actor(Actor(GRACE, "Grace", role)), pytest.raises(NotAllowedError):
        people.grant(store, GRACE, "admin", GRACE, default="admin")
    assert people.role_of(store, GRACE, role) == role


def test_names_of_old_decisions_stand_in_the_list(store: Store, dataset_id: int) -> None:
    pair_id = add_pair(store, dataset_id=dataset_id, original=EXAMPLES[0], candidate=EXAMPLES[1])
    decisions.decide(store, pair_id=pair_id, reviewer="Dana", verdict="accept")
    decisions.decide(store, pair_id=pair_id, reviewer="Dana", verdict="reject")
    (dana,) = people.people(store)
    assert (dana["identity"], dana["name"], dana["source"], dana["n_decisions"]) == ("Dana", "Dana", None, 2)
    with store.read() as connection:
        assert rows(connection, "select * from people") == []
