"""The report as one file: it asks for nothing, runs nothing of a row, and has the numbers behind every figure."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import re
from datetime import datetime
from urllib.parse import unquote

import plotly.graph_objects as go
import pytest

from core import board_words as words
from core import voting
from core.charts import board as charts
from core.report import Figure, Missing, Slide, Table, csv_text, html_report, shown_value
from tests.pages.sample_stores import HOSTILE

AT = datetime(2026, 5, 4, 14, 5)
ROWS = [{"reviewer": HOSTILE, "n": 3, "share": 0.25}, {"reviewer": "=1+1", "n": 1, "share": None}]


def report() -> str:
    figure = go.Figure(go.Bar(x=[3, 1], y=[HOSTILE, "</script><script>window.hacked=1</script>"], name="<!--<script>"))
    figure.update_layout(height=300)
    slides = [
        Slide(
            key="pace",
            title=f"Pace {HOSTILE}",
            text=("4 decisions in the last hour.", HOSTILE),
            figures=(Figure(title=HOSTILE, name="pace", figure=figure, rows=ROWS),),
            tables=(Table(title="People", name="people", rows=[{"i": i} for i in range(250)]),),
        ),
        Slide(key="jobs", title="Jobs", text=(), missing=Missing(text="No job yet.", page="score.py", label="Score")),
    ]
    return html_report(slides, title=f"Report {HOSTILE}", made_at=AT, made_by=HOSTILE, version="0.1")


def test_only_its_own_two_scripts_may_run_and_no_address_may_be_asked() -> None:
    made = report()
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', made).group(1))  # type: ignore[union-attr]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]
    scripts = re.findall(r"<script>(.*?)</script>", made, flags=re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    without = re.sub(r"<script>.*?</script>", "", made, flags=re.DOTALL)
    assert "<img" not in without
    assert re.findall(r'(?:src|href)="(?!#|data:text/csv)[^"]*"', without) == []
    assert "As of 2026-05-04 14:05 UTC" in made
    assert "No job yet." in made  # what is not in it is said


def test_what_stands_in_rows_stays_text() -> None:
    made = report()
    without = re.sub(r"<script>.*?</script>", "", made, flags=re.DOTALL)
    assert "<script>window" not in without
    data = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', without, flags=re.DOTALL)
    assert len(data) == 1
    assert "<" not in data[0]
    assert json.loads(data[0])["data"][0]["y"][1] == "</script><script>window.hacked=1</script>"


def test_every_figure_has_its_numbers_as_a_table_and_as_csv() -> None:
    made = report()
    assert "The first 200 rows; 50 more are in the CSV." in made
    links = re.findall(r'download="([^"]*)" href="data:text/csv;charset=utf-8,([^"]*)"', made)
    assert [name for name, _ in links] == ["pace.csv", "people.csv"]
    read = list(csv.DictReader(io.StringIO(unquote(links[0][1]))))
    assert [row["n"] for row in read] == ["3", "1"]
    assert [row["share"] for row in read] == ["0.25", ""]
    assert read[1]["reviewer"] == "'=1+1"  # a spreadsheet would run it
    assert len(unquote(links[1][1]).splitlines()) == 251
    assert csv_text([{"a": 1}, {"b": float("nan")}]) == "a,b\n1,\n,\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "—"), (float("nan"), "—"), (0, "0"), (12345, "12,345"), (0.12345, "0.1235"), (True, "yes"),
     (AT, "2026-05-04 14:05:00")],
)  # fmt: skip
def test_what_is_not_there_is_a_dash_and_never_0(value: object, shown: str) -> None:
    assert shown_value(value) == shown


# ---- what the figures show, in words ----


def test_review_in_words() -> None:
    rows = [
        {"dataset": "A", "n_pairs": 400, "n_accepted": 230, "n_rejected": 82, "n_undecided": 88, "n_flagged": 1},
        {"dataset": "B", "n_pairs": 100, "n_accepted": 60, "n_rejected": 40, "n_undecided": 0, "n_flagged": 0},
    ]
    said = words.review_words(rows, n_people=3, at=AT)
    # By hand: 312 + 100 = 412 of 500; 290 of 412 accepted.
    assert said[0] == "412 of 500 pairs decided (82 %), 70 % of them accepted; 3 reviewers; as of 14:05 UTC."
    assert said[1:] == ("1 pair is flagged.", "Finished: B.")
    none = words.review_words([{**rows[0], "n_accepted": 0, "n_rejected": 0}], n_people=0, at=AT)
    assert none[0] == "0 of 400 pairs decided (0 %); as of 14:05 UTC."


def test_pace_in_words_foretells_from_the_last_hour_or_says_nothing() -> None:
    pace = {"n_all": 500, "n_today": 90, "n_recent": 30, "n_people_recent": 2, "latest": AT}
    people = [{"median_seconds": s, "n_decisions": 5} for s in (8.0, 41.0)]
    said = words.pace_words(pace, people, n_undecided=75, at=AT)
    assert said[0] == "30 decisions in the last hour by 2 people, 90 today, 500 in all; as of 14:05 UTC."
    assert said[1] == "At the pace of the last hour the 75 undecided pairs take 2 h 30 min more."
    assert said[2] == "Median time on a pair: from 8 to 41 s by person."
    idle = words.pace_words({**pace, "n_recent": 0, "n_people_recent": 0}, [], n_undecided=75, at=AT)
    assert idle[0].startswith("0 decisions in the last hour, 90 today")
    assert idle[1].startswith("Nobody decided in the last hour")
    assert len(words.pace_words(pace, [], n_undecided=0, at=AT)) == 1


def test_agreement_in_words_says_why_there_is_no_number() -> None:
    said = words.agreement_words(
        n_shared=20, n_unanimous=20, n_open=0, alpha=None, low=None, high=None, reason="One verdict only."
    )
    assert said == (
        "Reviewers gave the same verdict on 20 of 20 pairs that two or more decided (100 %).",
        "Krippendorff's α cannot be computed: One verdict only.",
    )
    low = words.agreement_words(n_shared=20, n_unanimous=9, n_open=3, alpha=-0.1, low=-0.4, high=0.2, reason=None)
    assert low[1] == "Krippendorff's α = −0.10 (95 % interval −0.40 to 0.20), n = 20: by his bounds too low to rest on."
    assert low[2] == "3 disputed pairs wait to be settled."


def test_shares_do_not_round_to_all_or_nothing() -> None:
    parts = ((1, 1000), (999, 1000), (1, 100000), (99999, 100000), (0, 5), (5, 5), (0, 0))
    assert [words.percent(a, b) for a, b in parts] == [
        "0.1 %", "99.9 %", "< 0.1 %", "> 99.9 %", "0 %", "100 %", "—",
    ]  # fmt: skip


def test_a_vote_of_one_has_no_agreement() -> None:
    alone = voting.tally({"Ada": "accept"})
    assert (alone.agreement, alone.kappa, alone.majority) == (None, None, "accept")
    assert words.tally_words(alone) == "1 vote: agreement needs two or more."
    with pytest.raises(ValueError, match="no such verdicts"):
        voting.tally({"Ada": "perhaps"})
    nobody = voting.change({"Ada": "accept"}, {"Ben": "accept"})
    assert words.change_words(nobody).startswith("Nobody voted in both rounds")


def test_figures_of_shares_hold_the_counts_and_escape_names() -> None:
    rows = [{"dataset": "<b>A</b>", "n_pairs": 4, "n_accepted": 3, "n_rejected": 1, "n_undecided": 0}]
    figure = charts.review_figure(rows)
    assert [list(bar.x) for bar in figure.data] == [[75.0], [25.0], [0.0]]
    assert figure.layout.yaxis.ticktext == ("&lt;b&gt;A&lt;/b&gt;",)
    large = charts.enlarged(figure, font_px=26, height=500)
    assert (large.layout.font.size, large.layout.height, figure.layout.height) == (26, 500, 160)
