"""What the figures of the meeting board show, in sentences with numbers, n and time (pure).

The first sentence of each is the headline. Names are given as they are: whoever shows a sentence escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from core.voting import Change, Tally

Row = Mapping[str, Any]


def percent(part: float, whole: float) -> str:
    """A share as people read it: no 100 % where something is missing, no 0 % where something is there."""
    if not whole:
        return "—"
    share = 100 * part / whole
    if 0 < share < 1:
        return f"{share:.1f} %" if share >= 0.05 else "< 0.1 %"
    if 99 < share < 100:
        return f"{share:.1f} %" if share < 99.95 else "> 99.9 %"
    return f"{share:.0f} %"


def count(n: int, one: str, many: str | None = None) -> str:
    """ "1 job", "2 jobs"."""
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 12 min, 2 h 10 min, 3 days."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
    return f"{seconds / 86400:.0f} days"


def signed(value: float) -> str:
    """Two decimals with a true minus sign."""
    return f"{value:.2f}".replace("-", "−")


def _plain(value: float) -> str:
    return f"{value:,.4g}".replace("-", "−")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def coverage_words(datasets: Sequence[Row], rows: Sequence[Row], *, n_rows: int) -> tuple[str, ...]:
    """Of datasets (``name, n_members``) and indicators (``label, n_values, n_nulls, n_missing``)."""
    head = f"{count(n_rows, 'distinct row')} in {count(len(datasets), 'dataset')}, "
    head += f"scored by {count(len(rows), 'indicator')}."
    if not rows:
        return (head,)
    whole = sum(not row["n_missing"] for row in rows)
    values = sum(row["n_values"] for row in rows)
    nulls = [row for row in rows if row["n_nulls"]]
    said = [
        head,
        f"{whole} of {len(rows)} indicators have been asked for every row; "
        f"{percent(values, len(rows) * n_rows)} of all cells hold a value.",
    ]
    if nulls:
        worst = max(nulls, key=lambda row: row["n_nulls"])
        why = f" The most frequent reason: {worst['reason']}" if worst.get("reason") else ""
        said.append(
            f"{count(sum(row['n_nulls'] for row in nulls), 'cell')} could not be computed (NULL with a reason), "
            f"most of them of {worst['label']} ({worst['n_nulls']:,} of {n_rows:,} rows).{why}"
        )
    else:
        said.append("No value failed.")
    return tuple(said)


def jobs_words(states: Mapping[str, int], rows: Sequence[Row]) -> tuple[str, ...]:
    """``states``: state -> jobs. ``rows`` are those at work: ``job, done, total, per_second, eta_seconds``."""
    running, queued = states.get("running", 0) + states.get("cancelling", 0), states.get("queued", 0)
    ended = {state: states.get(state, 0) for state in ("done", "failed", "interrupted", "cancelled")}
    parts = [f"{n:,} {state}" for state, n in ended.items() if n]
    head = f"{count(running, 'job')} at work, {queued:,} waiting" + (f"; {_listed(parts)}." if parts else ".")
    said = [head]
    for row in rows:
        if row["state"] != "running":
            continue
        pace = f", {row['per_second']:,.1f} rows a second" if row["per_second"] else ""
        left = f", about {duration(row['eta_seconds'])} left" if row["eta_seconds"] is not None else ""
        said.append(
            f"{row['job']}: {row['done']:,} of {row['total']:,} ({percent(row['done'], row['total'])}){pace}{left}."
        )
    if ended["failed"] or ended["interrupted"]:
        said.append(f"{count(ended['failed'] + ended['interrupted'], 'job')} need a look on the Jobs page.")
    return tuple(said)


def distribution_words(found: Sequence[Any], labels: Sequence[str], directions: Sequence[str]) -> tuple[str, ...]:
    """Median and middle half of each indicator (``db.board_numbers.Distribution``)."""
    said = [f"How {count(len(found), 'indicator')} spread over the rows that have a value; the line is the median."]
    for one, label, direction in zip(found, labels, directions, strict=True):
        better = {"higher": ", higher is better", "lower": ", lower is better"}.get(direction, "")
        said.append(
            f"{label}: median {_plain(one.median)}, the middle half from {_plain(one.q25)} to {_plain(one.q75)} "
            f"(n = {one.n:,}{better})."
        )
    return tuple(said)


def fit_words(
    name: str, *, n: int, r2: float | None, loo_r2: float | None, rows: Sequence[Row], labels: Mapping[str, str]
) -> tuple[str, ...]:
    """Of a kept fit; ``rows`` are those of the forest plot (``name, value, low, high, p``), strongest first."""
    explained = f"R² = {r2:.2f}" if r2 is not None else "R² undefined"
    honest = f", {loo_r2:.2f} when each run is predicted by the others" if loo_r2 is not None else ""
    said = [f"The fit “{name}” explains the evaluation loss of {count(n, 'run')} with {explained}{honest}."]
    clear = [row for row in rows if row["low"] is not None and (row["low"] > 0 or row["high"] < 0)]
    if clear:
        words = [
            f"{labels.get(row['name'], row['name'])} "
            f"({'lower' if row['value'] < 0 else 'higher'} loss where it is higher)"
            for row in clear
        ]
        said.append(f"Intervals off 0: {_listed(words)}.")
    unclear = len(rows) - len(clear)
    if unclear:
        said.append(f"Of {count(unclear, 'indicator')} the 95 % interval holds 0, so the sign is not certain.")
    return tuple(said)


def univariate_words(panels: Sequence[tuple[str, str, int, float | None]]) -> tuple[str, ...]:
    """``panels``: label, kind of runs, n, Pearson's r with the evaluation loss."""
    known = [one for one in panels if one[3] is not None]
    if not known:
        return ("No correlation with the loss can be computed yet: too few runs differ.",)
    label, kind, n, r = max(known, key=lambda one: abs(one[3] or 0.0))
    return (
        f"Alone, {label} goes with the evaluation loss most clearly: r = {signed(r or 0.0)} over "
        f"{count(n, 'run')} ({kind}).",
        "A negative r: more of it, lower loss. With many indicators some correlate by chance.",
    )


