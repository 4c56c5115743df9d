"""Numbers of the meeting board: one short query a slide, and the mark that says whether a slide's numbers changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db import campaign_progress
from db import campaigns as campaigns_stored
from db.schema import RUN_KINDS, VERDICTS_DECIDED
from db.store import Store, frame

N_BINS = 30
_ACCEPTING = tuple(verdict for verdict in VERDICTS_DECIDED if verdict != "reject")

_MARK = """select (select count(*) from datasets) datasets, (select coalesce(max(dataset_id), 0) from datasets) newest,
    (select bit_xor(hash(dataset_id, name, n_members)) from datasets) named,
    (select count(*) from scorers) scorers, (select count(*) from scores) scores,
    (select count(*) from jobs) jobs, (select count(*) from job_shards) shards,
    (select count(*) from runs) runs, (select coalesce(max(result_id), 0) from run_results) results,
    (select count(*) from fits) fits, (select coalesce(max(fit_id), 0) from fits) newest_fit,
    (select count(*) from reflections) reflections, (select count(*) from pairs) pairs,
    (select count(*) from decisions) decisions, (select coalesce(max(event_id), 0) from campaign_events) campaigns,
    (select coalesce(max(judgement_id), 0) from judgements) judgements,
    (select count(*) from comparisons) comparisons,
    (select coalesce(max(event_id), 0) from board_events where kind = 'vote') votes"""


def mark(store: Store) -> dict[str, int]:
    """A few counts that change whenever what they are named for does. 4 ms at a million rows: no table is scanned."""
    with store.read() as connection:
        found = frame(connection, _MARK).to_pylist()[0]
    return {name: int(value or 0) for name, value in found.items()}


def coverage(store: Store) -> tuple[int, list[dict[str, Any]]]:
    """Rows of all datasets but runs' (each example once), and of every scorer how many have a value or a NULL.

    The lines are ``scorer_id, output, model, template, n_values, n_nulls, reason`` (the most frequent of the NULLs).
    """
    with store.read() as connection:
        n_rows = frame(connection, f"select count(*) n from ({_EXAMPLES})").to_pylist()[0]["n"]
        found = frame(
            connection,
            f"""select s.scorer_id, s.output, s.model, s.template, count(c.value) n_values,
                count(*) - count(c.value) n_nulls, mode(c.reason) filter (c.value is null) reason
            from scores c join scorers s on s.scorer_id = c.scorer_id
            where c.example_id in ({_EXAMPLES}) group by all order by s.scorer_id""",
        ).to_pylist()
    return int(n_rows), found


_EXAMPLES = f"""select distinct m.example_id from members m
    where m.dataset_id not in (select dataset_id from datasets where kind in {RUN_KINDS!r})"""


@dataclass(frozen=True)
class Distribution:
    """How the values of one scorer spread over all rows that have one.

    ``edges`` are ``N_BINS + 1`` and ``counts`` ``N_BINS``, from the 0.5 % to the 99.5 % quantile; the tails are
    counted in the outer bins. Equal edges at both ends (one value only) give one bin.
    """

    scorer_id: int
    output: str
    model: str | None
    template: str | None
    n: int
    q25: float
    median: float
    q75: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


def distributions(store: Store) -> list[Distribution]:
    """The distribution of every scorer that has a value of a row of a dataset (each example once)."""
    with store.read() as connection:
        found = frame(
            connection,
            f"""with v as (select scorer_id, value from scores
                    where value is not null and isfinite(value) and example_id in ({_EXAMPLES})),
                q as (select scorer_id, count(*) n, quantile_cont(value, [0.005, 0.25, 0.5, 0.75, 0.995]) q
                    from v group by scorer_id),
                b as (select v.scorer_id, case when q.q[5] > q.q[1] then least({N_BINS - 1}, greatest(0,
                        floor((v.value - q.q[1]) / (q.q[5] - q.q[1]) * {N_BINS})))::int else 0 end bin, count(*) n
                    from v join q on q.scorer_id = v.scorer_id group by all),
                l as (select scorer_id, list({{'bin': bin, 'n': n}}) bins from b group by scorer_id)
            select q.scorer_id, s.output, s.model, s.template, q.n, q.q, l.bins from q
            join l on l.scorer_id = q.scorer_id join scorers s on s.scorer_id = q.scorer_id order by q.scorer_id""",
        ).to_pylist()
    return [_distribution(row) for row in found]


def _distribution(row: Mapping[str, Any]) -> Distribution:
    low, q25, median, q75, high = row["q"]
    counts = {one["bin"]: int(one["n"]) for one in row["bins"]}
    if high > low:
        edges = tuple(low + (high - low) * i / N_BINS for i in range(N_BINS + 1))
        heights = tuple(counts.get(i, 0) for i in range(N_BINS))
    else:
        edges, heights = (low, high), (counts[0],)
    names = {key: row[key] for key in ("scorer_id", "output", "model", "template", "n")}
    return Distribution(**names, q25=q25, median=median, q75=q75, edges=edges, counts=heights)


def review_by_dataset(store: Store) -> list[dict[str, Any]]:
    """Pairs of each dataset by what stands: ``dataset, n_pairs, n_accepted, n_rejected, n_undecided, n_flagged``."""
    with store.read() as connection:
        return frame(
            connection,
            f"""select p.dataset_id, coalesce(any_value(d.name), 'removed dataset') dataset, count(*) n_pairs,
                count(*) filter (c.verdict in {_ACCEPTING!r}) n_accepted,
                count(*) filter (c.verdict = 'reject') n_rejected,
                count(*) filter (c.pair_id is null) n_undecided, count(*) filter (f.verdict = 'flag') n_flagged
            from pairs p left join datasets d on d.dataset_id = p.dataset_id
            left join current_decisions c on c.pair_id = p.pair_id
            left join current_flags f on f.pair_id = p.pair_id
            group by p.dataset_id order by n_pairs desc, p.dataset_id""",
        ).to_pylist()


def pace(store: Store, *, hours: float = 1.0) -> dict[str, Any]:
    """Decisions of people (bulk ones apart) that stand: ``n_all, n_recent`` (the last hours), ``n_today``, ``n_people,
    n_people_recent, latest``."""
    with store.read() as connection:
        return frame(
            connection,
            f"""with now as (select now() at time zone 'utc' moment)
            select count(*) n_all,
                count(*) filter (decided_at >= moment - to_seconds($seconds)) n_recent,
                count(*) filter (decided_at >= date_trunc('day', moment)) n_today,
                count(distinct reviewer) n_people,
                count(distinct reviewer) filter (decided_at >= moment - to_seconds($seconds)) n_people_recent,
                max(decided_at) latest
            from standing_decisions, now where verdict in {VERDICTS_DECIDED!r} and coalesce(purpose, 'review') <> 'bulk'
            """,
            {"seconds": hours * 3600.0},
        ).to_pylist()[0]


def latest_reflected(store: Store) -> tuple[int, str]:
    """The dataset of the newest reflection job: its id and name."""
    with store.read() as connection:
        found = frame(
            connection,
            """select r.dataset_id, coalesce(any_value(d.name), 'removed dataset') dataset from reflections r
            left join datasets d on d.dataset_id = r.dataset_id group by r.dataset_id
            order by max(r.job_id) desc limit 1""",
        ).to_pylist()[0]
    return int(found["dataset_id"]), str(found["dataset"])


def campaigns(store: Store) -> list[dict[str, Any]]:
    """Campaigns, newest first: ``name, state, overlap, n_pairs, n_done, n_disputed``, as their own pages count them."""
    found = []
    for one in campaigns_stored.campaigns(store):
        states = campaign_progress.progress(store, one.campaign_id).states
        found.append(
            {
                "name": one.name, "state": one.state, "overlap": one.overlap, "n_pairs": one.n_pairs,
                "n_done": sum(states.get(state, 0) for state in ("agreed", "adjudicated", "bulk")),
                "n_disputed": states.get("disputed", 0),
            }
        )  # fmt: skip
    return found
