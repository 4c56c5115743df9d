"""The slides of the meeting board: each a query, pure figures of it, and sentences that say what they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core import board_words as words
from core.charts import board as charts
from core.charts import judging as judging_charts
from core.charts import reflection as reflection_charts
from core.charts import review as review_charts
from core.indicators import OUTPUTS
from core.report import Figure, Missing, Slide, Table
from core.voting import Tally
from db import agreement, board_numbers, jobs, judging, queries, reflection_report, review, votes
from db.service import Service
from db.store import utc_now
from pages import _board_fits, _compare_view, _kinds, _ui

MOST_DISTRIBUTIONS = 12
MOST_BARS = 8
MOST_PAIRS_OF_PEOPLE = 15


@dataclass(frozen=True)
class Kind:
    """A slide that there is: what it stands on (names of the mark), and ``needs``, without which it is empty."""

    key: str
    title: str
    parts: tuple[str, ...]
    needs: str
    build: Callable[[Service], Slide]
    missing: Missing


# ---- one function a slide ----


def data(service: Service) -> Slide:
    """Datasets, and how far each indicator covers their rows."""
    found = queries.datasets(service.store)
    n_rows, lines = board_numbers.coverage(service.store)
    rows = [
        {
            "label": _ui.scorer_label(line),
            "n_values": line["n_values"],
            "n_nulls": line["n_nulls"],
            "n_missing": max(0, n_rows - line["n_values"] - line["n_nulls"]),
            "n_rows": n_rows,
            "reason": line["reason"],
        }
        for line in lines
    ]
    figures = (Figure(title="Rows by indicator", name="coverage", figure=charts.coverage_figure(rows), rows=rows),)
    table = Table(
        title="Datasets",
        name="datasets",
        rows=[
            {"dataset": row["name"], "kind": row["kind"], "rows": row["n_members"], "pairs": row["n_pairs"],
             "decided": row["n_decided"]}
            for row in found
        ],
    )  # fmt: skip
    said = words.coverage_words(found, rows, n_rows=n_rows)
    return Slide(key="data", title="Data and coverage", text=said, figures=figures if rows else (), tables=(table,))


def at_work(service: Service) -> Slide:
    """Jobs: how many in which state, and those at work with pace and estimate."""
    statuses = sorted(service.scheduler.statuses().values(), key=lambda status: status.job_id, reverse=True)
    states: dict[str, int] = {}
    for status in statuses:
        states[status.state] = states.get(status.state, 0) + 1
    lines = [
        {
            "job": status.title or status.job_id,
            "kind": _kinds.kind_word(status.kind),
            "state": status.state,
            "done": status.done_rows,
            "total": status.total_rows,
            "per_second": status.rows_per_second,
            "eta_seconds": status.eta_seconds,
            "left": "" if status.eta_seconds is None or status.ended else words.duration(status.eta_seconds),
        }
        for status in statuses
    ]
    live = [line for line in lines if line["state"] in ("running", "queued", "cancelling")][:MOST_BARS]
    drawn = live or lines[:MOST_BARS]
    title = "At work and waiting" if live else "The latest jobs"
    recorded = len(jobs.jobs(service.store))
    said = words.jobs_words(states, live)
    if recorded > len(lines):
        said = (*said, f"Of {words.count(recorded - len(lines), 'older job')} only the record is kept.")
    figures = (Figure(title=title, name="jobs", figure=charts.jobs_figure(drawn), rows=drawn),) if drawn else ()
    return Slide(key="jobs", title="Jobs", text=said, figures=figures)


def scores(service: Service) -> Slide:
    """How the scores spread."""
    found = board_numbers.distributions(service.store)
    found = sorted(found, key=lambda one: (one.output not in OUTPUTS, -one.n))[:MOST_DISTRIBUTIONS]
    labels = [_ui.scorer_label(vars(one)) for one in found]
    directions = [OUTPUTS[one.output].direction if one.output in OUTPUTS else "neither" for one in found]
    rows = [
        {"indicator": label, "from": one.edges[i], "to": one.edges[i + 1], "rows": n}
        for one, label in zip(found, labels, strict=True)
        for i, n in enumerate(one.counts)
    ]
    said = words.distribution_words(found, labels, directions)
    figure = charts.distributions_figure(found, labels)
    return Slide(
        key="scores",
        title="Score distributions",
        text=said,
        figures=(Figure(title="Rows by score", name="score-distributions", figure=figure, rows=rows),) if found else (),
    )


def reflection(service: Service) -> Slide:
    """What reflection of the dataset that was reflected on last gave."""
    store = service.store
    dataset_id, name = board_numbers.latest_reflected(store)
    found = reflection_report.yields(store, [row["job_id"] for row in reflection_report.runs(store, dataset_id)])
    figure = Figure(
        title="Rows from asked to accepted",
        name="reflection-yield",
        figure=reflection_charts.yield_figure(found),
        rows=[vars(one) for one in found],
    )
    return Slide(
        key="reflection",
        title="Reflection yield",
        text=words.yield_words(name, found),
        figures=(figure,) if found else (),
    )


def reviewing(service: Service) -> Slide:
    """How far review is: by dataset, and by campaign."""
    store = service.store
    rows = board_numbers.review_by_dataset(store)
    campaigns = board_numbers.campaigns(store)
    pace = board_numbers.pace(store)
    said = (
        *words.review_words(rows, n_people=pace["n_people"], at=utc_now()),
        *words.campaign_words(campaigns),
    )
    figures = [Figure(title="Pairs by dataset", name="review-progress", figure=charts.review_figure(rows), rows=rows)]
    lines = [
        {"campaign": one["name"], "state": one["state"], "decisions a pair": one["overlap"], "pairs": one["n_pairs"],
         "finished": one["n_done"], "disputed": one["n_disputed"]}
        for one in campaigns
    ]  # fmt: skip
    tables = (Table(title="Campaigns", name="campaigns", rows=lines),) if lines else ()
    return Slide(key="review", title="Review progress", text=said, figures=tuple(figures), tables=tables)


def pace(service: Service) -> Slide:
    """Decisions over time and by person."""
    store = service.store
    found, people = board_numbers.pace(store), review.team_progress(store)
    counts = review.counts(store)
    timeline = review.decisions_over_time(store)
    called = _ui.people_names(store, (row["reviewer"] for row in people))
    people = [{**row, "reviewer": called[row["reviewer"]]} for row in people if row["n_decisions"]]
    timeline = [{**row, "reviewer": called.get(row["reviewer"], row["reviewer"])} for row in timeline]
    return Slide(
        key="pace",
        title="Pace",
        text=words.pace_words(found, people, n_undecided=counts["n_pairs"] - counts["n_decided"], at=utc_now()),
        figures=(
            Figure(title="Decisions over time", name="decisions-over-time",
                   figure=review_charts.over_time(timeline), rows=timeline, wide=False),
            Figure(title="Verdicts by reviewer", name="verdicts-by-reviewer",
                   figure=review_charts.by_reviewer(people), rows=people, wide=False),
        ),
    )  # fmt: skip


def agreeing(service: Service) -> Slide:
    """How far reviewers agree, with each other."""
    found = agreement.agreement(service.store, coding="accept or reject")
    alpha = found.alpha
    said = words.agreement_words(
        n_shared=found.n_shared,
        n_unanimous=found.n_unanimous,
        n_open=found.n_open,
        alpha=alpha.value,
        low=alpha.low,
        high=alpha.high,
        reason=alpha.reason,
    )
    called = _ui.people_names(service.store, (one.identity for one in found.reviewers))
    rows = [
        {"pair": f"{called[one]} × {called[other]}", "kappa": kappa.value, "low": kappa.low, "high": kappa.high,
         "n": kappa.n, "why not": kappa.reason}
        for (one, other), kappa in found.pairwise.items()
        if kappa.n
    ]  # fmt: skip
    drawn = sorted((row for row in rows if row["kappa"] is not None), key=lambda row: -int(row["n"] or 0))[
        :MOST_PAIRS_OF_PEOPLE
    ]
    figures = (
        (
            Figure(
                title="Agreement of every two reviewers",
                name="agreement",
                figure=charts.kappas_figure(drawn),
                rows=rows,
            ),
        )
        if drawn
        else ()
    )
    missing = None
    if not found.n_shared:
        missing = Missing(
            text=f"{said[0]} A campaign with an overlap of two lets two people decide each pair.",
            page="campaigns.py",
            label="Plan a campaign",
        )
        said = ()  # the sentence of what is missing says it
    return Slide(key="agreement", title="Agreement", text=said, figures=figures, missing=missing)


def winning(service: Service) -> Slide:
    """Win, tie and lose of the newest comparisons."""
    comparisons = [row for row in judging.comparisons(service.store) if row["judges"]][:MOST_BARS]
    bars = [one.bar() for one in _compare_view.judged(service.store, comparisons) if one.summary.n][:MOST_BARS]
    if not bars:
        return Slide(key="judging", title="Win, tie, lose", text=(), missing=_MISSING["judging"])
    figure = Figure(
        title="Answers set against each other",
        name="win-tie-lose",
        figure=judging_charts.win_tie_lose_figure(charts.told_apart(bars)),
        narrow=charts.narrow_bars_figure(charts.told_apart(bars, length=20)),
        rows=judging_charts.bar_rows(bars),
    )
    return Slide(key="judging", title="Win, tie, lose", text=words.judging_words(bars), figures=(figure,))


def voted(service: Service) -> Slide:
    """Blind votes so far, with agreement before and after the discussion."""
    found = votes.votes(service.store)
    rows = [
        {
            "vote": f"Vote {one.vote_id}, pair {one.pair_id}",
            "opened at (UTC)": one.opened_at,
            "voters before": one.before.n if one.before else None,
            "before": one.before.agreement if one.before else None,
            "voters after": one.after.n if one.after else None,
            "after": one.after.agreement if one.after else None,
            "changed": one.change.n_changed if one.change else None,
            "majority": _majority(one),
            "adopted": review_charts.VERDICT_LABELS[one.adopted] if one.adopted else "",
        }
        for one in found
    ]
    listed = [
        {**row, "before": _agreed(one.before), "after": _agreed(one.after)}
        for row, one in zip(rows, found, strict=True)
    ]
    return Slide(
        key="votes",
        title="Votes so far",
        text=words.votes_words(found),
        figures=(
            Figure(
                title="Agreement before and after", name="votes", figure=charts.agreement_figure(rows[:12]), rows=rows
            ),
        ),
        tables=(Table(title="Votes", name="vote-table", rows=listed),),
    )


def _agreed(round: Tally | None) -> str | None:
    return None if round is None or round.agreement is None else words.percent(round.agreement, 1)


def _majority(one: votes.Vote) -> str:
    return review_charts.VERDICT_LABELS[one.last.majority] if one.last is not None and one.last.majority else ""


# ---- which there are ----

_MISSING = {
    "data": Missing(text="There is no dataset yet.", page="load.py", label="Load a dataset"),
    "jobs": Missing(
        text="No job was submitted yet. Scoring, reflection, studies and judging run as jobs.",
        page="score.py", label="Score a dataset",
    ),
    "scores": Missing(text="No row has a score yet.", page="score.py", label="Score a dataset"),
    "univariate": Missing(
        text="No finetunes are done yet. A study holds indicators against the evaluation loss.",
        page="studies.py", label="Plan a study",
    ),
    "regression": Missing(
        text="No fit was kept yet. Fit the losses of a study on its indicators and keep the fit.",
        page="regression.py", label="Fit a regression",
    ),
    "reflection": Missing(
        text="Nothing was reflected on yet. The teacher rewrites rows, the student prefers some of them.",
        page="reflect.py", label="Reflect on a dataset",
    ),
    "review": Missing(text="There are no pairs to review yet.", page="reflect.py", label="Reflect on a dataset"),
    "pace": Missing(text="Nobody has decided a pair yet.", page="review.py", label="Start reviewing"),
    "agreement": Missing(text="Nobody has decided a pair yet.", page="review.py", label="Start reviewing"),
    "judging": Missing(
        text="Nothing was judged yet. Set the answers of two models against each other, by a model or by people.",
        page="compare.py", label="Compare answers",
    ),
    "votes": Missing(
        text="Nobody has voted yet. Who presents opens a blind vote on a pair: vote, reveal, discuss, vote again.",
        page="board.py", label="To the board",
    ),
}  # fmt: skip

_REVIEWED = ("pairs", "decisions", "campaigns", "named")
KINDS: tuple[Kind, ...] = tuple(
    Kind(key, title, parts, needs, build, _MISSING[key])
    for key, title, parts, needs, build in (
        ("data", "Data and coverage", ("datasets", "newest", "named", "scorers", "scores", "pairs"), "datasets", data),
        ("jobs", "Jobs", ("jobs", "live"), "jobs", at_work),
        ("scores", "Score distributions", ("datasets", "scorers", "scores"), "scores", scores),
        ("univariate", "Univariate", ("runs", "results", "scores"), "results", _board_fits.univariate),
        ("regression", "Regression", ("fits", "newest_fit"), "fits", _board_fits.regression),
        ("reflection", "Reflection yield", ("reflections", "shards", "decisions"), "reflections", reflection),
        ("review", "Review progress", _REVIEWED, "pairs", reviewing),
        ("pace", "Pace", ("pairs", "decisions", "minute"), "decisions", pace),
        ("agreement", "Agreement", ("decisions", "campaigns"), "decisions", agreeing),
        ("judging", "Win, tie, lose", ("judgements", "comparisons"), "judgements", winning),
        ("votes", "Votes so far", ("votes", "decisions"), "votes", voted),
    )
)
BY_KEY = {kind.key: kind for kind in KINDS}