def yield_words(dataset: str, found: Sequence[Any]) -> tuple[str, ...]:
    """Of the stages of a dataset's reflection (``db.reflection_report.Yield``)."""
    asked = max((one.n_asked for one in found), default=0)
    said = [f"Reflection of {dataset}: the teacher was asked about {count(asked, 'row')}."]
    for one in found:
        decided = (
            f"; people accepted {one.n_accepted:,} of {one.n_decided:,} decided"
            if one.n_decided
            else "; nobody has decided one yet"
        )
        rounds = f" (round {one.round})" if one.round > 1 else ""
        said.append(
            f"{one.stage.capitalize()} stage{rounds}: {one.n_parsed:,} of {one.n_asked:,} answers readable "
            f"({percent(one.n_parsed, one.n_asked)}), {one.n_changed:,} changed the row, the student prefers "
            f"{one.n_preferred:,} ({percent(one.n_preferred, one.n_changed)}){decided}."
        )
    return tuple(said)


def review_words(rows: Sequence[Row], *, n_people: int, at: datetime) -> tuple[str, ...]:
    """Of all datasets (``db.board_numbers.review_by_dataset``); ``at`` is naive UTC."""
    pairs, accepted = sum(row["n_pairs"] for row in rows), sum(row["n_accepted"] for row in rows)
    rejected, flagged = sum(row["n_rejected"] for row in rows), sum(row["n_flagged"] for row in rows)
    decided = accepted + rejected
    head = f"{decided:,} of {count(pairs, 'pair')} decided ({percent(decided, pairs)})"
    if decided:
        head += f", {percent(accepted, decided)} of them accepted; {count(n_people, 'reviewer')}; as of {at:%H:%M} UTC."
    else:
        head += f"; as of {at:%H:%M} UTC."
    said = [head]
    if flagged:
        said.append(f"{count(flagged, 'pair')} {'is' if flagged == 1 else 'are'} flagged.")
    whole = [row["dataset"] for row in rows if not row["n_undecided"]]
    if whole and len(rows) > 1:
        said.append(f"Finished: {_listed(whole)}.")
    return tuple(said)


def campaign_words(rows: Sequence[Row]) -> tuple[str, ...]:
    """Of campaigns: ``name, state, n_pairs, n_done, n_disputed``."""
    return tuple(
        f"Campaign {row['name']} ({row['state']}): {row['n_done']:,} of {row['n_pairs']:,} pairs finished "
        f"({percent(row['n_done'], row['n_pairs'])})"
        + (f", {row['n_disputed']:,} disputed." if row["n_disputed"] else ".")
        for row in rows
    )


