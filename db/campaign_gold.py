"""Gold pairs out of earlier decisions, and how long a decision takes here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from core.errors import SettingsError
from core.filters import PairFilter
from db import pair_queue, schema
from db.store import Store, frame, scalar

_MOST_LOOKED_AT = 20_000


def from_decided(store: Store, filters: PairFilter, *, n: int, seed: int = 0) -> dict[int, str]:
    """At most ``n`` decided pairs of a filter (whatever its state) with the verdict that stands on them.

    The surest first: ruled ones, then those on which two people or more agree, then all others; among equals by chance.
    """
    if n <= 0:
        return {}
    wide = replace(filters, state="decided", order="random", seed=seed, pair_list=None)
    ids = pair_queue.queue(store, wide)[:_MOST_LOOKED_AT].tolist()
    with store.read() as connection:
        found = frame(
            connection,
            """with asked as (select unnest($ids::bigint[]) pair_id, unnest(range(len($ids::bigint[]))) place),
            words as (
                select pair_id, count(*) n, count(distinct verdict || ':' || coalesce(result_id, -1)) n_words
                from reviewer_decisions where pair_id in (select pair_id from asked) group by pair_id)
            select a.pair_id, c.verdict from asked a
            join current_decisions c on c.pair_id = a.pair_id left join words w on w.pair_id = a.pair_id
            order by c.purpose = 'adjudication' desc, coalesce(w.n >= 2 and w.n_words = 1, false) desc, a.place
            limit $n""",
            {"ids": ids, "n": n},
        )
    return dict(zip(found["pair_id"].to_pylist(), found["verdict"].to_pylist(), strict=True))


def by_hand(text: str) -> dict[int, str]:
    """Gold pairs as somebody writes them: ``12 accept, 40 reject``, by commas or lines.

    Raises:
        SettingsError: a part is not a pair's number and a verdict.
    """
    gold = {}
    for part in filter(None, (part.strip() for part in re.split(r"[,;\n]", text))):
        found = re.fullmatch(r"(\d{1,15})[\s:=]+([a-z_ ]+)", part.lower())
        verdict = found.group(2).strip().replace(" ", "_") if found else ""
        if found is None or verdict not in schema.VERDICTS_DECIDED:
            raise SettingsError(
                f"{part[:60]!r} is no gold pair. Write the number of the pair and what is expected, for example "
                f"12 accept; the verdicts are {', '.join(schema.VERDICTS_DECIDED)}."
            )
        gold[int(found.group(1))] = verdict
    return gold


def check_pairs(store: Store, pair_ids: Iterable[int]) -> None:
    """Whether there are such pairs.

    Raises:
        SettingsError: one is not in the store.
    """
    with store.read() as connection:
        asked = "select unnest($ids::bigint[]) pair_id"
        found = frame(connection, f"{asked} except select pair_id from pairs order by 1", {"ids": list(pair_ids)})
    if found.num_rows:
        raise SettingsError(f"There is no pair {found['pair_id'][0].as_py()} in this store. Choose another gold pair.")


def median_seconds(store: Store) -> float | None:
    """Median of the seconds of the last 500 timed decisions of all people; None where there is none."""
    with store.read() as connection:
        found = scalar(
            connection,
            f"""select median(seconds) from (
                select seconds from decisions where seconds is not null and purpose = 'review'
                    and verdict in {schema.VERDICTS_DECIDED!r}
                order by decision_id desc limit 500)""",
        )
    return None if found is None else float(found)
