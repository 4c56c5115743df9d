"""The Univariate page over studies whose truth is known: bins, mixtures beside them, all indicators for a meeting."""

from __future__ import annotations

import json

import pytest

from db.service import Service
from tests.pages.conftest import RunPage
from tests.pages.study_stores import BINS, COMPARISON, MIXTURES, N_BINS, N_MIXTURES, OTHER
from tests.pages.test_regression import figures, run_id, study_id, words


def test_an_empty_store_says_what_to_do_next(empty_home: Service, run_page: RunPage) -> None:
    assert "no study yet" in words(run_page("univariate"))


def test_bins_and_mixtures_are_drawn_in_one_figure(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("univariate")
    (figure,) = figures(page)
    first, second, *_ = json.loads(figure)["data"]
    assert [(trace["name"], len(trace["hovertext"])) for trace in (first, second)] == [
        ("bins", N_BINS),
        ("mixtures", N_MIXTURES),
    ]
    assert (first["marker"]["symbol"], second["marker"]["symbol"]) == ("circle", "diamond")
    assert "bins (8 runs): Pearson −0.9" in words(page)
    assert "2 runs are not drawn" in "\n".join(one.label for one in page.expander)


def test_the_table_has_the_strongest_first_with_n_and_intervals(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("univariate")
    table = next(one.value for one in page.dataframe if "Pearson" in one.value.columns)
    assert list(table["key"][:2]) == ["reward", "reward"]
    assert list(table["Pearson"].abs()) == sorted(table["Pearson"].abs(), reverse=True)
    mixtures = table[(table["key"] == "reward") & (table["runs"] == "mixtures")].iloc[0]
    assert mixtures["n"] == N_MIXTURES
    assert mixtures["Pearson from"] < mixtures["Pearson"] < mixtures["Pearson to"] < 0
    # Bins by reward say nothing of another indicator, unless they are asked for.
    assert set(table[table["key"] == "mtld"]["runs"]) == {"mixtures"}
    page.toggle[0].set_value(True).run()
    table = next(one.value for one in page.dataframe if "Pearson" in one.value.columns)
    assert set(table[table["key"] == "mtld"]["runs"]) == {"bins", "mixtures"}


def test_small_multiples_show_every_indicator(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("univariate", figure="all", scale="log")
    (figure,) = figures(page)
    layout = json.loads(figure)["layout"]
    titles = [note["text"].split("<br>")[0] for note in layout["annotations"]]
    assert titles == [f"<b>{name}</b>" for name in ("Reward", "Length", "kNN-6", "MTLD", "IFD")]
    assert layout["yaxis"]["title"]["text"] == "log evaluation loss"
    # One scale for all: every axis follows the same one.
    scales = {
        axis.get("matches", name.replace("axis", "")) for name, axis in layout.items() if name.startswith("yaxis")
    }
    assert len(scales) == 1
    assert "Shuffled <b>" not in figure


def test_a_link_restores_indicator_and_run(studied_home: Service, run_page: RunPage) -> None:
    opened = run_id(studied_home, BINS, "reward bin 3")
    page = run_page("univariate", indicator="length", run=str(opened))
    assert page.selectbox[0].value == "length"
    said = words(page)
    assert "reward bin 3" in said
    assert "Bin 3 by **reward**, highest first" in said
    page.selectbox[0].select("mtld").run()
    assert page.query_params["indicator"] in (["mtld"], "mtld")


def test_subsets_are_a_group_of_their_own(studied_home: Service, run_page: RunPage) -> None:
    ids = f"{study_id(studied_home, COMPARISON)}.{study_id(studied_home, MIXTURES)}"
    page = run_page("univariate", studies=ids)
    names = [trace.get("name") for trace in json.loads(figures(page)[0])["data"]]
    assert names[:2] == ["mixtures", "subsets"]


@pytest.mark.parametrize("figure", ["one", "all"])
def test_few_runs_draw_no_line_and_say_why(studied_home: Service, run_page: RunPage, figure: str) -> None:
    page = run_page("univariate", studies=str(study_id(studied_home, OTHER)), figure=figure)
    assert len(figures(page)) == 1
    if figure == "one":
        table = next(one.value for one in page.dataframe if "Pearson" in one.value.columns)
        assert set(table["why not"]) == {"Three runs are too few for an interval."}


def test_broken_links_show_the_usual_choice(studied_home: Service, run_page: RunPage) -> None:
    page = run_page("univariate", studies="99.x", indicator="nothing", run="12345", figure="what", scale="")
    assert len(figures(page)) == 1
    assert page.selectbox[0].value == "reward"