def pace_words(pace: Row, people: Sequence[Row], *, n_undecided: int, at: datetime) -> tuple[str, ...]:
    """``pace`` of ``db.board_numbers.pace``, ``people`` of ``db.review.team_progress``."""
    by = f" by {count(pace['n_people_recent'], 'person', 'people')}" if pace["n_recent"] else ""
    head = (
        f"{count(pace['n_recent'], 'decision')} in the last hour{by}, "
        f"{pace['n_today']:,} today, {pace['n_all']:,} in all; as of {at:%H:%M} UTC."
    )
    said = [head]
    if pace["n_recent"] and n_undecided:
        left = duration(3600.0 * n_undecided / pace["n_recent"])
        said.append(f"At the pace of the last hour the {n_undecided:,} undecided pairs take {left} more.")
    elif n_undecided and pace["latest"] is not None:
        said.append(
            f"Nobody decided in the last hour (the latest decision: {pace['latest']:%Y-%m-%d %H:%M} UTC); "
            f"{n_undecided:,} pairs are undecided."
        )
    timed = [row for row in people if row["median_seconds"] is not None and row["n_decisions"]]
    if timed:
        slow, quick = max(timed, key=lambda r: r["median_seconds"]), min(timed, key=lambda r: r["median_seconds"])
        spread = (
            f"from {quick['median_seconds']:.0f} to {slow['median_seconds']:.0f} s" if len(timed) > 1
            else f"{slow['median_seconds']:.0f} s"
        )  # fmt: skip
        said.append(f"Median time on a pair: {spread} by person.")
    return tuple(said)


def agreement_words(
    *,
    n_shared: int,
    n_unanimous: int,
    n_open: int,
    alpha: float | None,
    low: float | None,
    high: float | None,
    reason: str | None,
) -> tuple[str, ...]:
    """Of pairs that two reviewers or more decided: accept or reject."""
    if not n_shared:
        return ("No pair was decided by two people yet, so agreement cannot be measured.",)
    said = [
        f"Reviewers gave the same verdict on {n_unanimous:,} of {n_shared:,} pairs that two or more decided "
        f"({percent(n_unanimous, n_shared)})."
    ]
    if alpha is None:
        said.append(f"Krippendorff's α cannot be computed: {reason}")
    else:
        interval = f" (95 % interval {signed(low)} to {signed(high)})" if low is not None and high is not None else ""
        meaning = (
            "reliable" if alpha >= 0.8 else "fit for tentative conclusions" if alpha >= 0.667 else "too low to rest on"
        )
        said.append(f"Krippendorff's α = {signed(alpha)}{interval}, n = {n_shared:,}: by his bounds {meaning}.")
    if n_open:
        said.append(f"{count(n_open, 'disputed pair')} {'waits' if n_open == 1 else 'wait'} to be settled.")
    return tuple(said)


def judging_words(bars: Sequence[Any]) -> tuple[str, ...]:
    """Of win/tie/lose bars (``core.charts.judging.Bar``)."""
    said = []
    for bar in bars:
        lead = "wins more often" if bar.win > bar.lose else "loses more often" if bar.lose > bar.win else "is even"
        interval = f", interval {bar.low:.2f} to {bar.high:.2f}" if bar.low is not None and bar.high is not None else ""
        score = f"win score {bar.win_score:.2f}{interval}; " if bar.win_score is not None else ""
        said.append(
            f"{bar.first} {lead} against {bar.second}: {bar.win:,} wins, {bar.tie:,} ties, {bar.lose:,} losses "
            f"({score}n = {bar.n:,}; {bar.about})."
        )
    return tuple(said)


def tally_words(one: Tally) -> str:
    """ "4 of 5 agree" in numbers: the share of pairs of voters with one verdict."""
    if one.agreement is None:
        return f"{count(one.n, 'vote')}: agreement needs two or more."
    kappa = "" if one.kappa is None else f", free-marginal κ = {signed(one.kappa)}"
    return f"{count(one.n, 'vote')}; {percent(one.agreement, 1)} of pairs of voters agree{kappa}."


def change_words(found: Change) -> str:
    """Before and after, of those who voted in both rounds."""
    if not found.n:
        return "Nobody voted in both rounds, so before and after cannot be compared."
    before, after = found.before.agreement, found.after.agreement
    moved = f"{found.n_changed:,} of {found.n:,} who voted twice changed their verdict"
    if before is None or after is None:
        return f"{moved}."
    return f"{moved}; agreement went from {percent(before, 1)} to {percent(after, 1)}."


def votes_words(votes: Sequence[Any]) -> tuple[str, ...]:
    """Of votes of the past (``db.votes.Vote``)."""
    twice = [one.change for one in votes if one.change is not None and one.change.n > 1]
    head = f"{count(len(votes), 'blind vote')} so far, {len(twice):,} of them before and after a discussion."
    if not twice:
        return (head,)
    before = sum(one.before.agreement or 0.0 for one in twice) / len(twice)
    after = sum(one.after.agreement or 0.0 for one in twice) / len(twice)
    changed, voters = sum(one.n_changed for one in twice), sum(one.n for one in twice)
    return (
        head,
        f"In mean {percent(before, 1)} of pairs of voters agreed before and {percent(after, 1)} after; "
        f"{changed:,} of {voters:,} verdicts changed.",
    )
